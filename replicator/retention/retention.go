// Package retention decides which files of a replica may be deleted, and when: those that no
// promised restore needs, once that has been so for a while, by a clock that agrees with the
// store's, and never many at a time. Only the Retainer does I/O.
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
)

// Options say what a replica keeps.
type Options struct {
	// Keep is the time for which every restore point stays reachable.
	Keep time.Duration
	// Grace is how long an unneeded file stays, for restores under way. 0: one hour.
	Grace time.Duration
	// Thin gives, by level, the age at which a file may be deleted within Keep, once a
	// higher level's file covers it: restore points become coarser with age. 0, or a
	// missing level, keeps the level's files for all of Keep.
	Thin []time.Duration
}

// DefaultGrace is the default of Options.Grace.
const DefaultGrace = time.Hour

// Often is the least time between two listings of a replica.
const Often = time.Hour

// Period returns the time between two listings: a day, or less if files live less long, but at
// least Often.
func (o Options) Period() time.Duration {
	shortest := o.Keep
	for _, age := range o.Thin {
		if age > 0 {
			shortest = min(shortest, age)
		}
	}
	return min(max(shortest/24, Often), 24*time.Hour)
}

// Apart is the most that our clock and the store's may differ.
const Apart = 10 * time.Minute

// ClockError says that our clock and the store's differ too much to know how old files are.
type ClockError struct{ Ours, Stores time.Time }

// Error says what follows and what to do.
func (e *ClockError) Error() string {
	return fmt.Sprintf("this machine's clock says %s, the store's %s: nothing is deleted until they agree; set the "+
		"clock that is wrong",
		e.Ours.UTC().Format(time.RFC3339), e.Stores.UTC().Format(time.RFC3339))
}

// Now returns the time by which files are judged: ours, if it differs from the store's by at
// most Apart. stores is zero if the store does not tell its time; then ours is used.
func Now(ours, stores time.Time) (time.Time, error) {
	away := ours.Sub(stores)
	if !stores.IsZero() && (away > Apart || away < -Apart) {
		return time.Time{}, &ClockError{ours, stores}
	}
	return ours, nil
}

// Ledger remembers since when each file has been unneeded. The zero value is empty.
type Ledger struct {
	since map[string]time.Time
	tried map[string]bool // their deletion failed, and they may still be there
}

// Waits reports whether there are unneeded files that are not deleted yet.
func (l *Ledger) Waits() bool { return len(l.since) > 0 }

// Due takes the unneeded files of a listing of total files and returns the keys to delete now,
// oldest first, so that a crash half way leaves a shorter history and never a gap in it. These
// are at most a tenth of all files or an hour's worth of them, whichever is more, and in
// addition those whose deletion failed before.
func (l *Ledger) Due(unneeded []catalog.Dated, total int, grace time.Duration, now time.Time) (keys []string) {
	since, tried := make(map[string]time.Time, len(unneeded)), make(map[string]bool)
	var due, again []catalog.Dated
	for _, f := range unneeded {
		key := f.Object.Key
		begin, known := l.since[key]
		if !known || begin.After(now) {
			begin = now
		}
		since[key] = begin
		switch {
		case l.tried[key]:
			tried[key] = true
			again = append(again, f)
		case now.Sub(begin) >= grace:
			due = append(due, f)
		}
	}
	l.since, l.tried = since, tried
	slices.SortFunc(due, func(a, b catalog.Dated) int {
		return cmp.Or(cmp.Compare(a.Until, b.Until), cmp.Compare(a.MinTXID, b.MinTXID), cmp.Compare(a.Level, b.Level))
	})
	for _, f := range append(due[:share(due, total)], again...) {
		keys = append(keys, f.Object.Key)
	}
	return keys
}

// share returns how many of the sorted files may be deleted at once. It does not divide a group
// that must be deleted together: the rest would have a gap.
func share(due []catalog.Dated, total int) int {
	if len(due) == 0 {
		return 0
	}
	oldest := due[0].At
	for _, f := range due {
		if f.At.Before(oldest) {
			oldest = f.At
		}
	}
	n, until := 0, ltx.TXID(0)
	for ; n < len(due); n++ {
		if n >= total/10 && due[n].At.After(oldest.Add(time.Hour)) && due[n].Until != until {
			break
		}
		until = due[n].Until
	}
	return n
}

// Deleted records the result of a deletion. If it failed, some files may still be there: Due
// returns those that a later listing has.
func (l *Ledger) Deleted(keys []string, failed bool) {
	for _, key := range keys {
		if failed {
			l.tried[key] = true
		} else {
			delete(l.since, key)
		}
	}
}
