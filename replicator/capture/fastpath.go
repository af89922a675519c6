package capture

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// Between two whole Steps there is mostly nothing to do, or nothing that cannot
// wait: what was committed is safe behind our mark. The fast path finds
// that out.
const (
	wholeEvery    = time.Second      // a whole Step
	wholeIdle     = 5 * time.Second  // and of a database at rest
	restAfter     = 10 * time.Second // without a commit, a database is at rest
	fastPathBytes = 1 << 20          // of frames that may wait to be read
)

// rests reports whether nobody has written for a while. Such a database is looked at
// once a second, and its first commits are met that much later.
func (c *Capture) rests(now time.Time) bool {
	return !c.hold.isOpen() || now.Sub(c.pace.active) >= restAfter
}

// fastPath does for a Step where nothing is to be done, with a few system
// calls that take no lock. Wherever it is not certain, a whole Step follows.
func (c *Capture) fastPath(now time.Time) (Progress, bool) {
	every := wholeEvery
	if c.rests(now) {
		every = wholeIdle
	}
	if now.Sub(c.whole) >= every || c.continuity.lost != "" || c.state.Broken() || c.flusher.flushing != nil ||
		c.tail.batch.Spilled() {
		return Progress{}, false
	}
	// Whoever claims that all is captured knows that these are the files, and who uses them.
	change, st, err := c.files.Look()
	if err != nil || change.Database || st.DatabaseInode != c.state.Position().Inode ||
		c.hold.isOpen() && (change.WAL || change.Shm) {
		return Progress{}, false
	}
	if c.presence.look(now) != nil {
		return Progress{}, false
	}
	if !c.hold.isOpen() {
		if !c.undisturbed() {
			return Progress{}, false
		}
		c.state.Seen(now, true)
		return Progress{TXID: c.state.Position().TXID, At: now, Next: nextIdle, Settled: true}, true
	}
	x, err := readIndex(c.files)
	if err != nil || c.presence.alone(now) && !(c.hold.blank && c.lingers(now) && st.WALSize == 0) {
		return Progress{}, false
	}
	frame, current := x.PageSize+dbfile.FrameHeaderSize, c.tail.head.Current(x)
	next := nextIdle
	switch {
	case !c.hold.active() || !c.hold.proven:
		return Progress{}, false
	case c.hold.zero:
		// The main file of a level WAL changes by a checkpoint only, and there is nothing to backfill.
		if !current || x.Backfilled < x.MaxFrame || !c.continuity.untouched() {
			return Progress{}, false
		}
		c.pace.observe(now, 0, 0)
		if !c.rests(now) {
			next = c.pace.onZero(frame)
		}
	default:
		if !c.mayWait(now, x, frame) {
			return Progress{}, false
		}
		if current {
			c.pace.observe(now, 0, 0)
		} else {
			c.pace.busy = now
			c.tail.met(now)
		}
		next = c.pace.next(frame)
	}
	settled := current && c.tail.batch.Empty()
	if settled {
		c.state.Seen(now, true)
	}
	return Progress{
		TXID: c.state.Position().TXID, Pending: c.tail.pending, At: now, Next: next,
		Settled: settled,
	}, true
}

// mayWait reports whether what is in the WAL beyond what was read may stay there, and
// the hold where it is.
func (c *Capture) mayWait(now time.Time, x dbfile.WALIndex, frame int) bool {
	if !c.tail.head.InGeneration(x) || x.MaxFrame < c.tail.head.Frames.Frame || int32(x.Change-c.tail.head.Change) < 0 ||
		x.PageSize != c.tail.head.PageSize {
		return false
	}
	unread := int64(x.MaxFrame-c.tail.head.Frames.Frame) * int64(frame)
	if unread >= fastPathBytes || !c.tail.pending.IsZero() && now.Sub(c.tail.pending) >= c.o.BatchAge {
		return false
	}
	if c.large(x, frame) || unread == 0 && now.Sub(c.pace.active) >= levelAfter && now.After(c.pace.level) {
		return false
	}
	return !c.hold.waitedFor()
}
