package capture

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Between two whole Steps there is mostly nothing to do, or nothing that cannot
// wait: what was committed is safe behind our mark. A glance finds that out.
const (
	wholeEvery  = time.Second      // a whole Step
	wholeIdle   = 5 * time.Second  // and of a database at rest
	restAfter   = 10 * time.Second // without a commit, a database is at rest
	glanceBytes = 1 << 20          // of frames that may wait to be read
)

// rests says whether nobody has written for a while. Such a database is looked at
// once a second, and its first commits are met that much later.
func (c *Capture) rests(now time.Time) bool {
	return !c.hold.isOpen() || now.Sub(c.active) >= restAfter
}

// glance does for a Step where nothing is to be done, with a few system
// calls that take no lock. It decides for a whole Step wherever in doubt.
func (c *Capture) glance(now time.Time) (Progress, bool) {
	every := wholeEvery
	if c.rests(now) {
		every = wholeIdle
	}
	if now.Sub(c.whole) >= every || c.doubt != "" || c.broken || c.flushing != nil || c.batch.spilled {
		return Progress{}, false
	}
	// Whoever claims that all is captured knows that these are the files.
	change, st, err := c.files.Look()
	if err != nil || change.Database || st.DatabaseInode != c.pos.Inode || c.hold.isOpen() && st.ShmInode != c.hold.shm {
		return Progress{}, false
	}
	x, err := readIndex(c.files)
	if err != nil {
		return Progress{}, false
	}
	frame, current := x.PageSize+dbfile.FrameHeaderSize, c.head.Current(x)
	next := nextIdle
	switch {
	case !c.hold.isOpen():
		if !current || c.vouch(x) != nil {
			return Progress{}, false
		}
	case !c.hold.active() || !c.hold.proven:
		return Progress{}, false
	case c.hold.zero:
		// The main file of a level WAL changes by a checkpoint only, and there is nothing to backfill.
		main, err := c.mainFile()
		if err != nil || !current || x.Backfilled < x.MaxFrame || main == (spool.MainFile{}) || main != c.still.main {
			return Progress{}, false
		}
		c.pace.observe(Progress{At: now})
		if !c.rests(now) {
			next = c.pace.onZero(frame)
		}
	default:
		if !c.mayWait(now, x, frame) {
			return Progress{}, false
		}
		if current {
			c.pace.observe(Progress{At: now})
		} else {
			c.met(now)
		}
		next = c.pace.next(frame)
	}
	return Progress{TXID: c.pos.TXID, Pending: c.pending, At: now, Next: next, Settled: current && c.batch.empty()}, true
}

// met notes commits that stay where they are for now. Who is told of pending ones
// calls for them when a sync is due.
func (c *Capture) met(now time.Time) {
	c.pace.busy = now
	if c.pending.IsZero() {
		c.pending = now
	}
}

// mayWait says whether what is in the WAL beyond what was read may stay there, and
// the hold where it is.
func (c *Capture) mayWait(now time.Time, x dbfile.WALIndex, frame int) bool {
	if !c.head.InGeneration(x) || x.MaxFrame < c.head.Frames.Frame || int32(x.Change-c.head.Change) < 0 || x.PageSize != c.head.PageSize {
		return false
	}
	unread := int64(x.MaxFrame-c.head.Frames.Frame) * int64(frame)
	if unread >= glanceBytes || !c.pending.IsZero() && now.Sub(c.pending) >= c.o.BatchAge {
		return false
	}
	if c.large(x, frame) || unread == 0 && now.Sub(c.active) >= levelAfter && now.After(c.pace.level) {
		return false
	}
	return !c.waitedFor()
}

// large says whether the WAL is to be restarted.
func (c *Capture) large(x dbfile.WALIndex, frame int) bool {
	return int64(x.MaxFrame)*int64(frame)+c.pace.growth(frame, c.o.RestartAt/2) >= c.o.RestartAt
}
