package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
)

// How long a database must be quiet before all of its WAL is backfilled and the hold moves to READ0, so
// that the application's next commit restarts the WAL: see hold.level.
const (
	levelAfter  = time.Second
	levelRetry  = 5 * time.Second
	resumeShare = 2 // capture resumes when a full spool is down to its limit divided by this
)

// Step looks for commits, by reading the 136 bytes of the wal-index header, and copies them once there
// are enough or they are old enough. It puts them into the spool as one segment when force is set, when
// the oldest has waited for BatchAge, or when the memory for them is used up. It restarts the WAL when
// that is due, and leaves an idle database alone. See Capture for the order.
//
// Errors: ErrReplaced, ErrSpoolFull, ErrQueued, ErrCut, *dbfile.ForeignError, those of sqlite.Open such
// as sqlite.ErrNotWAL, and I/O errors. After each of them Step may be called again; it then proves
// continuity anew.
func (c *Capture) Step(ctx context.Context, force bool) (Progress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.state.Look()
	if !force {
		if seen, enough := c.fastPath(now); enough {
			seen.Next = pace.Rhythmic(c.o.Clock(), seen.Next)
			return seen, nil
		}
	}
	c.whole = time.Time{}
	c.tally = Progress{At: now, Next: pace.Idle}
	c.tail.Commits, c.tail.Frames = 0, 0
	before := c.state.Position().TXID
	err := c.pass(ctx, force)
	if err == nil {
		c.whole = now
	}
	if !errors.Is(err, ErrQueued) {
		c.o.Place.End()
	}
	if c.pace.Passes(now, passing(err)) {
		err, c.tally.Next = nil, pace.OnZero
	}
	if foreign := (*dbfile.ForeignError)(nil); errors.As(err, &foreign) {
		// Our read mark does not stop a process that uses another WAL or takes no locks.
		c.tally.Complete = false
		c.tail.Rewind()
		err = errors.Join(err, c.hold.close())
	}
	if torn := errors.Is(err, dbfile.ErrTorn) && !c.presence.Attached(); torn || errors.Is(err, dbfile.ErrUninitialised) {
		// The writer of the wal-index was killed, and the next process to open it will rebuild it; or
		// one is rebuilding it right now, under our connections.
		c.tail.Rewind()
		err = c.hold.close()
	}
	if c.pace.Fails(now, err) || errors.Is(err, sqlite.ErrIndexCut) {
		// A read mark held while nothing can be copied only lets the WAL grow.
		c.tail.Rewind()
		err = errors.Join(err, c.hold.close())
	}
	c.tally.Commits, c.tally.Frames = c.tail.Commits, c.tail.Frames
	c.tally.TXID, c.tally.Pending = c.state.Position().TXID, c.tail.Pending
	if c.tally.Pending.IsZero() && c.continuity.lost != "" && c.continuity.lost != tail.ReasonFirst {
		c.tally.Pending = c.continuity.since // what was committed since is unknown until the comparison
	}
	c.tally.Spooled = c.tally.TXID != before
	c.tally.Next = pace.Rhythmic(c.o.Clock(), c.tally.Next)
	if err != nil {
		return c.tally, fmt.Errorf("capture %s: %w", c.o.Name, err)
	}
	return c.tally, nil
}

// passing reports whether err is transient: the next attempt may succeed.
func passing(err error) bool {
	return errors.Is(err, tail.ErrRestarting) || errors.Is(err, tail.ErrBudget) || errors.Is(err, view.ErrNone) ||
		errors.Is(err, dbfile.ErrUnclear) || errors.Is(err, mainfile.ErrUnsettled)
}

// pass runs one step, in the order that Capture describes.
func (c *Capture) pass(ctx context.Context, force bool) error {
	if err := c.refresh(); err != nil {
		return err
	}
	if !c.hold.isOpen() && c.undisturbed() {
		// Nobody wrote since the connections were closed: keep them closed.
		c.tally.Complete = c.tail.Batch.Empty()
		c.state.Seen(c.tally.Complete)
		if c.presence.Attached() {
			return nil
		}
		if err := c.departure.lie(); err != nil || !c.presence.Alone(c.o.Clock()) {
			return err
		}
		c.departure.clear(ctx, c.o.Clock())
		return nil
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	x, err := tail.Index(c.files)
	if err != nil {
		return err
	}
	whole := c.continuity.whole(c.hold)
	if err := c.continuity.overwritten(x, c.hold); err != nil {
		return c.compareIfLost(ctx, err)
	}
	if err := c.compareIfLost(ctx, c.flusher.AbsorbWhole(x, whole)); err != nil {
		return err
	}
	c.state.Seen(false)
	now := c.o.Clock()
	if c.tail.Commits > 0 {
		c.pace.Read = now
	}
	if force || c.tail.Batch.Spilled() || !c.tail.Pending.IsZero() && now.Sub(c.tail.Pending) >= c.o.BatchAge {
		if err := c.compareIfLost(ctx, c.flusher.FlushUntil(ctx)); err != nil {
			return err
		}
	}
	c.tally.Complete = c.tail.Batch.Empty() && (c.continuity.lost == "" || c.state.Position().TXID == 0 && x.Pages == 0)
	err = c.compareIfLost(ctx, errors.Join(c.tend(ctx, x, now), c.seeMain()))
	foreign := (*dbfile.ForeignError)(nil)
	if c.tally.Complete && !errors.As(err, &foreign) {
		c.state.Seen(true)
	}
	if err != nil {
		return err
	}
	if c.presence.Stay(now) {
		c.continuity.main.Follow()
		return c.hold.shed()
	}
	return nil
}

// seeMain checks whether something other than a checkpoint wrote to the main file.
func (c *Capture) seeMain() error {
	if !c.hold.active() || !c.hold.proven {
		return nil
	}
	x, err := c.files.WALIndex()
	if err != nil {
		return nil // the next step finds out why
	}
	return c.continuity.overwritten(x, c.hold)
}

// refresh checks that the files are still at their paths, finishes what an earlier step left behind,
// and finds out who else uses the database and whether the spool has room.
func (c *Capture) refresh() error {
	change, err := c.names()
	if err = errors.Join(err, c.flusher.Wait(), c.state.Mend()); err != nil {
		return err
	}
	if change.Database {
		return ErrReplaced
	}
	st, err := c.files.Stat()
	if err != nil {
		return err
	}
	if pos := c.state.Position(); pos.Inode != 0 && (pos.Inode != st.DatabaseInode || pos.Device != st.Dev) {
		c.continuity.lose(tail.ReasonReplaced, "the file has another inode")
	}
	if c.hold.isOpen() && (change.WAL || change.Shm) { // they are pinned: those that we hold have left their paths
		if err := c.drain(); err != nil {
			return err
		}
	}
	return errors.Join(c.attend(c.o.Clock()), c.checkSpool())
}

// partingTime is how long to wait until the processes that use unlinked side files have closed them:
// one that is just closing may have checked already whether its connection is the last.
const partingTime = 250 * time.Millisecond

// names checks whether the files are still at their paths. If not, it stands back at once, so that the
// last close of the processes that use the unlinked files writes the commits in their WAL to the
// database. Where those processes stay, it closes our connections.
func (c *Capture) names() (dbfile.Change, error) {
	change, err := c.files.Refresh()
	if err != nil || !c.hold.isOpen() || !change.Database && !change.WAL && !change.Shm {
		return change, err
	}
	err = c.hold.shed()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		user, userErr := c.files.IndexUser()
		if err == nil && userErr == nil && !user.Held {
			return change, nil
		}
		if err != nil || userErr != nil || time.Since(began) > partingTime {
			break
		}
	}
	err = errors.Join(err, c.hold.drop())
	if !change.Database {
		c.continuity.lose(tail.ReasonWALIndex, "the -shm file was removed or replaced")
	}
	return change, err
}

// lastNames does on Close what refresh does in a step whose side files have left their paths.
func (c *Capture) lastNames() error {
	for deadline := time.Now().Add(partTime); ; time.Sleep(mainfile.Tick / 4) {
		change, err := c.names()
		if err != nil || change.Database || !c.hold.isOpen() || !change.WAL && !change.Shm {
			return nil // the next Capture finds what was not captured
		}
		if err := c.drain(); !passing(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// checkSpool stops capture while the spool is full, and ends the hold, so that the application's WAL
// does not grow instead.
func (c *Capture) checkSpool() error {
	limit := c.o.SpoolLimit
	if c.continuity.lost == tail.ReasonSpool {
		limit /= resumeShare
	}
	if c.state.Spool().Pressure() >= limit {
		c.continuity.lose(tail.ReasonSpool, fmt.Sprintf("spool holds %d bytes", c.state.Spool().Bytes()))
		return errors.Join(ErrSpoolFull, c.hold.close())
	}
	if !c.hold.isOpen() && c.continuity.lost == "" { // an idle database fills no disk
		return nil
	}
	err := c.state.Room()
	if err == nil {
		return nil
	}
	c.continuity.lose(tail.ReasonSpool, err.Error())
	return errors.Join(noRoom{err}, c.hold.close())
}

// noRoom is both ErrSpoolFull and ErrNoRoom; its text names the file system.
type noRoom struct{ error }

func (noRoom) Is(target error) bool { return target == ErrSpoolFull || target == ErrNoRoom }

// ready makes sure that the WAL is held and that continuity is proven, or the database compared, so
// that Flusher.Absorb may be called.
func (c *Capture) ready(ctx context.Context) error {
	if !c.hold.isOpen() {
		if c.claim.Arriving(c.o.Clock()) || c.presence.Coming() {
			return mainfile.ErrUnsettled
		}
		if c.continuity.lost == tail.ReasonReplaced && c.presence.Fresh(c.o.Clock()) {
			// An application that has just recreated the file may do so again at once, and all of the
			// file has to be read anyway: later is as good as now.
			return fmt.Errorf("%w: those who use the new file have just come", tail.ErrRestarting)
		}
		if c.continuity.lost != "" {
			if err := c.comparer.wait(); err != nil {
				return err
			}
		}
		c.claim.Forget()
		c.continuity.level = levelFile{} // what was seen earlier may no longer be so
		unclaimed := c.claim.Missing(c.o.Clock())
		if err := c.hold.open(ctx); err != nil {
			return err
		}
		c.hold.unclaimed = unclaimed
	}
	c.hold.unclaimed = c.hold.unclaimed && !c.presence.Attached()
	c.departure.unclaim()
	if c.continuity.lost != "" {
		return c.compare(ctx)
	}
	if c.hold.active() && c.hold.proven {
		return nil
	}
	if !c.hold.active() {
		if err := c.hold.begin(ctx); err != nil {
			return err
		}
	}
	x, err := tail.Index(c.files)
	if err != nil {
		return err
	}
	if err = c.continuity.unheld(x); err == nil {
		c.hold.proven = true
		err = c.flusher.Absorb(x)
	}
	if lost := (*tail.DiscontinuityError)(nil); errors.As(err, &lost) {
		c.pace.StayOpen, c.pace.Read = true, c.o.Clock() // the process that we missed has just written
		c.presence.Missed(c.pace.Read)
	}
	return c.compareIfLost(ctx, err)
}

// compareIfLost runs a comparison where err is a *tail.DiscontinuityError, and returns any other err.
func (c *Capture) compareIfLost(ctx context.Context, err error) error {
	var lost *tail.DiscontinuityError
	if !errors.As(err, &lost) {
		return err
	}
	c.continuity.lose(lost.Reason, lost.Detail)
	return c.compare(ctx)
}

// compare captures what was missed. Where another process waits for exclusive use of the database, it
// closes the connections and returns an error that is passing.
func (c *Capture) compare(ctx context.Context) (err error) {
	if c.tally.Reason, err = c.comparer.run(ctx); errors.Is(err, presence.ErrWaited) {
		err = errors.Join(view.ErrNone, c.hold.close())
	}
	return err
}

// tend moves the hold to where it costs the application least.
func (c *Capture) tend(ctx context.Context, x dbfile.WALIndex, now time.Time) error {
	quiet := now.Sub(c.pace.Read)
	c.pace.Observe(c.tally.At, c.tail.Commits, c.tail.Frames)
	frame := x.PageSize + dbfile.FrameHeaderSize
	c.tally.Next = c.pace.Next(frame)
	level := x.Backfilled >= x.MaxFrame
	c.departure.unclaim()
	if (c.hold.unclaimed || c.copies.Any()) && c.tail.Batch.Empty() && c.presence.Refused(now) != nil {
		return c.hold.close() // a process waits for exclusive use, which we would deny it
	}
	if c.hold.unclaimed = c.hold.unclaimed && c.claim.StillMissing(x); c.hold.unclaimed {
		if c.tail.Batch.Empty() {
			c.tally.Next = pace.Idle
		}
		return nil
	}
	c.hold.blank = c.hold.blank && x.MaxFrame == 0
	switch {
	case c.hold.zero && level && c.rests(now):
		c.tally.Next = pace.Idle
	case c.hold.zero && level:
		c.tally.Next = c.pace.LeaveZero(frame)
	}
	live := int64(x.MaxFrame) * int64(frame)
	switch {
	case c.presence.Alone(now) && !c.copies.Any() && c.continuity.lost == "":
		if err := c.flusher.Flush(); err != nil {
			return err
		}
		var err error
		c.tally.Next, err = c.departure.rest(ctx, x, now)
		return err
	case c.tail.Commits == 0 && c.hold.waitedFor():
		c.tally.Next = pace.OnZero
		return c.hold.makeWay(ctx)
	case c.hold.zero && !level:
		return c.hold.advance(ctx)
	case c.large(x, frame) && !c.hold.zero && c.restarter.pace.Due(now, live):
		did, err := c.restarter.try(ctx, live)
		if did.done {
			c.tally.Next = pace.OnZero
		}
		c.tally.Restart, c.tally.Stall = did.done, did.stall
		return err
	case quiet >= levelAfter && !c.hold.zero && now.After(c.pace.NoLevel):
		c.pace.NoLevel = now.Add(levelRetry)
		return c.hold.level(ctx)
	case quiet >= c.o.IdleAfter && c.hold.zero && level && c.tail.Batch.Empty() && !c.pace.StayOpen && !c.copies.Any():
		c.log.Debug("idle: connections closed")
		c.tally.Next = pace.Idle
		c.tail.Release()
		err := errors.Join(c.continuity.rememberLevel(), c.hold.close())
		sqlite.ReturnMemory()
		return err
	}
	return nil
}

// large reports whether the WAL is large enough to be restarted.
func (c *Capture) large(x dbfile.WALIndex, frame int) bool {
	return c.restarter.pace.Large(int64(x.MaxFrame)*int64(frame), c.pace.Growth(frame))
}

// keepBounded keeps the WAL bounded between two portions of a comparison, as tend does between two
// steps. Where it returns nil, everything up to the read mark has been read.
func (c *Capture) keepBounded(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), c.presence.Refused(c.o.Clock())); err != nil {
		return err
	}
	switch change, err := c.names(); {
	case err != nil:
		return err
	case change.Database:
		return ErrReplaced
	case change.WAL || change.Shm:
		return fmt.Errorf("%w: the side files are no longer at their names", view.ErrNone)
	}
	x, err := tail.Index(c.files)
	if err != nil {
		return err
	}
	frame := x.PageSize + dbfile.FrameHeaderSize
	live := int64(x.MaxFrame) * int64(frame)
	switch {
	case c.hold.waitedFor():
		err = c.hold.makeWay(ctx)
	case c.hold.zero && x.Backfilled < x.MaxFrame:
		err = c.hold.advance(ctx)
	case c.large(x, frame) && !c.hold.zero && c.restarter.pace.Due(c.o.Clock(), live):
		var did restarted
		did, err = c.restarter.try(ctx, live)
		c.tally.Restart, c.tally.Stall = did.done || c.tally.Restart, max(did.stall, c.tally.Stall)
	}
	if err != nil && !passing(err) {
		return err
	}
	for range restartingTries {
		if err = c.flusher.CaptureHeadUntil(ctx); !errors.Is(err, tail.ErrRestarting) {
			break
		}
		time.Sleep(contendPoll)
	}
	return err
}

const restartingTries = 200 // attempts at a WAL that is just being restarted
