package blockers

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Writer is one process that held the write lock while we looked.
type Writer struct {
	PID     int     `json:"pid"`
	Command string  `json:"command"`
	Held    float64 `json:"held_ratio"`      // of the looks
	Longest float64 `json:"longest_seconds"` // held without a break, as far as the looks tell
}

// Writers is who wrote, and how much, while we looked.
type Writers struct {
	Seconds float64  `json:"seconds"`
	Looks   int      `json:"looks"`
	Commits int      `json:"commits"` // of all, seen or not
	Writers []Writer `json:"writers"` // who held the lock for longest first
}

// look is how often the write lock is looked at.
const look = 500 * time.Microsecond

// Watch looks at the write lock again and again for a while. It takes no lock. Who writes
// for less than the time between two looks may be missed, and counts among the commits.
func Watch(ctx context.Context, path string, length time.Duration) (w Writers, err error) {
	files, err := dbfile.Open(path)
	if err != nil {
		return w, err
	}
	defer files.Close()
	w.Writers = []Writer{}
	seen := map[int]*Writer{}
	tick := time.NewTicker(look)
	defer tick.Stop()
	first, before, since := uint32(0), uint32(0), time.Time{}
	last := 0
	begun := time.Now()
	for now := begun; now.Sub(begun) < length; now = time.Now() {
		locks, err := files.Locks()
		if err != nil {
			return w, fmt.Errorf("look at the locks of %s: %w", path, err)
		}
		index, err := files.WALIndex()
		if err == nil {
			if w.Looks == 0 {
				first, before = index.Change, index.Change
			}
			w.Commits = int(index.Change - first)
		}
		holder := 0
		if locks.Write.Held {
			holder = locks.Write.PID
			if seen[holder] == nil {
				seen[holder] = &Writer{PID: holder}
			}
			one := seen[holder]
			if holder != last || index.Change != before {
				since = now
			}
			one.Held++
			one.Longest = max(one.Longest, now.Sub(since).Seconds())
		}
		last, before = holder, index.Change
		w.Looks++
		select {
		case <-ctx.Done():
			return w, ctx.Err()
		case <-tick.C:
		}
	}
	w.Seconds = time.Since(begun).Seconds()
	holders, err := dbfile.LockHolders(files)
	if err != nil {
		return w, fmt.Errorf("list the locks of %s: %w", path, err)
	}
	for _, pid := range slices.Sorted(maps.Keys(seen)) {
		one := seen[pid]
		one.Held /= float64(w.Looks)
		if i := slices.IndexFunc(holders, func(h dbfile.LockHolder) bool { return h.PID == pid }); i >= 0 {
			one.Command = holders[i].Command
		}
		w.Writers = append(w.Writers, *one)
	}
	slices.SortStableFunc(w.Writers, func(a, b Writer) int { return cmp.Compare(b.Held, a.Held) })
	return w, nil
}

// Write writes who wrote as a table.
func (w Writers) Write(out io.Writer) error {
	fmt.Fprintf(out, "%s in %s; the write lock was looked at %s.\n", show.Count(w.Commits, "commit"),
		show.Seconds(w.Seconds), show.Count(w.Looks, "time"))
	if len(w.Writers) == 0 {
		_, err := fmt.Fprintln(out, "Nobody was seen holding it.")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PID\tCOMMAND\tHELD\tLONGEST")
	for _, one := range w.Writers {
		fmt.Fprintf(table, "%s\t%s\t%.1f %%\t%s\n", pidName(one.PID), cmp.Or(show.Text(one.Command), "(ended)"), one.Held*100,
			show.Seconds(one.Longest))
	}
	return table.Flush()
}
