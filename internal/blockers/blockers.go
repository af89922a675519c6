// Package blockers says who holds which lock and which frame of a database, and what that
// keeps others from. It asks the kernel and the wal-index, and takes no lock.
package blockers

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Blocker is one process and one lock that it holds.
type Blocker struct {
	Lock      string  `json:"lock"`
	Frame     *uint32 `json:"frame,omitempty"` // of a read mark
	PID       int     `json:"pid"`
	Command   string  `json:"command"`
	Exclusive bool    `json:"exclusive"`
	Age       float64 `json:"age_seconds"` // of the process
	Blocks    string  `json:"blocks"`
}

// Of asks the kernel who holds locks, and the wal-index which frames the
// read marks stand for.
func Of(path string) ([]Blocker, error) {
	files, err := dbfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	holders, err := dbfile.LockHolders(files)
	if err != nil {
		return nil, fmt.Errorf("list the locks of %s: %w", path, err)
	}
	index, indexErr := files.WALIndex()
	found := []Blocker{}
	for _, h := range holders {
		b := Blocker{Lock: h.Lock, PID: h.PID, Command: h.Command, Exclusive: h.Exclusive,
			Age: h.Age.Seconds(), Blocks: blocks(h.Lock, h.Exclusive)}
		if slot, isRead := strings.CutPrefix(h.Lock, "read"); isRead && indexErr == nil && len(slot) == 1 && slot[0] <= '4' {
			frame := index.ReadMarks[slot[0]-'0']
			b.Frame = &frame
			if frame < index.MaxFrame {
				b.Blocks = fmt.Sprintf("frames after %d (of %d) from leaving the WAL", frame, index.MaxFrame)
			}
		}
		found = append(found, b)
	}
	slices.SortStableFunc(found, func(a, b Blocker) int { return cmp.Compare(lockRank(a.Lock), lockRank(b.Lock)) })
	return found, nil
}

var lockOrder = []string{"write", "checkpoint", "recover", "read0", "read1", "read2", "read3", "read4", "pending",
	"reserved", "shared", "dms"}

func lockRank(lock string) int { return slices.Index(lockOrder, lock) }

// blocks says what a lock keeps others from.
func blocks(lock string, exclusive bool) string {
	switch {
	case lock == "write":
		return "every other writer"
	case lock == "checkpoint":
		return "every other checkpoint"
	case lock == "recover":
		return "everybody, during recovery"
	case lock == "read0":
		return "new frames from reaching the database"
	case strings.HasPrefix(lock, "read"):
		return "the WAL from being reset"
	case lock == "dms", lock == "shared" && !exclusive:
		return "nobody: it is connected"
	}
	return "everybody"
}

// Write writes what was found as a table.
func Write(w io.Writer, path string, found []Blocker) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "Nobody holds a lock on %s.\n", path)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LOCK\tFRAME\tPID\tCOMMAND\tAGE\tBLOCKS")
	for _, b := range found {
		frame := "-"
		if b.Frame != nil {
			frame = fmt.Sprint(*b.Frame)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Lock, frame, pidName(b.PID), show.Text(b.Command),
			show.Seconds(b.Age), b.Blocks)
	}
	return table.Flush()
}

// pidName says what the kernel means by a process id that is none.
func pidName(pid int) string {
	switch {
	case pid == 0:
		return "in another pid namespace"
	case pid < 0:
		return "open-file lock"
	}
	return fmt.Sprint(pid)
}
