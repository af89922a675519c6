package capture

import (
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// continuity is whether no commit was missed between the position and what is found now: either that is proven, or
// it is lost for a reason until the comparison that is then due has ended.
type continuity struct {
	files *dbfile.Files
	tail  *tail.Tail
	state *statedir.Dir
	log   *slog.Logger
	main  *mainfile.Probe

	lost   Reason    // why continuity from the position is not proven; "" when it is
	since  time.Time // when it was lost
	level  levelFile
	former *dbfile.WALIndex                  // of a WAL over which another file was put in place: see overwritten
	alike  bool                              // and a comparison has found no difference since, as after touch
	counts atomic.Pointer[map[Reason]uint64] // replaced, never changed
}

// levelFile is the main file as last seen, and how much of which WAL generation was in it then.
type levelFile struct {
	salt, backfilled uint32
	onZero           uint64 // the stay on READ0, during which nothing newer can be backfilled: see hold.onZero
	main             spool.MainFile
	sure             bool // any later write would show in the file's times
}

func newContinuity(files *dbfile.Files, t *tail.Tail, s *statedir.Dir, log *slog.Logger) *continuity {
	c := &continuity{files: files, tail: t, state: s, log: log, main: mainfile.New(files)}
	c.counts.Store(&map[Reason]uint64{})
	return c
}

// discontinuities returns how often continuity was lost, by reason.
func (c *continuity) discontinuities() map[string]uint64 {
	out := make(map[string]uint64)
	for _, r := range Reasons() {
		out[string(r)] = (*c.counts.Load())[r]
	}
	return out
}

// lose notes that continuity is not proven. Until the comparison is made only the first reason counts.
func (c *continuity) lose(r Reason, detail string) {
	if c.lost != "" {
		return
	}
	c.lost, c.since = r, c.state.Clock()
	c.tail.Rewind()
	if r == tail.ReasonFirst {
		return
	}
	counts := maps.Clone(*c.counts.Load())
	counts[r]++
	c.counts.Store(&counts)
	next := "no action needed"
	if r == tail.ReasonReplaced {
		next = "if that was while an application had it open, `sqlwatch verify` tells whether it is sound"
	}
	c.log.Warn("cannot prove that every commit was captured; comparing the database with its page checksums",
		"reason", string(r), "detail", detail, "next", next)
	pos := c.state.Position()
	if r == tail.ReasonSpool || pos.Doubt != "" { // a full spool changes nothing about what the position proves
		return
	}
	pos.Doubt = string(r)
	c.tail.Restart(pos)
	if err := c.state.Doubt(pos); err != nil {
		c.log.Warn("the discontinuity could not be written down: should sqlwatch be killed before the comparison ends, run "+
			"`sqlwatch verify`", "err", err)
	}
}

// unheld returns a *tail.DiscontinuityError where the wal-index proves nothing, because the WAL was reset or the
// wal-index rebuilt while we held no read mark.
func (c *continuity) unheld(x dbfile.WALIndex) error {
	head := c.tail.Head
	main, err := c.main.Sure()
	if err != nil {
		return err
	}
	if head.Continues(x, main) {
		return c.recount(x)
	}
	if x.PageSize != head.PageSize {
		return tail.Discontinuous(tail.ReasonPageSize, "from %d to %d bytes", head.PageSize, x.PageSize)
	}
	if int32(x.Change-head.Change) < 0 {
		return tail.Discontinuous(tail.ReasonWALIndex, "commit counter went from %d to %d while nobody looked", head.Change,
			x.Change)
	}
	return tail.Discontinuous(tail.ReasonWALReset, "the WAL was reset while nobody looked")
}

// recount adopts the commit counter of a wal-index that was rebuilt from a WAL that ends at the head: the running
// checksum shows that nothing was committed since.
func (c *continuity) recount(x dbfile.WALIndex) error {
	p := c.tail.Head
	if x.MaxFrame == 0 || !p.InGeneration(x) || p.Frames != x.Position() || p.Change == x.Change || !c.tail.Batch.Empty() {
		return nil
	}
	p.Change = x.Change
	return c.confirm(p)
}

// overwritten returns a *tail.DiscontinuityError where the main file was written to and nothing was backfilled:
// somebody put another database into the same file, as cp does, and the WAL belongs to the previous one. (A
// checkpoint announces how far it means to get before it writes.) It is called at the beginning and at the end of
// a step, so that a checkpoint of ours does not hide a write that follows it.
func (c *continuity) overwritten(x dbfile.WALIndex, h *hold) error {
	if !h.active() || x.BackfillAttempted > x.Backfilled {
		c.level = levelFile{}
		return nil
	}
	main, err := c.main.Now()
	if err != nil || main == (spool.MainFile{}) {
		return err
	}
	before := c.level
	same := before.salt == x.Salt1 && before.backfilled == x.Backfilled || before.onZero > 0 && before.onZero == h.onZero()
	backfilled, readErr := true, error(nil)
	if !same { // was the file overwritten between that checkpoint and this look?
		backfilled, readErr = c.main.Backfilled(x)
	}
	again, err := c.files.WALIndex()
	if err != nil || again.Salt1 != x.Salt1 || again.Backfilled != x.Backfilled ||
		again.BackfillAttempted != x.BackfillAttempted {
		return err // a checkpoint came in between
	}
	if readErr != nil {
		return readErr
	}
	main.Changed = 0 // chmod or a hard link changes it too
	c.level = levelFile{x.Salt1, x.Backfilled, h.onZero(), main, mainfile.Aged(main)}
	if !backfilled {
		c.former, c.alike = &x, false
		return tail.Discontinuous(tail.ReasonReplaced, "the file does not have what a checkpoint wrote to it")
	}
	if before.main != (spool.MainFile{}) && same && before.main != main {
		c.former, c.alike = &x, false
		return tail.Discontinuous(tail.ReasonReplaced, "the file was written to, and not by a checkpoint")
	}
	return nil
}

// replaced loses continuity where overwritten finds that another file was put in place. It is for the moment at which
// other processes have gone while we stood back: a last close disregards our READ0, and backfills.
func (c *continuity) replaced(h *hold) (is bool, err error) {
	x, err := c.files.WALIndex()
	if err != nil {
		return false, nil // the caller finds out why
	}
	if x.Backfilled > 0 || int32(x.Change-c.tail.Head.Change) < 0 { // or the wal-index was rebuilt after it
		c.level.onZero = 0
	}
	var lost *tail.DiscontinuityError
	if err = c.overwritten(x, h); errors.As(err, &lost) {
		c.lose(lost.Reason, lost.Detail)
		return true, nil
	}
	return false, err
}

// ofFormer reports whether the WAL that x describes is of the file that was there before this one, and whether nobody
// has committed to it since that was noticed. If somebody has, to a file that is like the former, it is of this one.
func (c *continuity) ofFormer(x dbfile.WALIndex) (is, still bool) {
	is = c.former != nil && c.former.Salt1 == x.Salt1 && c.former.Salt2 == x.Salt2
	still = is && c.former.MaxFrame == x.MaxFrame
	return is && (still || !c.alike), still
}

// whole reports whether everything committed since the head is in the WAL as it is now, whatever the wal-index
// counts: on READ0, the main file had everything up to the head, and nothing was written to it since.
func (c *continuity) whole(h *hold) bool {
	head := c.tail.Head
	return c.level.sure && h.active() && h.proven && c.level.onZero > 0 && c.level.onZero == h.onZero() &&
		c.level.salt == head.Salt1 && c.level.backfilled == head.Frames.Frame && c.untouched()
}

// landmark remembers the main file right after a checkpoint of ours that ended on READ0:
// until we leave READ0 no checkpoint can write to it, so a changed time, however close, is
// somebody else's doing.
func (c *continuity) landmark(h *hold) {
	if main, err := c.main.Now(); err == nil && h.onZero() > 0 {
		main.Changed = 0
		c.level = levelFile{onZero: h.onZero(), main: main}
	}
}

// untouched reports whether the main file is what it was at the last whole Step.
func (c *continuity) untouched() bool {
	main, err := c.main.Sure()
	main.Changed = 0
	return err == nil && main.Modified != 0 && main == c.level.main
}

// atRest reports whether a database that nobody uses is as it was captured: the main file is as it was when
// everything was in it, and there is no WAL with frames. The wal-index is not asked: the process that rebuilt it
// last need not be the last that wrote.
func (c *continuity) atRest() bool {
	main, err := c.main.Sure()
	if err != nil || c.lost != "" || !c.tail.Batch.Empty() || !c.state.Position().Main.Same(main) {
		return false
	}
	st, err := c.files.Stat()
	return err == nil && st.WALSize <= dbfile.WALHeaderSize
}

// rememberLevel records the position of a database whose main file has everything, so that the next generation of
// the WAL can be trusted although nobody held this one.
func (c *continuity) rememberLevel() error {
	p := c.tail.Head
	var err error
	if p.Main, err = c.main.Sure(); err != nil {
		return err
	}
	// The wal-index is read after the main file, and so shows any commit that was backfilled before.
	if x, err := tail.Index(c.files); err != nil || !p.Current(x) || p == c.state.Position() {
		return err
	}
	return c.confirm(p)
}

// confirm adopts a position at which the database's content is still that of the last segment.
func (c *continuity) confirm(p spool.Position) error {
	at := c.state.Position()
	p.TXID, p.Timestamp, p.Taken = at.TXID, at.Timestamp, at.Taken
	if err := c.state.Restate(p); err != nil {
		return err
	}
	c.tail.Restart(p)
	return nil
}
