package watchdog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// connectionIdle is how long a checkpointer keeps its connection without using
// it. While it is open, the application's own last close does not checkpoint.
const connectionIdle = 10 * time.Second

// Plain is the Checkpointer of a database that has no replicas: one SQLite
// connection, opened when it is needed and closed when it has been idle. The
// database's dbfile.Files must be open whenever Checkpoint is called; before
// they are closed, Release must be.
type Plain struct {
	path string

	mu   sync.Mutex
	conn *sqlite.Conn
	idle *time.Timer
	used uint64 // counts calls, so that an old timer does not close a connection in new use
}

// NewPlain returns the Checkpointer of the database at path. It opens nothing.
func NewPlain(path string) *Plain { return &Plain{path: path} }

// Checkpoint implements Checkpointer.
func (p *Plain) Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used++
	if p.conn == nil {
		conn, err := sqlite.Open(ctx, p.path, sqlite.Options{})
		if err != nil {
			return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}, fmt.Errorf("open a connection for a checkpoint: %w", err)
		}
		p.conn = conn
	}
	result, err := p.conn.Checkpoint(ctx, mode, budget)
	if err != nil {
		p.close() // a connection that failed is not trusted again
		return result, err
	}
	used := p.used
	p.idle = time.AfterFunc(connectionIdle, func() { p.closeUnused(used) })
	return result, nil
}

// Release closes the connection if there is one. The next Checkpoint opens another.
func (p *Plain) Release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used++
	return p.close()
}

func (p *Plain) closeUnused(since uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == since {
		p.close()
	}
}

func (p *Plain) close() error {
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	if p.conn == nil {
		return nil
	}
	conn := p.conn
	p.conn = nil
	return conn.Close()
}
