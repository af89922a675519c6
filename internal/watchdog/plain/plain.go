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

// connectionIdle is how long a checkpointer keeps its connection without using
// it. While it is open, the application's own last close does not checkpoint.
const connectionIdle = 10 * time.Second

// Checkpointer is one SQLite connection, opened when it is needed and closed when it has been idle. The
// database's dbfile.Files must be open whenever Checkpoint is called; before
// they are closed, Release must be.
type Checkpointer struct {
	path  string
	files func() *dbfile.Files

	mu   sync.Mutex
	conn *sqlite.Conn
	held *dbfile.Files // when it was opened; its owner releases us before it closes them
	idle *time.Timer
	used uint64 // counts calls, so that an old timer does not close a connection in new use
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
	p.used++
	if err := p.welcome(); err != nil {
		p.close()
		return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}, err
	}
	if p.conn == nil {
		conn, err := sqlite.Open(ctx, p.path, sqlite.Options{})
		if err != nil {
			return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1},
				fmt.Errorf("open a connection for a checkpoint: %w", err)
		}
		p.conn, p.held = conn, p.files()
	}
	result, err := p.conn.Checkpoint(ctx, mode, budget)
	if err != nil {
		p.close() // a connection that failed is not trusted again
		return result, err
	}
	if err := p.conn.Shed(); err != nil { // whoever wants the file for himself finds nobody
		p.close()
		return result, nil
	}
	used := p.used
	p.idle = time.AfterFunc(connectionIdle, func() { p.closeUnused(used) })
	return result, nil
}

// welcome returns an error where a checkpoint of ours could harm the application:
// where it works with another WAL than the one that we see.
func (p *Checkpointer) welcome() error {
	files := p.files()
	if files == nil {
		return fmt.Errorf("checkpoint %s: its files are not open", p.path)
	}
	ask := func() error { _, err := files.Others(); return err }
	if p.conn == nil {
		ask = files.MayOpen
	}
	err := ask()
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < 3; try++ { // opening and closing is over soon
		time.Sleep(5 * time.Millisecond)
		err = ask()
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", p.path, err)
	}
	return nil
}

// Release closes the connection if there is one. The next Checkpoint opens another.
func (p *Checkpointer) Release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used++
	return p.close()
}

func (p *Checkpointer) closeUnused(since uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == since {
		p.close()
	}
}

func (p *Checkpointer) close() error {
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	if p.conn == nil {
		return nil
	}
	conn := p.conn
	p.conn = nil
	if p.held.MayOpen() == nil {
		return conn.CloseLast() // if nobody else is there, nothing of a WAL stays because of us
	}
	return conn.Close()
}
