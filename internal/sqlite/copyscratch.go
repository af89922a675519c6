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
	source, err := from.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	target, err := connect(dsn(scratch, url.Values{"mode": {"rwc"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	backup, err := target.Backup("main", source.conn, "main")
	if err != nil {
		return classify(err)
	}
	if err := runBackup(ctx, backup, source.inPlace, progress); err != nil {
		backup.Close() // repeats the error
		return err
	}
	return classify(backup.Close())
}

// copied is a connection to a database that is copied.
type copied struct {
	conn    *sqlite3.SQLiteConn
	inPlace func() error // ErrReplaced where its side files have left their paths
	close   func() error
}

// connect opens the database in the way that disturbs its users least.
func (s Source) connect(ctx context.Context) (copied, error) {
	path, err := resolve(s.Path)
	if err != nil {
		return copied{}, err
	}
	if s.WAL && (s.Attached || exists(path+"-wal")) {
		c, inPlace, err := openBeside(ctx, path)
		if err != nil {
			return copied{}, err
		}
		if err := c.BeginRead(ctx); err != nil {
			return copied{}, errors.Join(err, c.Close())
		}
		return copied{c.conn, inPlace, func() error { return errors.Join(c.EndRead(), c.Close()) }}, nil
	}
	var conn *sqlite3.SQLiteConn
	if s.WAL {
		conn, err = immutable(path)
	} else {
		conn, err = connectPatiently(ctx, dsn(path, url.Values{"mode": {"ro"}}))
	}
	if err != nil {
		return copied{}, err
	}
	return copied{conn, func() error { return nil }, conn.Close}, nil
}

// openBeside opens a connection that only reads, with the side files that are there: it makes none. Where somebody
// removes those of a running application, a connection with others would keep its last close from writing back what
// it has committed. inPlace returns ErrReplaced from then on; the caller then closes the connection.
func openBeside(ctx context.Context, path string) (c *Conn, inPlace func() error, err error) {
	wal, walErr := inodeOf(path + "-wal")
	shm, shmErr := inodeOf(path + "-shm")
	if err := errors.Join(walErr, shmErr); err != nil {
		return nil, nil, err
	}
	if wal == (inode{}) || shm == (inode{}) {
		return nil, nil, fmt.Errorf("it was not closed cleanly, and one of -wal and -shm is missing: let the application "+
			"open it once: %w", ErrBusy)
	}
	if c, err = Open(ctx, path, Options{ReadOnly: true, WAL: wal.ino, Shm: shm.ino}); err != nil {
		return nil, nil, err
	}
	return c, func() error {
		now, err := inodeOf(path + "-wal")
		if err == nil && now != wal {
			err = ErrReplaced
		}
		return errors.Join(err, c.inPlace())
	}, nil
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

func runBackup(ctx context.Context, backup *sqlite3.SQLiteBackup, inPlace func() error,
	progress func(done, total int64)) error {
	deadline := time.Now().Add(copyPatience)
	for furthest := 0; ; {
		if err := inPlace(); err != nil {
			return err
		}
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
