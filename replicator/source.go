package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// source captures the database: it opens the capture when the files are there and closes it
// when their owner closes them. Captured segments go to the backlog.
//
// Lock order: life, then mu, then those of the backlog and of the parts it calls.
type source struct {
	o        capture.Options // without Files and Recover
	log      *slog.Logger
	find     func() *dbfile.Files // the database's open files, see Options.Files
	scratch  scratch
	original *custody.Original
	backlog  *progress.Backlog
	names    names           // of the files
	wake     chan<- struct{} // wakes Run after rebase began a chain outside Run's own turn

	life      sync.RWMutex     // held for reading while the capture is used, for writing while it is opened or closed
	capture   *capture.Capture // nil while closed
	whileOpen func(cancel func()) (keep func() bool)
	endViews  func()        // triggers the cancels registered with whileOpen
	files     *dbfile.Files // of the open capture
	released  *dbfile.Files // not to be used again: their owner is about to close them
	rebased   ltx.TXID      // the base of the last chain that rebase began

	mu       sync.Mutex // guards what follows; held over nothing
	captured error      // why commits are not captured, see note
	blocked  worker.Trouble
	gathers  bool // the last step found commits that are not spooled yet

	discontinuities tally
}

// step runs one capture step and passes its results to counters and backlog.
func (s *source) step(ctx context.Context, force bool) (capture.Progress, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.capture == nil {
		return capture.Progress{}, s.closed()
	}
	var got capture.Progress
	err := s.names.during(ctx, func(ctx context.Context) (err error) {
		got, err = s.capture.Step(ctx, force)
		return err
	})
	s.discontinuities.count(s.capture.Discontinuities())
	if err != nil {
		return got, err
	}
	s.mu.Lock()
	s.gathers = !got.Pending.IsZero()
	s.mu.Unlock()
	if got.Complete {
		s.backlog.Mark(got.TXID, got.At)
	}
	return got, nil
}

// compare runs a capture step, which compares the database with its page checksums if they are in doubt.
func (s *source) compare(ctx context.Context) error {
	_, err := s.step(ctx, true)
	return err
}

// settled captures until everything committed before the call is in the spool. If the database
// has to wait in the queue to be read from end to end, settled waits only if patient.
func (s *source) settled(ctx context.Context, patient bool) (ltx.TXID, error) {
	got, err := s.step(ctx, true)
	for err == nil && !got.Complete || patient && errors.Is(err, capture.ErrQueued) {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(got.Next):
			got, err = s.step(ctx, true)
		}
	}
	return got.TXID, err
}

// pending reports whether the last step found commits that are not in the spool yet.
func (s *source) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gathers
}

// stuck reports whether there may be commits that capture cannot read.
func (s *source) stuck() bool {
	err := s.failure()
	return err != nil && !errors.Is(err, ErrNotOpen)
}

// failure returns why commits are not captured, nil if they are.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captured
}

// note publishes the error of a capture step and acts on a replaced file.
func (s *source) note(err error) {
	if errors.Is(err, context.Canceled) {
		return // Run is about to end
	}
	if errors.Is(err, capture.ErrReplaced) {
		s.log.Warn("another file is at the database's path: closing the old one", "err", err)
		err = errors.Join(ErrNotOpen, s.close())
	}
	s.backlog.SetFull(errors.Is(err, capture.ErrSpoolFull))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		if s.blocked.Over() {
			s.log.Info("capture is working again")
		}
	case errors.Is(err, capture.ErrQueued): // shown in the status only
	case errors.Is(err, ErrNotOpen):
		if !errors.Is(s.captured, ErrNotOpen) {
			s.log.Info("capture waits until the database's files are open", "err", err)
		}
	case s.blocked.Met(err.Error(), s.o.Clock()):
		if errors.Is(err, sqlite.ErrNotWAL) { // an empty file too, which needs no repair
			s.log.Info("capture waits until the database is in WAL mode", "err", err)
		} else {
			s.log.Error("capture has stopped; it is retried automatically", "err", err)
		}
	}
	s.captured = err
}

// ErrNotOpen is returned while the database's files are not open: there is no
// database, or it was only just opened and capture has not begun yet.
var ErrNotOpen = errors.New("the database's files are not open")

// closed returns why there is no capture.
func (s *source) closed() error {
	if err := s.failure(); err != nil && !errors.Is(err, ErrNotOpen) {
		return fmt.Errorf("capture did not begin: %w", err)
	}
	return ErrNotOpen
}

// origin returns the state that capture continues from when its own state directory is empty.
type origin func(context.Context) (ltx.TXID, store.PageSums, error)

// open opens the capture if it is not open and the files are there.
func (s *source) open(ctx context.Context, from origin) error {
	s.life.RLock() // not Lock: a snapshot may hold the read lock for hours
	open := s.capture != nil
	s.life.RUnlock()
	if open {
		return nil
	}
	s.life.Lock()
	defer s.life.Unlock()
	if s.capture != nil {
		return nil
	}
	return s.openLocked(ctx, from)
}

func (s *source) openLocked(ctx context.Context, from origin) error {
	files := s.find()
	if files == nil || files == s.released {
		return ErrNotOpen
	}
	s.original.Identify(files.Path())
	o, another := s.o, false
	o.Files = files
	o.Recover = func(ctx context.Context) (ltx.TXID, store.PageSums, error) {
		another, s.rebased = true, 0
		return from(ctx)
	}
	c := capture.New(o)
	if err := c.Open(ctx); err != nil {
		return err
	}
	s.scratch.sweep(s.log)
	s.backlog.Reconsider(another, c.Spool().Last())
	s.capture, s.files, s.released = c, files, nil
	s.names.follow(files.Path())
	s.backlog.Captured(c.Spool())
	s.discontinuities.again()
	views, end := context.WithCancel(context.Background())
	s.endViews, s.whileOpen = end, func(cancel func()) func() bool { return context.AfterFunc(views, cancel) }
	return nil
}

// scratch is the directory of temporary files.
type scratch struct {
	dir  string
	made time.Time // every file of this process is newer, by the system's clock
}

// sweep removes files that a crash left. No other process can be using them: capture has locked the state directory.
func (s scratch) sweep(log *slog.Logger) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if info, statErr := e.Info(); statErr == nil && info.ModTime().Before(s.made) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("leftovers of a crash could not be removed; they are harmless", "dir", s.dir, "err", err)
	}
}

// lock takes life for writing. Snapshots under way hold it for reading, so lock cancels them first.
func (s *source) lock() {
	s.life.RLock()
	if s.endViews != nil {
		s.endViews()
	}
	s.life.RUnlock()
	s.life.Lock()
}

// close closes the capture and every connection to the database, until find returns other files.
func (s *source) close() error {
	s.lock()
	defer s.life.Unlock()
	if s.capture == nil {
		return nil
	}
	s.names.leave()
	err := s.capture.Close()
	s.o.Place.End()
	s.capture, s.released = nil, s.files
	return err
}

// rebase restarts capture behind base with the whole database, as a chain that joins nothing
// before it: a replica holds TXIDs that the state directory does not know.
func (s *source) rebase(ctx context.Context, base ltx.TXID, at time.Time) error {
	s.lock()
	defer s.life.Unlock()
	if s.capture == nil {
		return errors.New("capture is closed")
	}
	if last := s.capture.Spool().Last(); last > base {
		if s.rebased >= base && s.rebased > 0 {
			return nil // another replica asked for as much or more
		}
		base = custody.LeapOver(last) // capture went on meanwhile: in the replica its TXIDs may stand for other states
	}
	s.log.Warn("starting a new chain with the whole database: a replica holds files that this state directory does not "+
		"know, or that are corrupt", "after_txid", base)
	c := s.capture
	s.capture = nil
	if err := c.Close(); err != nil {
		return err
	}
	if err := capture.Discard(s.o.StateDir); err != nil {
		return err
	}
	err := s.openLocked(ctx, func(context.Context) (ltx.TXID, store.PageSums, error) {
		return base, store.PageSums{Timestamp: at}, nil
	})
	if err == nil {
		s.rebased = base
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return err
}

// withSnapshot calls f with a reader of the database. Closing the capture cancels f's context.
func (s *source) withSnapshot(ctx context.Context, f func(context.Context, *capture.SnapshotReader) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.capture == nil {
		return s.closed()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.whileOpen(cancel)()
	reader, err := s.capture.OpenSnapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, reader), reader.Close())
}

// checkpoint checkpoints the database without losing a commit.
func (s *source) checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.capture == nil {
		return sqlite.Result{Outcome: sqlite.OutcomeFailed}, fmt.Errorf("checkpoint %s: capture is closed", s.o.Name)
	}
	var result sqlite.Result
	err := s.names.during(ctx, func(ctx context.Context) (err error) {
		result, err = s.capture.Checkpoint(ctx, mode, b)
		return err
	})
	if errors.Is(err, errMoved) { // every attempt was interrupted: the application keeps opening and closing the database
		return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeContended, Frames: -1, Backfilled: -1}, nil
	}
	return result, err
}

// attended reports whether another process uses the database.
func (s *source) attended() bool {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.capture == nil {
		return false
	}
	attached, err := s.files.Others()
	return err == nil && attached
}

// tally sums the counters of successive captures. The zero value is empty.
type tally struct {
	mu      sync.Mutex        // guards what follows; held over nothing
	counted map[string]uint64 // by the open capture
	all     map[string]uint64 // by all captures together
}

// again notes that a new capture begins, whose counters start at zero.
func (t *tally) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counted = map[string]uint64{}
	if t.all == nil {
		t.all = map[string]uint64{}
	}
}

// count adds the increase of the open capture's counters since the last call.
func (t *tally) count(now map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for reason, n := range now {
		t.all[reason] += n - t.counted[reason]
		t.counted[reason] = n
	}
}

// of returns how often reason was counted.
func (t *tally) of(reason string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[reason]
}
