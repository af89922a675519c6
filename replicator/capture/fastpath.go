package capture

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// Between two whole Steps there is mostly nothing to do, or nothing that cannot wait: our read mark keeps what was
// committed in the WAL. The fast path finds that out.
const (
	wholeEvery    = time.Second      // at most, between two whole Steps
	wholeIdle     = 5 * time.Second  // likewise, of a database at rest
	restAfter     = 10 * time.Second // without a commit, a database is at rest
	fastPathBytes = 1 << 20          // of frames that may wait to be read
)

// rests reports whether nobody has written for a while. Such a database is looked at once a second, so its next
// commit is noticed that much later.
func (c *Capture) rests(now time.Time) bool {
	return !c.hold.isOpen() || now.Sub(c.pace.Read) >= restAfter
}

// fastPath stands for a whole Step where there is nothing to do, with a few system calls that take no lock. It
// returns false where that is not certain; a whole Step then follows.
func (c *Capture) fastPath(now time.Time) (Progress, bool) {
	every := wholeEvery
	if c.rests(now) {
		every = wholeIdle
	}
	if now.Sub(c.whole) >= every || c.continuity.lost != "" || c.state.Broken() || c.flusher.Busy() ||
		c.tail.Batch.Spilled() {
		return Progress{}, false
	}
	// Before reporting that everything is captured, check that these are still the files, and who uses them.
	change, st, err := c.files.Look()
	if err != nil || change.Database || st.DatabaseInode != c.state.Position().Inode ||
		c.hold.isOpen() && (change.WAL || change.Shm) {
		return Progress{}, false
	}
	if c.presence.Look(now) != nil || c.hold.stood && !c.presence.Attached() {
		return Progress{}, false
	}
	if !c.hold.isOpen() {
		if !c.undisturbed() {
			return Progress{}, false
		}
		c.state.Seen(true)
		return Progress{TXID: c.state.Position().TXID, At: now, Next: pace.Idle, Complete: true}, true
	}
	x, err := tail.Index(c.files)
	if err != nil || c.presence.Alone(now) && !(c.hold.blank && c.departure.lingers(now) && st.WALSize == 0) {
		return Progress{}, false
	}
	frame, current := x.PageSize+dbfile.FrameHeaderSize, c.tail.Head.Current(x)
	next := pace.Idle
	switch {
	case !c.hold.active() || !c.hold.proven:
		return Progress{}, false
	case c.hold.zero:
		// All of the WAL is backfilled, so no checkpoint has a reason to change the main file.
		if !current || x.Backfilled < x.MaxFrame || !c.continuity.untouched() {
			return Progress{}, false
		}
		c.pace.Observe(now, 0, 0)
		if !c.rests(now) {
			next = c.pace.LeaveZero(frame)
		}
	default:
		if !c.mayWait(now, x, frame) {
			return Progress{}, false
		}
		if current {
			c.pace.Observe(now, 0, 0)
		} else {
			c.pace.Met = now
			c.tail.Met(now)
		}
		next = c.pace.Next(frame)
	}
	settled := current && c.tail.Batch.Empty()
	if settled {
		c.state.Seen(true)
	}
	return Progress{
		TXID: c.state.Position().TXID, Pending: c.tail.Pending, At: now, Next: next,
		Complete: settled,
	}, true
}

// mayWait reports whether the frames beyond the head may stay unread for now, and the hold where it is.
func (c *Capture) mayWait(now time.Time, x dbfile.WALIndex, frame int) bool {
	if !c.tail.Head.InGeneration(x) || x.MaxFrame < c.tail.Head.Frames.Frame || int32(x.Change-c.tail.Head.Change) < 0 ||
		x.PageSize != c.tail.Head.PageSize {
		return false
	}
	unread := int64(x.MaxFrame-c.tail.Head.Frames.Frame) * int64(frame)
	if unread >= fastPathBytes || !c.tail.Pending.IsZero() && now.Sub(c.tail.Pending) >= c.o.BatchAge {
		return false
	}
	if c.large(x, frame) || unread == 0 && now.Sub(c.pace.Read) >= levelAfter && now.After(c.pace.NoLevel) {
		return false
	}
	return !c.hold.waitedFor()
}
