//go:build linux && cgo

package sqlite

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/cgo"
	"slices"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Linked says that SQLite itself is part of this program.
const Linked = true

// A database may be busy for a moment when it is opened: its last connection
// is just closing, or its first one recovers the WAL. An application in
// exclusive locking mode keeps it busy for ever.
const (
	openPatience = 100 * time.Millisecond
	openPoll     = 10 * time.Millisecond
)

// Conn is one connection to a watched database. It is not for concurrent use.
type Conn struct {
	path     string
	readOnly bool
	conn     *sqlite3.SQLiteConn
	gate     *gate
	handle   cgo.Handle // of gate, held by the shim
	inRead   bool
	files    identity // that the connection has open
	shed     bool     // see Shed
	rejoin   func() error
}

// Open connects to the WAL database at path. It never creates it, changes nothing in it, and waits at most a tenth of
// a second for a lock. The connection never waits for a lock by itself, never checkpoints at commit, leaves the WAL
// where it is unless it is closed by CloseLast or CloseUnlinked, trusts nothing in the schema and attaches nothing.
// Besides SQLite's errors it returns ErrNotExist, ErrForeignOwner, ErrReadOnly, ErrBusy, ErrNotWAL, ErrCorrupt,
// ErrSchema and ErrPageChecksums.
func Open(ctx context.Context, path string, o Options) (*Conn, error) {
	if err := registerShim(); err != nil {
		return nil, err
	}
	resolved, err := guard(path, o.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	deadline := time.Now().Add(openPatience)
	for {
		c, err := open(ctx, resolved, o)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return nil, fmt.Errorf("open database %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("open database %s: %w", path, ctx.Err())
		case <-time.After(openPoll):
		}
	}
}

func open(ctx context.Context, path string, o Options) (*Conn, error) {
	g := &gate{wal: path + "-wal"}
	handle := cgo.NewHandle(g)
	conn, err := connect(watchedDSN(path, o, uintptr(handle)))
	if err != nil {
		handle.Delete()
		return nil, g.reason(unread(err))
	}
	c := &Conn{path: path, readOnly: o.ReadOnly, conn: conn, gate: g, handle: handle, rejoin: o.Rejoin}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(g.reason(err), c.Close())
	}
	// While the connection's lock is held, only a removal by hand takes the files from under it.
	if c.files, err = identify(path); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// connect opens a connection of the driver that cannot ATTACH other databases.
func connect(dsn string) (*sqlite3.SQLiteConn, error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, classify(err)
	}
	conn, ok := opened.(*sqlite3.SQLiteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("unexpected connection type %T", opened), opened.Close())
	}
	conn.SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
	return conn, nil
}

// prepare sets what the shim could not set, reads once (a checkpoint on a
// connection that has read nothing does nothing), and asks for the mode.
func (c *Conn) prepare(ctx context.Context) error {
	if err := c.exec(ctx, "PRAGMA wal_autocheckpoint=0; PRAGMA cell_size_check=ON"); err != nil {
		return unread(err)
	}
	row, err := c.queryRow(ctx, "PRAGMA journal_mode", 1)
	if err != nil {
		return unread(classify(err))
	}
	if mode := fmt.Sprint(row[0]); mode != "wal" {
		return fmt.Errorf("journal mode %q: %w", mode, ErrNotWAL)
	}
	if !c.readOnly && c.pageChecksums() {
		return ErrPageChecksums
	}
	return nil
}

// Close ends the connection and its transaction. It never checkpoints and
// never deletes the WAL, even as the last connection of all.
func (c *Conn) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("close database %s: %w", c.path, classify(err))
	}
	c.handle.Delete()
	return nil
}

// BeginRead starts a read transaction at the newest commit and takes its read
// mark. errors.Is(err, ErrBusy) when that is not possible now.
func (c *Conn) BeginRead(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), c.resume()); err != nil {
		return fmt.Errorf("begin read of %s: %w", c.path, err)
	}
	// Every transaction of another connection tries READ1 first: if our mark were on it, each would pay for a failed
	// attempt to lock it.
	c.gate.shun = true
	defer func() { c.gate.shun = false }()
	// schema_version is a number on page 1: reading it takes the read mark and
	// neither parses the schema nor touches what the application made.
	if err := c.exec(context.Background(), "BEGIN; PRAGMA schema_version"); err != nil {
		return errors.Join(fmt.Errorf("begin read of %s: %w", c.path, err), c.endTransaction())
	}
	if c.indexCut() { // what was read cannot be trusted
		return errors.Join(fmt.Errorf("begin read of %s: %w", c.path, ErrIndexCut), c.endTransaction())
	}
	c.inRead = true
	return nil
}

// BeginMarked is BeginRead, but never takes READ0: for transactions that last. While
// READ0 is held, each commit of an application that checkpoints by itself costs it an
// fsync for nothing.
func (c *Conn) BeginMarked(ctx context.Context) error {
	c.gate.some = true
	defer func() { c.gate.some = false }()
	return c.BeginRead(ctx)
}

// EndRead ends the read transaction; without one it does nothing.
func (c *Conn) EndRead() error {
	if !c.inRead {
		return nil
	}
	return c.Rollback()
}

// InRead reports whether a read transaction is open.
func (c *Conn) InRead() bool { return c.inRead }

// ReadMark returns which of READ0 to READ4 the last read transaction took.
func (c *Conn) ReadMark() int { return c.gate.mark }

// Rollback ends the transaction, of whatever kind; without one it does
// nothing.
func (c *Conn) Rollback() error {
	c.inRead = false
	return c.endTransaction()
}

func (c *Conn) endTransaction() error {
	if c.conn.AutoCommit() {
		return nil
	}
	if err := c.exec(context.Background(), "ROLLBACK"); err != nil {
		return fmt.Errorf("end transaction on %s: %w", c.path, err)
	}
	return nil
}

func (c *Conn) exec(ctx context.Context, statements string) error {
	_, err := c.conn.ExecContext(ctx, statements, nil)
	return classify(err)
}

// queryRow returns a statement's first row, which must have n columns. It does
// not step beyond that: an interrupt that comes a moment too late would turn a
// finished checkpoint into a failed one.
func (c *Conn) queryRow(ctx context.Context, query string, n int) (_ []driver.Value, err error) {
	rows, err := c.conn.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return nil, err
	}
	if len(row) != n {
		return nil, fmt.Errorf("%s: unexpected answer %v", query, row)
	}
	return row, nil
}

// unread wraps errors of a connection's first statements, which read the schema, in ErrSchema where they mean that
// the schema cannot be read.
func unread(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && slices.Contains([]sqlite3.ErrNo{sqlite3.ErrError, sqlite3.ErrCorrupt, sqlite3.ErrNotADB},
		e.Code) {
		return fmt.Errorf("%w: %w", ErrSchema, err)
	}
	return err
}

// classify wraps SQLite's result codes in the errors that callers test for.
func classify(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrProtocol:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case sqlite3.ErrIoErr:
		if e.ExtendedCode == C.SQLITE_IOERR_SHMMAP {
			return fmt.Errorf("%w: %w", ErrIndexCut, err)
		}
	case sqlite3.ErrReadonly:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case sqlite3.ErrNomem:
		return fmt.Errorf("%w: %w", ErrNoMemory, err)
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
