package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// step calls the capture and draws the conclusions for everybody.
func (r *Replicator) step(ctx context.Context, force bool) (capture.Progress, error) {
	r.life.RLock()
	defer r.life.RUnlock()
	if r.capture == nil {
		return capture.Progress{}, r.closed()
	}
	got, err := r.capture.Step(ctx, force)
	r.count(r.capture.Discontinuities())
	if err != nil {
		return got, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gathers = !got.Pending.IsZero(); got.Complete {
		if n := len(r.marks); n > 0 && r.marks[n-1].txid == got.TXID {
			r.marks[n-1].at = got.At
		} else if n == 0 || r.marks[n-1].txid < got.TXID {
			r.marks = append(r.marks, mark{got.TXID, got.At})
		}
	}
	return got, nil
}

// note publishes what stands in capture's way and acts on a replaced file.
func (r *Replicator) note(err error) {
	if errors.Is(err, context.Canceled) {
		return // Run is about to end
	}
	if errors.Is(err, capture.ErrReplaced) {
		r.log.Warn("another file is at the database's path: closing the old one", "err", err)
		err = errors.Join(ErrNotOpen, r.Release())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		if r.blocked.Over() {
			r.log.Info("capture advances again")
		}
	case errors.Is(err, ErrNotOpen):
		if !errors.Is(r.captured, ErrNotOpen) {
			r.log.Info("capture waits until the database's files are open", "err", err)
		}
	case r.blocked.Met(err.Error(), r.o.Clock()):
		r.log.Error("capture does not advance; trying again by itself", "err", err)
	}
	r.captured = err
}

// ErrNotOpen is returned while the database's files are not open: there is no
// database, or it was opened just now and capture has not begun yet.
var ErrNotOpen = errors.New("the database's files are not open")

// closed says why there is no capture.
func (r *Replicator) closed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.captured == nil || errors.Is(r.captured, ErrNotOpen) {
		return ErrNotOpen
	}
	return fmt.Errorf("capture did not begin: %w", r.captured)
}

// open opens the capture if files are there and it is not open.
func (r *Replicator) open(ctx context.Context) error {
	r.life.RLock() // a snapshot may hold it like this for hours
	open := r.capture != nil
	r.life.RUnlock()
	if open {
		return nil
	}
	r.life.Lock()
	defer r.life.Unlock()
	if r.capture != nil {
		return nil
	}
	return r.openLocked(ctx, r.recover)
}

func (r *Replicator) openLocked(ctx context.Context, from func(context.Context) (ltx.TXID, store.PageSums,
	error)) error {
	files := r.o.Files()
	if files == nil || files == r.released {
		return ErrNotOpen
	}
	o := r.o.Capture
	o.Name, o.Files, o.StateDir, o.Logger, o.Clock = r.o.Name, files, r.captureDir(), r.o.Logger, r.o.Clock
	if o.BatchAge == 0 {
		// Replicas flush when their sync is due; left to itself, capture cuts
		// its batches somewhat later, so that one sync is one segment.
		o.BatchAge = time.Second
		for i, p := range r.replicas {
			if age := p.o.SyncEvery * 3 / 2; i == 0 || age < o.BatchAge {
				o.BatchAge = min(age, 10*time.Second)
			}
		}
	}
	r.identify(files.Path())
	another := false
	o.Recover = func(ctx context.Context) (ltx.TXID, store.PageSums, error) {
		another = true
		return from(ctx)
	}
	c := capture.New(o)
	if err := c.Open(ctx); err != nil {
		return err
	}
	r.sweep()
	r.reconsider(another, c.Spool().Last())
	r.capture, r.files, r.released = c, files, nil
	r.segments.Store(c.Spool())
	r.counted = map[string]uint64{}
	r.views, r.endView = context.WithCancel(context.Background())
	for _, p := range r.replicas {
		p.worker.Kick()
	}
	return nil
}

// sweep removes what a crash left in the scratch directory: all that is older than
// this Replicator. The caller holds the state directory for this process.
func (r *Replicator) sweep() {
	entries, err := os.ReadDir(r.scratchDir())
	for _, e := range entries {
		if info, statErr := e.Info(); statErr == nil && info.ModTime().Before(r.made) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.scratchDir(), e.Name())))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("what a crash left could not be removed, nothing depends on it", "dir", r.scratchDir(), "err", err)
	}
}

// reconsider lets replicas be looked at anew where another chain was begun, or where
// one is ahead of what was captured: the state directory was lost or is an old one,
// and what comes need not join what the replica holds.
func (r *Replicator) reconsider(another bool, last ltx.TXID) {
	for _, p := range r.replicas {
		if cursor, _ := p.progress.position(); another || cursor > last {
			another = true
			p.progress.doubt(r.caughtUp)
		}
	}
	if another {
		r.mu.Lock()
		r.marks = nil
		r.mu.Unlock()
	}
}

// Release closes the capture and every connection to the database; what is
// spooled goes on being shipped. Whoever owns the files calls it before closing
// them. Capture begins again when Options.Files returns others.
func (r *Replicator) Release() error {
	r.life.RLock()
	if r.endView != nil {
		r.endView() // snapshots under way give up: they hold life for reading
	}
	r.life.RUnlock()
	r.life.Lock()
	defer r.life.Unlock()
	if r.capture == nil {
		return nil
	}
	err := r.capture.Close()
	r.capture, r.released = nil, r.files
	return err
}

// rebase restarts capture behind base with the whole database, as a chain that
// joins nothing before: a replica holds TXIDs that are not known here.
func (r *Replicator) rebase(ctx context.Context, base ltx.TXID, at time.Time) error {
	r.life.RLock()
	if r.endView != nil {
		r.endView()
	}
	r.life.RUnlock()
	r.life.Lock()
	defer r.life.Unlock()
	if r.capture == nil {
		return errors.New("capture is closed")
	}
	if r.capture.Spool().Last() > base {
		return nil // another replica asked for more
	}
	r.log.Warn("starting a new chain with the whole database: a replica holds what this state directory does not know, "+
		"or what is damaged", "after_txid", base)
	c := r.capture
	r.capture = nil
	if err := c.Close(); err != nil {
		return err
	}
	if err := capture.Discard(r.captureDir()); err != nil {
		return err
	}
	return r.openLocked(ctx, func(context.Context) (ltx.TXID, store.PageSums, error) {
		return base, store.PageSums{Timestamp: at}, nil
	})
}

// recoverTimeout bounds the questions to one replica at start; reading its page
// checksums then takes as long as it takes.
const recoverTimeout = 20 * time.Second

// recover finds where to go on when the state directory is empty: behind the
// replica that has come farthest. Replicas out of reach are not waited for; one
// that turns out to be farther is dealt with when it is (see replica.open).
func (r *Replicator) recover(ctx context.Context) (ltx.TXID, store.PageSums, error) {
	var best *replica
	var end, behind ltx.TXID
	var at time.Time
	for _, p := range r.replicas {
		p.from.Store(0)
		asking, cancel := context.WithTimeout(ctx, recoverTimeout)
		tip, ours, err := p.recoverable(asking)
		cancel()
		if ctx.Err() != nil {
			return 0, store.PageSums{}, ctx.Err()
		}
		if err != nil {
			r.log.Warn("replica cannot be asked for its position: beginning without it", "replica", p.o.Name, "err", err)
			continue
		}
		switch {
		case ours && tip.TXID > end:
			best, end = p, tip.TXID
		case !ours && tip.TXID > 0 && leapOver(tip.TXID) > behind:
			behind, at = leapOver(tip.TXID), tip.At
		}
	}
	if best == nil {
		return behind, store.PageSums{Timestamp: at}, nil
	}
	txid, sums, err := restore.PageChecksums(ctx, best.store, catalog.Target{})
	if err != nil {
		r.log.Warn("replica's last state cannot be read: beginning with the whole database behind it", "replica", best.o.Name,
			"err", err)
		return leapOver(max(end, behind)), store.PageSums{Timestamp: at}, nil
	}
	best.from.Store(uint64(txid))
	return txid, sums, nil
}

// begins returns the TXID of the first state that capture has, or will have.
func (r *Replicator) begins() ltx.TXID {
	spool := r.spool()
	if held := spool.List(); len(held) > 0 {
		return held[0].MaxTXID
	}
	return spool.Last() + 1
}

// identity is which database file is replicated.
type identity struct {
	path  string
	file  string       // see dbfile.Identity
	note  lineage.Note // that a restore left beside it
	noted bool
}

// identify notes the file before anything is concluded from it.
func (r *Replicator) identify(path string) {
	id := identity{path: path, file: dbfile.Identity(path)}
	id.note, id.noted = lineage.Find(path)
	r.which.Store(&id)
}

// identity returns the file of the capture that was opened last.
func (r *Replicator) identity() identity {
	if id := r.which.Load(); id != nil {
		return *id
	}
	return identity{}
}

// clearNote removes the note of a restore once the state directory knows what it says.
func (r *Replicator) clearNote(log *slog.Logger) {
	id := r.identity()
	if mine := r.custody.Get(); !id.noted || mine.ID != id.note.Lineage || mine.Reached < id.note.TXID {
		return
	}
	if err := lineage.Clear(id.path); err != nil {
		log.Debug("the note of a restore stays; it counts no more", "err", err)
		return
	}
	id.noted = false
	r.which.Store(&id)
}
