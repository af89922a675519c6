package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// blocker is one process and one lock that it holds.
type blocker struct {
	Lock      string  `json:"lock"`
	Frame     *uint32 `json:"frame,omitempty"` // of a read mark
	PID       int     `json:"pid"`
	Command   string  `json:"command"`
	Exclusive bool    `json:"exclusive"`
	Age       string  `json:"age"` // of the process
	Blocks    string  `json:"blocks"`
}

func registerBlockers(app *kingpin.Application, env *environment) {
	cmd := app.Command("blockers", "Show who holds which lock and which frame of a database: pid, command, age.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		path, err := pathOf(env, *name)
		if err != nil {
			return err
		}
		found, err := blockersOf(path)
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, found)
		}
		if err := writeBlockers(env.Stdout, path, found); err != nil {
			return err
		}
		return writeLastRefusal(env, *name)
	})
}

// writeLastRefusal says who was refused a lock last, where a daemon knows. Who
// holds the locks does not depend on it, so that no daemon is no error.
func writeLastRefusal(env *environment, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	views, err := askDaemon(ctx, newAdminClient(env), absolute(name))
	if err != nil || len(views) == 0 || views[0].LastBusy == nil {
		return nil
	}
	r := views[0].LastBusy
	_, err = fmt.Fprintf(env.Stdout, "Last refused a lock: pid %d (%s), %s ago.\n", r.PID, r.Command,
		time.Since(r.At).Round(time.Second))
	return err
}

// pathOf returns the file of a database that is named by its file or by its name
// in the configuration.
func pathOf(env *environment, name string) (string, error) {
	if path := absolute(name); path != name || strings.HasPrefix(name, "/") {
		return path, nil
	}
	targets, _, err := targetsOf(env, []string{name})
	if err != nil {
		return "", err
	}
	return targets[0].Path, nil
}

// blockersOf asks the kernel who holds locks, and the wal-index which frames the
// read marks stand for.
func blockersOf(path string) ([]blocker, error) {
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
	found := []blocker{}
	for _, h := range holders {
		b := blocker{Lock: h.Lock, PID: h.PID, Command: h.Command, Exclusive: h.Exclusive,
			Age: h.Age.Round(time.Second).String(), Blocks: blocks(h.Lock, h.Exclusive)}
		if slot, isRead := strings.CutPrefix(h.Lock, "read"); isRead && indexErr == nil && len(slot) == 1 && slot[0] <= '4' {
			frame := index.ReadMarks[slot[0]-'0']
			b.Frame = &frame
			if frame < index.MaxFrame {
				b.Blocks = fmt.Sprintf("frames after %d (of %d) from leaving the WAL", frame, index.MaxFrame)
			}
		}
		found = append(found, b)
	}
	slices.SortStableFunc(found, func(a, b blocker) int { return cmp.Compare(lockRank(a.Lock), lockRank(b.Lock)) })
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

func writeBlockers(w io.Writer, path string, found []blocker) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "Nobody holds a lock on %s.\n", path)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LOCK\tFRAME\tPID\tCOMMAND\tAGE\tKEEPS BACK")
	for _, b := range found {
		frame := "-"
		if b.Frame != nil {
			frame = fmt.Sprint(*b.Frame)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Lock, frame, pidName(b.PID), b.Command, b.Age, b.Blocks)
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
