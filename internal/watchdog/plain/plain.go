// Package plain runs the checkpoints of a database that has no replicas.
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
	"github.com/sqlwatch/sqlwatch/internal/join"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Checkpointer opens an SQLite connection for each checkpoint and closes it
// afterwards. A connection that stayed open would keep a wal-index alive: if the
// application were killed, the next process would trust that wal-index, although a
// process without one may have written since. The database's dbfile.Files must be open
// whenever Checkpoint is called; call Release before you close them.
type Checkpointer struct {
	// Names calls told as soon as one of the names in a directory may refer to another file or to
	// none, until stop is called; nil: such a change does not end a checkpoint.
	Names func(dir string, names []string, told func()) (stop func(), err error)

	path  string
	files func() *dbfile.Files
	log   *slog.Logger
	mu    sync.Mutex // held during a checkpoint
	seen  claim
}

// New returns the Checkpointer of the database at path, whose files the function returns. It
// opens nothing. log may be nil.
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
	conn, err := join.Open(ctx, files, nil)
	if err != nil {
		return none, fmt.Errorf("open a connection for a checkpoint: %w", err)
	}
	defer func() {
		leave := conn.Close
		if files.MayOpen() == nil && p.seen.covers(files) {
			leave = conn.CloseLast // if no other process is connected, leave no WAL behind
		}
		if err := leave(); err != nil {
			p.log.Warn("the connection of a checkpoint did not close cleanly", "path", p.path, "err", err)
		}
	}()
	// Check again, now connected: a WAL that was put there since is not the application's either.
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

// Passing reports whether an error of Checkpoint only means that the moment was wrong: another process was just
// opening, closing or replacing the database.
func Passing(err error) bool {
	return errors.Is(err, ErrUnclaimed) || errors.Is(err, dbfile.ErrUnclear) || errors.Is(err, join.ErrReplaced)
}

// Look must be called regularly: it learns that a WAL belongs to the database while others use it.
func (p *Checkpointer) Look() {
	if files := p.files(); files != nil {
		p.seen.look(files)
	}
}

// whileNamed returns a context that ends when a name changes: a process whose files have lost
// their names can save their contents only if we are not connected.
func (p *Checkpointer) whileNamed(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if p.Names == nil {
		return ctx, cancel
	}
	name := filepath.Base(p.path)
	stop, err := p.Names(filepath.Dir(p.path), []string{name, name + "-wal", name + "-shm"}, cancel)
	if err != nil { // the check at the end of the checkpoint notices a change
		return ctx, cancel
	}
	return ctx, func() { stop(); cancel() }
}

// mayOpen returns an error if a checkpoint of ours could harm the application, because it uses
// another WAL than the one we see.
func mayOpen(files *dbfile.Files) error {
	err := files.MayOpen()
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < 3; try++ { // opening and closing take only a moment
		time.Sleep(5 * time.Millisecond)
		err = files.MayOpen()
	}
	return err
}

// Release waits for a checkpoint that is under way.
func (p *Checkpointer) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
}
