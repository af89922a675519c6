// Package plain makes the checkpoints of a database that has no replicas.
package plain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Checkpointer opens a SQLite connection for each checkpoint, and closes it. One that stayed
// would keep a wal-index alive: where the application is killed, whoever comes next would take
// it permanently, although somebody without a wal-index may have written since. The database's
// dbfile.Files must be open whenever Checkpoint is called; before they are closed,
// Release must be.
type Checkpointer struct {
	// Names has told called as soon as one of the names in a directory may lead to another file or
	// to none, until stop is called; nil: a checkpoint is not ended by that.
	Names func(dir string, names []string, told func()) (stop func(), err error)

	path  string
	files func() *dbfile.Files
	log   *slog.Logger
	mu    sync.Mutex // held during a checkpoint
	seen  claim
}

// New returns the Checkpointer of the database at path, whose files are those
// that the function returns. It opens nothing. log may be nil.
func New(path string, files func() *dbfile.Files, log *slog.Logger) *Checkpointer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Checkpointer{path: path, files: files, log: log}
}

// Checkpoint implements watchdog.Checkpointer.
func (p *Checkpointer) Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	none := sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}
	files := p.files()
	if files == nil {
		return none, fmt.Errorf("checkpoint %s: its files are not open", p.path)
	}
	p.seen.look(files)
	if !p.seen.covers(files) {
		return none, fmt.Errorf("checkpoint %s: %w", p.path, ErrUnclaimed)
	}
	if err := mayOpen(files); err != nil {
		return none, fmt.Errorf("checkpoint %s: %w", p.path, err)
	}
	ctx, done := p.whileNamed(ctx)
	defer done()
	conn, err := sqlite.Open(ctx, p.path, sqlite.Options{})
	if err != nil {
		return none, fmt.Errorf("open a connection for a checkpoint: %w", err)
	}
	defer func() {
		leave := conn.Close
		if files.MayOpen() == nil && p.seen.covers(files) {
			leave = conn.CloseLast // if nobody else is there, nothing of a WAL stays because of us
		}
		if err := leave(); err != nil {
			p.log.Warn("the connection of a checkpoint did not close cleanly", "path", p.path, "err", err)
		}
	}()
	// Once more, from within: what was put there since is none of the application's either.
	covered := false
	r, err := conn.CheckpointHooked(ctx, mode, budget, sqlite.Hooks{CheckpointLocked: func() error {
		if covered = covered || p.seen.covers(files); !covered {
			return ErrUnclaimed
		}
		return nil
	}})
	if covered {
		p.seen.wrote(files)
	}
	return r, err
}

// Look is to be called now and then: while somebody uses the WAL, it is known to belong to the database.
func (p *Checkpointer) Look() {
	if files := p.files(); files != nil {
		p.seen.look(files)
	}
}

// whileNamed returns a context that ends when a name changes: whoever uses files that have lost
// their names can save what is in them only without us.
func (p *Checkpointer) whileNamed(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if p.Names == nil {
		return ctx, cancel
	}
	name := filepath.Base(p.path)
	stop, err := p.Names(filepath.Dir(p.path), []string{name, name + "-wal", name + "-shm"}, cancel)
	if err != nil { // it is noticed at the end of the checkpoint
		return ctx, cancel
	}
	return ctx, func() { stop(); cancel() }
}

// mayOpen returns an error where a checkpoint of ours could harm the application:
// where it works with another WAL than the one that we see.
func mayOpen(files *dbfile.Files) error {
	err := files.MayOpen()
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < 3; try++ { // opening and closing is over soon
		time.Sleep(5 * time.Millisecond)
		err = files.MayOpen()
	}
	return err
}

// Release waits for the end of a checkpoint that is under way.
func (p *Checkpointer) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
}
