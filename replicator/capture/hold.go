package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// hold keeps the WAL from being reset before it is captured. One of two
// connections is in a read transaction. What that holds is one of two locks:
//
//   - READ1 to READ4 at some frame, the mark. Nobody can reset the WAL, and
//     nobody can backfill beyond the mark. An application that checkpoints by
//     itself then finds nothing to do, and runs faster than without us.
//   - READ0, given only when every frame is in the database. Newer frames can
//     neither be backfilled nor reset, but the WAL may be restarted at frame 1.
//     Each of the application's own checkpoints then costs it an fsync for
//     nothing, so READ0 is left as soon as frames appear.
//
// To move, begin on the free connection and only then end the other.
type hold struct {
	readers [2]*sqlite.Conn
	work    *sqlite.Conn // runs checkpoints: a connection cannot while it reads
	held    int          // which reader is in the transaction
	zero    bool         // it is on READ0
	proven  bool         // nothing was missed between the position and the moment it began
	mark    uint32       // the head when it began, or a frame before
	shm     uint64       // inode of the wal-index that the connections have mapped
}

// open opens the connections. The files must be open before.
func (h *hold) open(ctx context.Context, files *dbfile.Files) (err error) {
	// To ask SQLite for the mode takes a lock that keeps a rollback journal's writer out.
	if header, err := files.Header(); err == nil && !header.WAL() {
		return fmt.Errorf("open %s: %w", files.Path(), sqlite.ErrNotWAL)
	}
	for _, conn := range []**sqlite.Conn{&h.readers[0], &h.readers[1], &h.work} {
		if *conn, err = sqlite.Open(ctx, files.Path(), sqlite.Options{}); err != nil {
			return errors.Join(err, h.close())
		}
	}
	// The first connection of all makes the -wal and -shm files.
	if _, err := files.Refresh(); err != nil {
		return errors.Join(err, h.close())
	}
	st, err := files.Stat()
	if err != nil {
		return errors.Join(err, h.close())
	}
	h.shm = st.ShmInode
	return nil
}

// readIndex reads the wal-index. When the WAL is empty and the wal-index was made
// after that, it knows neither the page size nor the database's: the main file,
// which then is all there is, does. The caller holds the WAL if it is to believe them.
func readIndex(files *dbfile.Files) (dbfile.WALIndex, error) {
	x, err := files.WALIndex()
	if err != nil || x.MaxFrame > 0 || x.PageSize > 0 && x.Pages > 0 {
		return x, err
	}
	h, err := files.Header()
	if errors.Is(err, dbfile.ErrEmpty) {
		return x, nil
	}
	if err != nil {
		return x, err
	}
	x.PageSize, x.Pages = h.PageSize, h.Pages
	if !h.PagesValid() {
		st, err := files.Stat()
		if err != nil {
			return x, err
		}
		x.Pages = uint32(st.DatabaseSize / int64(h.PageSize))
	}
	return x, nil
}

func (h *hold) isOpen() bool { return h.work != nil }

// active says whether a read transaction is open.
func (h *hold) active() bool { return h.isOpen() && h.reader().InRead() }

func (h *hold) reader() *sqlite.Conn { return h.readers[h.held] }
func (h *hold) free() *sqlite.Conn   { return h.readers[1-h.held] }

// close ends the transaction and closes the connections.
func (h *hold) close() error {
	var errs []error
	for _, conn := range []*sqlite.Conn{h.readers[0], h.readers[1], h.work} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	*h = hold{}
	return errors.Join(errs...)
}

// beginRead begins a read transaction on conn. marked means that it has one of
// READ1 to READ4. x is the wal-index as it was read afterwards.
func beginRead(ctx context.Context, files *dbfile.Files, conn *sqlite.Conn) (x dbfile.WALIndex, marked bool, err error) {
	if err := conn.BeginRead(ctx); err != nil {
		return x, false, err
	}
	if x, err = readIndex(files); err != nil {
		return x, false, errors.Join(err, conn.EndRead())
	}
	return x, conn.ReadMark() > 0, nil
}

// begin starts holding where nothing is held.
func (c *Capture) begin(ctx context.Context) error {
	if !c.hold.isOpen() {
		if err := c.hold.open(ctx, c.files); err != nil {
			return err
		}
	}
	c.hold.proven = false
	return c.beginHeld(ctx)
}

// beginHeld begins the read transaction of the connection that holds.
func (c *Capture) beginHeld(ctx context.Context) error {
	mark, err := c.files.WALIndex()
	if err != nil {
		return err
	}
	_, marked, err := beginRead(ctx, c.files, c.hold.reader())
	c.hold.zero, c.hold.mark = !marked, mark.MaxFrame
	return err
}

// hop moves the hold to the head of the WAL. Where the new transaction may be on
// READ0, the old generation may be reset as soon as the old one ends, so
// everything is made durable first.
func (c *Capture) hop(ctx context.Context) error {
	mark, err := c.files.WALIndex()
	if err != nil {
		return err
	}
	x, marked, err := beginRead(ctx, c.files, c.hold.free())
	if err != nil {
		return fmt.Errorf("move read mark: %w", err)
	}
	if !marked {
		err := c.absorb(x)
		if err == nil {
			err = c.flush(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("copy wal before its restart: %w", err), c.hold.free().EndRead())
		}
	}
	if err := c.hold.reader().EndRead(); err != nil {
		return errors.Join(err, c.hold.free().EndRead())
	}
	c.hold.held, c.hold.zero, c.hold.mark = 1-c.hold.held, !marked, mark.MaxFrame
	return nil
}

// Bounds of a soft restart.
const (
	restartRounds   = 5                     // of copying and backfilling beforehand
	restartPatience = 20 * time.Millisecond // waiting for the write lock between two commits
	handOverAt      = 8                     // times the bound in the WAL, before the application is left to restart it
	handOverTime    = 2 * time.Second       // in which it must do so
	handOverPoll    = 100 * time.Microsecond
	restartContend  = 5 * time.Millisecond // the application's own checkpointer is at work: it does what ours would
	contendPoll     = 500 * time.Microsecond
	minRetry        = 25 * time.Millisecond
	maxRetry        = 5 * time.Second
	growthRetry     = 200 * time.Millisecond // when the WAL has grown by its bound once more
)

// errBudget says that a freeze was given up because it would have taken longer
// than the application may be held up.
var errBudget = errors.New("stall budget spent")

// restart lets the WAL begin again at its first frame, without anybody having
// written anything: everything is copied, backfilled, and our mark moved to
// READ0 while the write lock keeps new commits out. A reader in the way, or a
// spent budget, leaves everything as it was; it is tried again later.
func (c *Capture) restart(ctx context.Context, bold bool) (done bool, err error) {
	// Half of what a freeze may take is for what differs from the rehearsal. Where
	// the disk is never that quick, the WAL must not grow for ever because of it:
	// then the freeze is tried, and given up in time if need be.
	if ready, err := c.rehearse(ctx, c.o.StallBudget/2, bold); !ready {
		return false, err
	}
	// Once more what takes longest of a tail, so that the freeze meets a shorter one.
	if err := errors.Join(c.absorbHead(), c.files.SyncWAL()); err != nil {
		return false, err
	}
	gate := c.hold.free()
	if err := gate.BeginImmediate(ctx, restartPatience); errors.Is(err, sqlite.ErrBusy) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	start := time.Now()
	done, err = c.restartFrozen(ctx, gate, start)
	err = errors.Join(err, gate.Rollback())
	c.tally.Restart, c.tally.Stall = done, time.Since(start)
	if !done && err == nil && c.tally.Stall >= c.o.StallBudget/2 {
		err = errBudget
	}
	c.log.Debug("soft restart", "done", done, "write_held", c.tally.Stall, "err", err)
	return done, errors.Join(err, c.settleFlush())
}

// rehearse does, while nobody has to wait, what the freeze will do, until so
// little is left that a round takes no longer than allowed: the bulk is copied and
// synced, and how slow this disk is today is known.
func (c *Capture) rehearse(ctx context.Context, allowed time.Duration, bold bool) (ready bool, err error) {
	var took time.Duration
	for range restartRounds {
		start := time.Now()
		if err := c.absorbHead(); err != nil {
			return false, err
		}
		outcome, err := c.copyAndBackfill(ctx, time.Minute, c.hop)
		if err != nil || c.hold.zero { // on READ0: somebody backfilled everything, nothing is left to do
			return false, err
		}
		if outcome == sqlite.OutcomeContended { // the mark was not moved
			continue
		}
		behind, err := c.backfillBehind()
		if err != nil || behind && outcome == sqlite.OutcomePartial {
			return false, err // a reader is in the way: the freeze would be for nothing
		}
		if err := c.files.SyncDatabase(); err != nil {
			return false, err
		}
		took = time.Since(start)
		c.log.Debug("rehearsal of a soft restart", "took", took, "outcome", outcome)
		if !behind && (took <= allowed || bold) {
			return true, nil
		}
	}
	if took > allowed {
		return false, errBudget
	}
	return false, nil
}

// backfillBehind says whether the backfill has stopped short of our own mark. When
// a PASSIVE checkpoint has just done what it could, a reader is in the way.
func (c *Capture) backfillBehind() (bool, error) {
	x, err := c.files.WALIndex()
	return !c.hold.zero && x.Backfilled < c.hold.mark, err
}

// copyAndBackfill makes the batch durable and runs a PASSIVE checkpoint, side by
// side: neither needs the other, and both wait for the disk. hop, if there is one,
// moves the mark while nobody else can checkpoint: an application that does so at
// each commit would else be the one that syncs and copies up to there.
func (c *Capture) copyAndBackfill(ctx context.Context, budget time.Duration, hop func(context.Context) error) (sqlite.Outcome, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	if err := c.beginFlush(); err != nil {
		return sqlite.OutcomeNone, err
	}
	var hopErr error
	var hooks sqlite.Hooks
	if hop != nil {
		hooks.Granted = func() error { hopErr = hop(ctx); return hopErr }
	}
	r, err := c.hold.work.CheckpointHooked(ctx, sqlite.Passive, sqlite.Budget{}, hooks)
	for err == nil && r.Outcome == sqlite.OutcomeContended && time.Since(start) < restartContend {
		time.Sleep(contendPoll)
		r, err = c.hold.work.CheckpointHooked(ctx, sqlite.Passive, sqlite.Budget{}, hooks)
	}
	if err != nil && hopErr == nil {
		c.log.Warn("backfill before a restart of the wal did not end; it is tried again later", "err", err)
	}
	return r.Outcome, errors.Join(hopErr, c.endFlush(budget-time.Since(start)))
}

// restartFrozen does the part of a restart during which the write lock is ours.
// The gate, which holds it, reads too: at the head, with a mark that stops
// neither the backfill nor us, but any reset. Our own reader follows it there,
// and stays if not all of this comes about.
func (c *Capture) restartFrozen(ctx context.Context, gate *sqlite.Conn, start time.Time) (bool, error) {
	reader := c.hold.reader()
	if err := reader.EndRead(); err != nil {
		return false, err
	}
	if err := c.beginHeld(ctx); err != nil {
		return false, err
	}
	if err := c.absorbTail(c.o.StallBudget - time.Since(start)); err != nil {
		return false, err
	}
	outcome, err := c.copyAndBackfill(ctx, c.o.StallBudget-time.Since(start), nil)
	if err != nil || outcome != sqlite.OutcomeComplete {
		return false, err
	}
	// All is durable and level: from the mark to READ0.
	if err := reader.EndRead(); err != nil {
		return false, err
	}
	err = c.beginHeld(ctx)
	return c.hold.zero, err
}

// handOver lets go of the WAL for a while, so that the application restarts it by
// itself: where a freeze never fits the stall budget, because of a slow disk, the
// WAL would grow for ever. Nearly all is backfilled, so the application's own
// checkpoint has little to do. Our connections stay open, so a first opener does not
// make the wal-index anew, and its counter proves that nothing was missed or tells that
// it was: commits that came and went between two looks cost a diff.
func (c *Capture) handOver(ctx context.Context) error {
	before, err := readIndex(c.files)
	if err != nil {
		return err
	}
	c.log.Info("the disk is too slow to restart the wal within the stall budget: leaving it to the application's own checkpoint", "stall_budget", c.o.StallBudget)
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	if err := c.hold.reader().EndRead(); err != nil {
		return err
	}
	for start := time.Now(); err == nil && ctx.Err() == nil && time.Since(start) < handOverTime; time.Sleep(handOverPoll) {
		x, readErr := readIndex(c.files)
		if readErr != nil {
			continue
		}
		if x.Salt1 != before.Salt1 { // hold it first: what it has read may take long to store
			break
		}
		if err = c.absorb(x); errors.Is(err, errUnsettled) {
			err = nil
		}
	}
	if err := errors.Join(err, c.beginHeld(ctx)); err != nil {
		return err
	}
	return c.absorbHead()
}
