package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// How long a database must be quiet before its WAL is made level, so that the
// application's next commit restarts it.
const (
	levelAfter  = time.Second
	levelRetry  = 5 * time.Second
	resumeShare = 2 // a full spool is resumed when it is down to this part of its limit
)

// Step looks for commits, 136 bytes when there are none, and copies them once that
// is worth it. It puts them into the spool as one segment when force is set, when
// the oldest has waited for BatchAge, or when memory for them is used up. It
// restarts the WAL when that is due and lets an idle database alone.
//
// Errors: ErrReplaced, ErrSpoolFull, sqlite.ErrNotWAL and the others of
// sqlite.Open, and errors of the disk. After each, Step may be called again; it
// then proves continuity anew.
func (c *Capture) Step(ctx context.Context, force bool) (Progress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Clock()
	if !force {
		if seen, enough := c.glance(now); enough {
			seen.Next = beat(c.o.Clock(), seen.Next)
			return seen, nil
		}
	}
	c.whole = time.Time{}
	c.tally = Progress{At: now, Next: nextIdle}
	err := c.step(ctx, force)
	if err == nil {
		c.whole = now
	}
	if passing(err) {
		err, c.tally.Next = nil, nextOnZero
	}
	if c.pace.fails(now, err) {
		// A mark that is held for a copy that cannot be made lets the WAL grow.
		err = errors.Join(err, c.rewind(), c.hold.close())
	}
	c.tally.TXID, c.tally.Pending = c.pos.TXID, c.pending
	c.tally.Next = beat(c.o.Clock(), c.tally.Next)
	if err != nil {
		return c.tally, fmt.Errorf("capture %s: %w", c.o.Name, err)
	}
	return c.tally, nil
}

// passing says whether err is of the moment: looking again will do.
func passing(err error) bool {
	return errors.Is(err, errUnsettled) || errors.Is(err, errBudget) || errors.Is(err, errNoView)
}

func (c *Capture) step(ctx context.Context, force bool) error {
	if err := c.refresh(); err != nil {
		return err
	}
	if !c.hold.active() && c.doubt == "" {
		// Nobody wrote since the connections were closed: leave it so.
		if x, err := readIndex(c.files); err == nil && c.head.Current(x) && c.vouch(x) == nil {
			c.tally.Settled = c.batch.empty()
			return nil
		}
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	x, err := readIndex(c.files)
	if err != nil {
		return err
	}
	if err := c.overwritten(x); err != nil {
		return c.doubtOn(ctx, err)
	}
	if err := c.doubtOn(ctx, c.absorb(x)); err != nil {
		return err
	}
	now := c.o.Clock()
	if c.tally.Commits > 0 {
		c.active = now
	}
	if force || c.batch.spilled || !c.pending.IsZero() && now.Sub(c.pending) >= c.o.BatchAge {
		if err := c.doubtOn(ctx, c.flush(ctx)); err != nil {
			return err
		}
	}
	c.tally.Settled = c.batch.empty() && (c.doubt == "" || c.pos.TXID == 0 && x.Pages == 0)
	return c.doubtOn(ctx, c.tend(ctx, x, now))
}

// refresh looks at the files' names and at what an earlier step left behind.
func (c *Capture) refresh() error {
	if err := c.settleFlush(); err != nil {
		return err
	}
	if c.broken {
		if err := c.loadSums(c.spool); err != nil {
			return err
		}
		c.broken = false
	}
	change, err := c.files.Refresh()
	if err != nil {
		return err
	}
	if change.Database {
		return ErrReplaced
	}
	st, err := c.files.Stat()
	if err != nil {
		return err
	}
	if c.pos.Inode != 0 && (c.pos.Inode != st.DatabaseInode || c.pos.Device != st.Dev) {
		c.distrust(ReasonReplaced, "the file has another inode")
	}
	if c.hold.isOpen() && c.hold.shm != st.ShmInode {
		// Someone removed -shm under all who use it. Our locks are on the old one.
		c.distrust(ReasonWALIndex, "the -shm file was removed or replaced")
		return c.hold.close()
	}
	return c.checkSpool()
}

// checkSpool stops capture while the spool is full: the hold is given up, so
// that the application's WAL does not grow in its stead.
func (c *Capture) checkSpool() error {
	limit := c.o.SpoolLimit
	if c.doubt == ReasonSpool {
		limit /= resumeShare
	}
	full := c.spool.Pressure() >= limit
	if !full && (c.hold.isOpen() || c.doubt != "") { // an idle database fills no disk
		full = c.diskLow()
	}
	if !full {
		return nil
	}
	c.distrust(ReasonSpool, fmt.Sprintf("spool holds %d bytes", c.spool.Bytes()))
	return errors.Join(ErrSpoolFull, c.hold.close())
}

// ready makes sure that the WAL is held and that continuity is proven or made
// good, so that absorb may be called.
func (c *Capture) ready(ctx context.Context) error {
	if !c.hold.isOpen() {
		if err := c.hold.open(ctx, c.files); err != nil {
			return err
		}
	}
	if c.doubt != "" {
		return c.diff(ctx)
	}
	if c.hold.active() && c.hold.proven {
		return nil
	}
	if !c.hold.active() {
		if err := c.begin(ctx); err != nil {
			return err
		}
	}
	x, err := readIndex(c.files)
	if err != nil {
		return err
	}
	if err = c.vouch(x); err == nil {
		c.hold.proven = true
		err = c.absorb(x)
	}
	if doubt := (*doubtError)(nil); errors.As(err, &doubt) {
		c.pace.stayOpen = true
	}
	return c.doubtOn(ctx, err)
}

// vouch returns a *doubtError where the wal-index proves nothing, because the
// WAL was reset or the wal-index made anew while we did not hold them.
func (c *Capture) vouch(x dbfile.WALIndex) error {
	main, err := c.mainFile()
	if err != nil || c.head.Vouch(x, main) || x.PageSize != c.head.PageSize {
		return err // another page size is a doubt of its own
	}
	if int32(x.Change-c.head.Change) < 0 {
		return doubtful(ReasonWALIndex, "commit counter went from %d to %d while nobody looked", c.head.Change, x.Change)
	}
	return doubtful(ReasonWALReset, "the WAL was reset while nobody looked")
}

// clockTick is above the resolution of file times: a file written to within it
// may be written to again and show the same time.
const clockTick = 20 * time.Millisecond

// mainFile describes the main file as it is now. It is zero where a later change
// could not be told from it. The caller holds the WAL if it is to remember it.
func (c *Capture) mainFile() (spool.MainFile, error) {
	st, err := c.files.Stat()
	if err != nil || c.boot == "" || time.Since(st.ModTime) < clockTick {
		return spool.MainFile{}, err
	}
	return spool.MainFile{Modified: st.ModTime.UnixNano(), Size: st.DatabaseSize, Boot: c.boot}, nil
}

// overwritten returns a *doubtError where the main file was written to although
// there was nothing to backfill: somebody put another database into the same file,
// as cp does, and what the WAL tells is of the one before.
func (c *Capture) overwritten(x dbfile.WALIndex) error {
	if !c.hold.active() || x.Backfilled < x.MaxFrame {
		c.still = levelFile{}
		return nil
	}
	main, err := c.mainFile()
	if err != nil || main == (spool.MainFile{}) {
		return err
	}
	if again, err := c.files.WALIndex(); err != nil || again.Change != x.Change || again.Salt1 != x.Salt1 || again.Backfilled != x.Backfilled {
		return err // a commit, and perhaps its checkpoint, came between
	}
	before := c.still
	c.still = levelFile{x.Change, x.Salt1, x.MaxFrame, main}
	if before.main != (spool.MainFile{}) && before.change == x.Change && before.salt == x.Salt1 && before.frames == x.MaxFrame && before.main != main {
		return doubtful(ReasonReplaced, "the file was written to, and not by a checkpoint")
	}
	return nil
}

// levelFile is the main file when all of the WAL was in it.
type levelFile struct {
	change, salt, frames uint32
	main                 spool.MainFile
}

// rest remembers a position that the main file holds all of, so that the next
// generation of the WAL can be believed without anybody having held this one.
func (c *Capture) rest() error {
	p := c.head
	var err error
	if p.Main, err = c.mainFile(); err != nil {
		return err
	}
	// In this order: a commit that was backfilled before is one that was read.
	if x, err := readIndex(c.files); err != nil || !p.Current(x) || p == c.pos {
		return err
	}
	return c.confirm(p)
}

// doubtOn turns an error that says that continuity is not proven into a diff.
func (c *Capture) doubtOn(ctx context.Context, err error) error {
	var doubt *doubtError
	if !errors.As(err, &doubt) {
		return err
	}
	c.distrust(doubt.reason, doubt.detail)
	return c.diff(ctx)
}

// tend moves the hold to where it costs the application least.
func (c *Capture) tend(ctx context.Context, x dbfile.WALIndex, now time.Time) error {
	quiet := now.Sub(c.active)
	c.pace.observe(c.tally)
	frame := x.PageSize + dbfile.FrameHeaderSize
	c.tally.Next = c.pace.next(frame)
	level := x.Backfilled >= x.MaxFrame
	switch {
	case c.hold.zero && level && c.rests(now):
		c.tally.Next = nextIdle
	case c.hold.zero && level:
		c.tally.Next = c.pace.onZero(frame)
	}
	live := int64(x.MaxFrame) * int64(frame)
	switch {
	case c.tally.Commits == 0 && c.waitedFor():
		c.tally.Next = nextOnZero
		return c.makeWay(ctx)
	case c.hold.zero && !level:
		return c.hop(ctx)
	case c.large(x, frame) && !c.hold.zero && c.views.Load() == 0 && c.pace.restartDue(now, live):
		return c.tryRestart(ctx, live)
	case quiet >= levelAfter && !c.hold.zero && now.After(c.pace.level):
		c.pace.level = now.Add(levelRetry)
		return c.level(ctx)
	case quiet >= c.o.IdleAfter && c.hold.zero && level && c.batch.empty() && !c.pace.stayOpen && c.views.Load() == 0:
		c.log.Debug("idle: connections closed")
		c.tally.Next = nextIdle
		c.batch, c.scanner = batch{}, dbfile.FrameScanner{} // their memory is for those who write
		err := errors.Join(c.rest(), c.hold.close())
		sqlite.ReturnMemory()
		return err
	}
	return nil
}

// waitedFor says whether the application seems to run a FULL, RESTART or TRUNCATE
// checkpoint of its own: it then holds both locks, nobody can commit, and it
// waits for our mark for as long as its busy timeout lasts.
func (c *Capture) waitedFor() bool {
	both, err := c.files.CheckpointHoldsWrite()
	return err == nil && both
}

// makeWay moves to the head, so that such a checkpoint can backfill, and once it
// has, to READ0, so that it can reset the WAL. Everything is captured before.
func (c *Capture) makeWay(ctx context.Context) error {
	if c.hold.zero {
		return nil
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	return c.hop(ctx)
}

// level backfills a quiet database's WAL and moves to READ0, so that the
// application's next commit begins the WAL at its first frame.
func (c *Capture) level(ctx context.Context) error {
	if err := c.flush(ctx); err != nil {
		return err
	}
	if err := c.hop(ctx); err != nil || c.hold.zero {
		return err
	}
	r, err := c.hold.work.Checkpoint(ctx, sqlite.Passive, sqlite.Budget{})
	if err != nil || r.Outcome != sqlite.OutcomeComplete {
		return err
	}
	return c.hop(ctx)
}
