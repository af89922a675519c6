package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/join"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
)

// hold keeps the WAL from being reset before it is captured. One of two connections is
// in a read transaction, which holds one of two locks:
//
//   - READ1 to READ4 at some frame, the mark. Nobody can reset the WAL, and
//     nobody can backfill beyond the mark. An application's own checkpoints then
//     find nothing to do, and it runs faster than without us.
//   - READ0, granted only when every frame is in the database. Newer frames can
//     neither be backfilled nor reset, but the WAL may be restarted at frame 1.
//     Each of the application's own checkpoints then costs it a useless fsync, so
//     READ0 is left as soon as frames appear.
//
// To move the mark, begin on the free connection, and only then end the other transaction.
type hold struct {
	files   *dbfile.Files
	flusher *segments.Flusher // captures what a move to READ0 would lose
	copies  *overlay.Copies   // keep what may change in the main file after a move
	moves   uint64            // how often the mark was moved

	connections
}

// connections are what a hold consists of while it is open.
type connections struct {
	readers [2]*sqlite.Conn
	work    *sqlite.Conn // runs checkpoints: a connection cannot while it reads
	held    int          // which reader is in the transaction
	zero    bool         // it is on READ0
	proven  bool         // nothing was missed between the position and the moment it began
	shm     uint64       // inode of the wal-index that the connections have mapped
	blank   bool         // the wal-index was cleared: see departure.forget
	back    bool         // the DMS lock is given up: see shed
	stood   bool         // shed was called since the connections were opened
	// no process was seen using the WAL, and it does not continue what was captured: read it, and leave it as it
	// is
	unclaimed bool
}

// open opens the connections. The files must be open before.
func (h *hold) open(ctx context.Context) (err error) {
	files := h.files
	// The header, because PRAGMA journal_mode takes a lock that keeps out the writer of a rollback journal.
	if header, err := files.Header(); err == nil && !header.WAL() {
		return fmt.Errorf("open %s: %w", files.Path(), sqlite.ErrNotWAL)
	}
	if err := files.MayOpen(); err != nil {
		return fmt.Errorf("open %s: %w", files.Path(), err)
	}
	if err := h.connect(ctx); err != nil {
		return errors.Join(err, h.close())
	}
	st, err := files.Stat()
	if err != nil {
		return errors.Join(err, h.close())
	}
	h.shm = st.ShmInode
	files.Pin() // an application's last close may unlink them before all of it was read
	return nil
}

// connect opens the connections. The caller closes them if there is an error.
func (h *hold) connect(ctx context.Context) (err error) {
	for _, conn := range []**sqlite.Conn{&h.readers[0], &h.readers[1], &h.work} {
		if *conn, err = join.Open(ctx, h.files, h.rejoin); errors.Is(err, join.ErrReplaced) {
			return ErrReplaced
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (h *hold) isOpen() bool { return h.work != nil }

// active reports whether a read transaction is open.
func (h *hold) active() bool { return h.isOpen() && h.reader().InRead() }

func (h *hold) reader() *sqlite.Conn { return h.readers[h.held] }
func (h *hold) free() *sqlite.Conn   { return h.readers[1-h.held] }

// close ends the transaction and closes the connections. The WAL stays as it is.
func (h *hold) close() error { return h.closeBut((*sqlite.Conn).Close) }

// leave closes the connections as SQLite's last close does: if nobody else is connected, the WAL and the wal-index
// are removed.
func (h *hold) leave() error { return h.closeBut((*sqlite.Conn).CloseLast) }

// closeUnlinked closes the connections to a WAL that was unlinked. If nobody else is connected, and wanted then
// still reports true, what is in the WAL is written to the database.
func (h *hold) closeUnlinked(wanted func() bool) error {
	return h.closeBut(func(c *sqlite.Conn) error { return c.CloseUnlinked(wanted) })
}

// drop closes the connections to side files that are no longer at their paths.
func (h *hold) drop() error {
	if err := h.close(); err != nil {
		return err
	}
	_, err := h.files.Refresh()
	return err
}

func (h *hold) closeBut(last func(*sqlite.Conn) error) error {
	h.copies.GiveUp(overlay.ErrLetGo)
	var errs []error
	for _, conn := range []*sqlite.Conn{h.readers[0], h.readers[1]} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	if h.work != nil {
		errs = append(errs, last(h.work))
	}
	h.connections = connections{}
	h.files.Unpin()
	return errors.Join(errs...)
}

// shed stands back: it gives up our locks on the main file, and on the wal-index's DMS byte, until the connections
// are used again. From then on, once the others have gone, another process may have the file for itself and write
// to the WAL with a wal-index of its own: ours counts only while the others are there.
func (h *hold) shed() error {
	h.stood = true
	var errs []error
	for _, conn := range []*sqlite.Conn{h.readers[0], h.readers[1], h.work} {
		if conn != nil {
			errs = append(errs, conn.Shed())
		}
	}
	if err := errors.Join(errs...); err != nil || h.back || !h.isOpen() {
		return err
	}
	h.back = true
	return dbfile.StandBack(h.files)
}

// rejoin takes the DMS byte again; a connection calls it before it is used after shed.
func (h *hold) rejoin() (err error) {
	if h.back {
		err = dbfile.Rejoin(h.files)
		h.back = err != nil
	}
	return err
}

// beginRead begins a read transaction on conn. marked means that it has one of
// READ1 to READ4. x is the wal-index as it was read afterwards.
func beginRead(ctx context.Context, files *dbfile.Files, conn *sqlite.Conn) (x dbfile.WALIndex, marked bool,
	err error) {
	if err := conn.BeginRead(ctx); err != nil {
		return x, false, err
	}
	if x, err = tail.Index(files); err != nil {
		return x, false, errors.Join(err, conn.EndRead())
	}
	return x, conn.ReadMark() > 0, nil
}

// begin starts holding where nothing is held.
func (h *hold) begin(ctx context.Context) error {
	h.proven = false
	return h.beginHeld(ctx)
}

// beginHeld begins the read transaction of the connection that holds.
func (h *hold) beginHeld(ctx context.Context) error {
	h.moves++
	_, marked, err := beginRead(ctx, h.files, h.reader())
	h.zero = err == nil && !marked
	return err
}

// advance moves the mark to the head of the WAL. A new transaction on READ0 lets others reset the WAL as soon as
// the old transaction has ended, so everything is made durable first. Open snapshots keep aside the pages they
// still need from the main file, since frames up to the new mark may be backfilled from then on.
func (h *hold) advance(ctx context.Context) error {
	x, marked, err := beginRead(ctx, h.files, h.free())
	if err != nil {
		return fmt.Errorf("advance the read mark: %w", err)
	}
	if !marked {
		if err := h.flusher.Capture(x); err != nil {
			return errors.Join(fmt.Errorf("copy wal before its restart: %w", err), h.free().EndRead())
		}
	}
	h.copies.Preserve(x)
	if err := h.reader().EndRead(); err != nil {
		return errors.Join(err, h.free().EndRead())
	}
	h.held, h.zero = 1-h.held, !marked
	h.moves++
	return nil
}

// onZero returns a number that identifies the present stay on READ0, 0 where the hold is not on READ0.
func (h *hold) onZero() uint64 {
	if !h.zero {
		return 0
	}
	return h.moves
}

// advanceIfLevel advances the mark where everything is backfilled: to READ0, unless a commit comes in between.
func (h *hold) advanceIfLevel(ctx context.Context) error {
	if x, err := h.files.WALIndex(); err != nil || x.Backfilled < x.MaxFrame {
		return err
	}
	if err := h.flusher.CaptureHead(); err != nil { // or advance would have to do so while it is on READ0
		return err
	}
	return h.advance(ctx)
}

// freeze takes all the read locks, which keeps the transactions of other processes out. Without an error, keepAside
// and thaw must follow; after one, the hold is as it was, or its mark is at the head.
func (h *hold) freeze(ctx context.Context, budget sqlite.Budget) (*sqlite.Freeze, error) {
	h.copies.Prepare()
	h.flusher.Prepare()
	h.keepAside() // a freeze that fails may leave our mark at the head
	f, err := h.work.Freeze(ctx, budget, h.reader())
	if err != nil {
		h.keepAside()
		h.zero = h.active() && h.reader().ReadMark() == 0
	}
	return f, err
}

// keepAside makes open snapshots keep the pages of the main file that may change once the mark is at the head. It is
// called before anything is backfilled.
func (h *hold) keepAside() {
	if !h.copies.Any() {
		return
	}
	x, err := tail.Index(h.files)
	if err != nil {
		h.copies.GiveUp(err)
		return
	}
	h.copies.Preserve(x)
}

// thaw ends a freeze, and holds the WAL again: on READ0 where level, which means that all of it is durable and
// backfilled, else by a mark at the head. It does so even if ctx has ended meanwhile.
func (h *hold) thaw(ctx context.Context, f *sqlite.Freeze, level bool) error {
	defer f.End()
	begin := f.BeginMarked
	if level {
		begin = f.BeginRead
	}
	err := begin(context.WithoutCancel(ctx), h.reader())
	h.moves++
	h.zero = err == nil && h.reader().ReadMark() == 0
	return err
}

// pinnedBefore reports whether the backfill stopped short of earlier, the head when a PASSIVE checkpoint of ours and
// what belongs to it began: a reader is in the way that has been there all the time. One that came since is not
// counted: a busy application always has one.
func (h *hold) pinnedBefore(earlier uint32) (bool, error) {
	x, err := h.files.WALIndex()
	return !h.zero && x.Backfilled < earlier, err
}

// waitedFor reports whether the application seems to run a FULL, RESTART or TRUNCATE checkpoint of its own: it
// then holds WRITE and CKPT, nobody can commit, and it waits for our mark until its busy timeout ends.
func (h *hold) waitedFor() bool {
	both, err := h.files.CheckpointHoldsWrite()
	return err == nil && both
}

// makeWay moves the mark to the head, so that such a checkpoint can backfill. Once it has, the next call moves to
// READ0, so that it can reset the WAL. Everything is captured first.
func (h *hold) makeWay(ctx context.Context) error {
	if h.zero {
		return nil
	}
	if err := h.flusher.CaptureHead(); err != nil {
		return err
	}
	return h.advance(ctx)
}

// level backfills a quiet database's WAL and moves to READ0, so that the application's next commit restarts the
// WAL.
func (h *hold) level(ctx context.Context) error {
	if err := h.flusher.Flush(); err != nil {
		return err
	}
	if err := h.advance(ctx); err != nil || h.zero {
		return err
	}
	r, err := h.work.Checkpoint(ctx, sqlite.Passive, sqlite.Budget{})
	if err != nil || r.Outcome != sqlite.OutcomeComplete {
		return err
	}
	return h.advance(ctx)
}
