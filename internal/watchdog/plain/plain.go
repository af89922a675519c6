// Package plain makes the checkpoints of a database that has no replicas.
package plain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Checkpointer opens a SQLite connection for each checkpoint, and closes it. One that stayed
// would keep a wal-index alive: where the application is killed, whoever comes next would take
// it for good, although somebody without a wal-index may have written meanwhile. The database's
// dbfile.Files must be open whenever Checkpoint is called; before they are closed,
// Release must be.
type Checkpointer struct {
	path  string
	files func() *dbfile.Files
	mu    sync.Mutex // held during a checkpoint
}

// New returns the Checkpointer of the database at path, whose files are those
// that the function returns. It opens nothing.
func New(path string, files func() *dbfile.Files) *Checkpointer {
	return &Checkpointer{path: path, files: files}
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
	if err := mayOpen(files); err != nil {
		return none, fmt.Errorf("checkpoint %s: %w", p.path, err)
	}
	conn, err := sqlite.Open(ctx, p.path, sqlite.Options{})
	if err != nil {
		return none, fmt.Errorf("open a connection for a checkpoint: %w", err)
	}
	defer func() {
		if files.MayOpen() == nil {
			conn.CloseLast() // if nobody else is there, nothing of a WAL stays because of us
		} else {
			conn.Close()
		}
	}()
	return conn.Checkpoint(ctx, mode, budget)
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
