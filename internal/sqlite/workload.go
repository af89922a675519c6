package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// copyPages is how much of a database is copied at a time.
const copyPages = 1024

// copyPatience is how long a copy goes on without getting further.
const copyPatience = time.Minute

// Source is a database to be copied, as it was found.
type Source struct {
	Path     string
	WAL      bool // its header says so
	Attached bool // and somebody is connected
}

// CopyScratch copies a database into a new file, of absolute path, page by page as
// SQLite's backup does it. Of a WAL database in use it copies one read
// transaction, under every guard: writers go on, the WAL grows meanwhile. A WAL
// database that nobody uses is read without any lock. Of one with a rollback
// journal each piece is read under a short shared lock; what is written
// meanwhile begins the copy anew, and when that gets no further for a minute it
// is given up with ErrBusy. progress, which may be
// nil, is told pages.
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

// connect takes the way of reading that disturbs least.
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
		finished, err := backup.Step(copyPages) // a lock in the way is no error here, and no progress
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

// Workload is readers beside a writer on a scratch database.
type Workload struct {
	WAL         bool // else a rollback journal (DELETE)
	Synchronous string
	Readers     int
	Duration    time.Duration
}

// WorkloadResult is what a Workload managed.
type WorkloadResult struct {
	Reads, Writes uint64        // completed transactions
	Busy          uint64        // of either kind, given up after a busy timeout of 5 s
	LongestRead   time.Duration // waiting included
	LongestWrite  time.Duration
	Elapsed       time.Duration
}

// benchTable is what the writer of a workload writes into, and the readers
// read where the database holds no rows of its own.
const benchTable = `"sqlwatch bench"`

// PrepareWorkload makes the writer's table in a scratch database, and returns
// the table that readers read: the database's largest ordinary one.
func PrepareWorkload(ctx context.Context, scratch string) (table string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prepare %s: %w", scratch, err)
		}
	}()
	c, err := connect(dsn(scratch, url.Values{"mode": {"rw"}}))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	_, err = c.ExecContext(ctx, "PRAGMA synchronous=OFF; BEGIN; CREATE TABLE "+benchTable+
		" (id INTEGER PRIMARY KEY, v BLOB); "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) INSERT INTO "+benchTable+
		" SELECT i, randomblob(200) FROM n; COMMIT", nil)
	if err != nil {
		return "", classify(err)
	}
	return largestTable(ctx, c)
}

// largestTable goes by the highest rowid. Tables without one and virtual ones
// have none or cannot be read here; they are passed over.
func largestTable(ctx context.Context, c *sqlite3.SQLiteConn) (string, error) {
	rows, err := queryRows(ctx, c, "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' "+
		"ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'")
	if err != nil {
		return "", classify(err)
	}
	best, most := benchTable, int64(10000)
	for _, row := range rows {
		name := `"` + strings.ReplaceAll(fmt.Sprint(row[0]), `"`, `""`) + `"`
		highest, err := queryRows(ctx, c, "SELECT max(rowid) FROM "+name)
		if err != nil || len(highest) != 1 {
			continue
		}
		if n, ok := highest[0][0].(int64); ok && n > most {
			best, most = name, n
		}
	}
	return best, ctx.Err()
}

// RunWorkload runs the readers and the writer on a scratch database, each on
// a connection and thread of its own. A read looks a random row up by rowid; a
// write inserts one row of 200 bytes and commits.
func RunWorkload(ctx context.Context, scratch, table string, w Workload) (result WorkloadResult, err error) {
	mode := "DELETE"
	if w.WAL {
		mode = "WAL"
	}
	conns := make([]*sqlite3.SQLiteConn, 0, w.Readers+1)
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			err = fmt.Errorf("%s with %d readers: %w", mode, w.Readers, err)
		}
	}()
	for range w.Readers + 1 {
		c, err := connect(dsn(scratch, url.Values{"mode": {"rw"}}))
		if err != nil {
			return result, err
		}
		conns = append(conns, c)
		if err := prepareBench(ctx, c, mode, w.Synchronous); err != nil {
			return result, err
		}
	}
	highest, err := queryRows(ctx, conns[0], "SELECT max(rowid) FROM "+table)
	if err != nil || len(highest) != 1 {
		return result, errors.Join(errors.New("no rows to read"), classify(err))
	}
	last, _ := highest[0][0].(int64)
	ctx, cancel := context.WithTimeout(ctx, w.Duration)
	defer cancel()
	tallies := make([]tally, len(conns))
	var group sync.WaitGroup
	start := time.Now()
	for i, c := range conns {
		group.Go(func() {
			if i == 0 {
				tallies[i].run(ctx, c, "INSERT INTO "+benchTable+"(v) VALUES (randomblob(200))", 0)
			} else {
				tallies[i].run(ctx, c, "SELECT * FROM "+table+" WHERE rowid >= ? LIMIT 1", last)
			}
		})
	}
	group.Wait()
	result.Elapsed = time.Since(start)
	writer := tallies[0]
	result.Writes, result.LongestWrite, result.Busy, err = writer.done, writer.longest, writer.busy, writer.err
	for _, t := range tallies[1:] {
		result.Reads += t.done
		result.Busy += t.busy
		result.LongestRead = max(result.LongestRead, t.longest)
		err = errors.Join(err, t.err)
	}
	return result, err
}

func prepareBench(ctx context.Context, c *sqlite3.SQLiteConn, mode, synchronous string) error {
	rows, err := queryRows(ctx, c, "PRAGMA busy_timeout=5000; PRAGMA journal_mode="+mode)
	if err != nil {
		return classify(err)
	}
	if len(rows) != 1 || !strings.EqualFold(fmt.Sprint(rows[0][0]), mode) {
		return fmt.Errorf("SQLite stayed in another journal mode: %v", rows)
	}
	_, err = c.ExecContext(ctx, "PRAGMA synchronous="+synchronous, nil)
	return classify(err)
}

// tally counts one connection's transactions.
type tally struct {
	done, busy uint64
	longest    time.Duration
	err        error
}

// run repeats a prepared statement until ctx ends. With last > 0 its parameter
// is a random rowid up to that.
func (t *tally) run(ctx context.Context, c *sqlite3.SQLiteConn, statement string, last int64) {
	prepared, err := c.PrepareContext(ctx, statement)
	if err != nil {
		t.err = classify(err)
		return
	}
	defer func() { t.err = errors.Join(t.err, prepared.Close()) }()
	for ctx.Err() == nil {
		began := time.Now()
		if last > 0 {
			err = readOne(prepared, rand.Int64N(last)+1)
		} else {
			_, err = prepared.(driver.StmtExecContext).ExecContext(context.Background(), nil)
		}
		t.longest = max(t.longest, time.Since(began))
		switch err = classify(err); {
		case err == nil:
			t.done++
		case errors.Is(err, ErrBusy):
			t.busy++
		default:
			t.err = err
			return
		}
	}
}

func readOne(prepared driver.Stmt, rowid int64) (err error) {
	rows, err := prepared.(driver.StmtQueryContext).QueryContext(context.Background(),
		[]driver.NamedValue{{Ordinal: 1, Value: rowid}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
