package collector

import (
	"sync"
	"time"
)

// Lock is a kind of SQLite lock, as distinguished by sqlite_busy_total.
type Lock uint8

// The locks of sqlite_busy_total.
const (
	LockWrite      Lock = iota // the WAL's one writer
	LockCheckpoint             // the WAL's one checkpointer
	LockRead                   // read marks 0 to 4
	LockOther                  // recovery, and the locks on the main file
	lockKinds
)

var lockNames = [lockKinds]string{"write", "checkpoint", "read", "other"}

// String returns the lock's name as used in metrics.
func (l Lock) String() string {
	if l < lockKinds {
		return lockNames[l]
	}
	return "invalid"
}

// BusyCounts has the number of refusals by Lock.
type BusyCounts [lockKinds]uint64

// Total returns the refusals of all locks.
func (c BusyCounts) Total() uint64 {
	var n uint64
	for _, v := range c {
		n += v
	}
	return n
}

// BusySource counts refused locks from one point of view: this process's own
// operations (Busy), or the kernel's (package collector/busy).
type BusySource interface {
	// Counts returns the refusals that database db has met so far; they never decrease. Many
	// goroutines call it at every scrape, so it must not wait for anything. An error says why this
	// source cannot count now; the counts returned with it are the last known ones. A database that
	// is not known has none.
	Counts(db string) (BusyCounts, error)
}

// Holds is how long a lock was held each time, as a cumulative histogram.
type Holds struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[time.Duration]uint64 // upper bound → holds up to that long
}

// HoldSource is a BusySource that also times the write lock.
type HoldSource interface {
	// WriteHolds returns the holds of db's write lock so far, under the same rules as
	// BusySource.Counts.
	WriteHolds(db string) (Holds, error)
}

// Busy counts the refusals that this process's own operations met. Its zero value is ready for
// use, also by many goroutines at once.
type Busy struct {
	mu     sync.Mutex
	counts map[string]BusyCounts
}

// Refused counts one refusal of lock at database db.
func (b *Busy) Refused(db string, lock Lock) {
	if lock >= lockKinds {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts == nil {
		b.counts = make(map[string]BusyCounts)
	}
	c := b.counts[db]
	c[lock]++
	b.counts[db] = c
}

// Counts implements BusySource.
func (b *Busy) Counts(db string) (BusyCounts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[db], nil
}
