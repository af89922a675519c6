//go:build linux && cgo

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// copyPages is how much of a database is copied at a time.
const copyPages = 1024

// copyPatience is how long a copy goes on without getting further.
const copyPatience = time.Minute

// CopyScratch copies a database into a new file of absolute path, page by page, with SQLite's backup API. Of a WAL
// database in use it copies one read transaction, under every guard: writers go on, and the WAL grows in the
// meantime. A WAL database that nobody uses is read without any lock. A database with a rollback journal is read in
// pieces, each under a short shared lock; a write in the meantime makes the copy begin again, and when it gets no
// further for a minute it is given up with ErrBusy. progress, which may be nil, is called with numbers of pages.
func CopyScratch(ctx context.Context, from Source, scratch string, progress func(done, total int64)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy database %s: %w", from.Path, err)
		}
	}()
	source, done, err := from.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	target, err := connect(dsn(scratch, url.Values{"mode": {"rwc"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	backup, err := target.Backup("main", source, "main")
	if err != nil {
		return classify(err)
	}
	if err := runBackup(ctx, backup, progress); err != nil {
		backup.Close() // repeats the error
		return err
	}
	return classify(backup.Close())
}

// connect opens the database in the way that disturbs its users least.
func (s Source) connect(ctx context.Context) (*sqlite3.SQLiteConn, func() error, error) {
	path, err := resolve(s.Path)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case s.WAL && (s.Attached || exists(path+"-wal")):
		if !exists(path+"-wal") || !exists(path+"-shm") { // a connection would make them
			return nil, nil, fmt.Errorf("it was not closed cleanly, and one of -wal and -shm is missing: let the application "+
				"open it once: %w", ErrBusy)
		}
		c, err := Open(ctx, path, Options{ReadOnly: true})
		if err != nil {
			return nil, nil, err
		}
		if err := c.BeginRead(ctx); err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
		return c.conn, func() error { return errors.Join(c.EndRead(), c.Close()) }, nil
	case s.WAL:
		conn, err := immutable(path)
		if err != nil {
			return nil, nil, err
		}
		return conn, conn.Close, nil
	}
	conn, err := connectPatiently(ctx, dsn(path, url.Values{"mode": {"ro"}}))
	if err != nil {
		return nil, nil, err
	}
	return conn, conn.Close, nil
}

// connectPatiently repeats connect while a commit is in its way: the driver
// reads the header at once.
func connectPatiently(ctx context.Context, name string) (*sqlite3.SQLiteConn, error) {
	for deadline := time.Now().Add(copyPatience); ; {
		conn, err := connect(name)
		if err == nil || !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(openPoll):
		}
	}
}

func runBackup(ctx context.Context, backup *sqlite3.SQLiteBackup, progress func(done, total int64)) error {
	deadline := time.Now().Add(copyPatience)
	for furthest := 0; ; {
		finished, err := backup.Step(copyPages) // where a lock is in the way, it returns no error and makes no progress
		if err != nil {
			return classify(err)
		}
		done := backup.PageCount() - backup.Remaining()
		if progress != nil {
			progress(int64(done), int64(backup.PageCount()))
		}
		switch {
		case finished:
			return nil
		case done > furthest:
			furthest, deadline = done, time.Now().Add(copyPatience)
		case time.Now().After(deadline):
			return fmt.Errorf("it is written faster than it can be read: %w", ErrBusy)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // writers come first
		}
	}
}
