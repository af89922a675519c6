// Package walbench measures readers beside a writer on a scratch database, in WAL mode
// and with a rollback journal.
package walbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Workload is readers beside a writer on a scratch database.
type Workload struct {
	WAL         bool // else a rollback journal (DELETE)
	Synchronous string
	Readers     int
	Duration    time.Duration
}

// Result is what a Workload managed.
type Result struct {
	Reads, Writes uint64        // completed transactions
	Busy          uint64        // of either kind, given up after a busy timeout of 5 s
	LongestRead   time.Duration // waiting included
	LongestWrite  time.Duration
	Elapsed       time.Duration
}

// benchTable is what the writer of a workload writes into, and the readers
// read where the database holds no rows of its own.
const benchTable = `"sqlwatch bench"`

// Prepare makes the writer's table in a scratch database, and returns
// the table that readers read: the database's largest ordinary one.
func Prepare(ctx context.Context, scratch string) (table string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prepare %s: %w", scratch, err)
		}
	}()
	c, err := sqlite.OpenScratch(scratch)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = c.Exec(ctx, "PRAGMA synchronous=OFF; BEGIN; CREATE TABLE "+benchTable+
		" (id INTEGER PRIMARY KEY, v BLOB); "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) INSERT INTO "+benchTable+
		" SELECT i, randomblob(200) FROM n; COMMIT")
	if err != nil {
		return "", err
	}
	return largestTable(ctx, c)
}

// largestTable goes by the highest rowid. Tables without one and virtual ones
// have none or cannot be read here; they are passed over.
func largestTable(ctx context.Context, c *sqlite.Scratch) (string, error) {
	rows, err := c.Rows(ctx, "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' "+
		"ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'")
	if err != nil {
		return "", err
	}
	best, most := benchTable, int64(10000)
	for _, row := range rows {
		name := `"` + strings.ReplaceAll(fmt.Sprint(row[0]), `"`, `""`) + `"`
		highest, err := c.Rows(ctx, "SELECT max(rowid) FROM "+name)
		if err != nil || len(highest) != 1 {
			continue
		}
		if n, ok := highest[0][0].(int64); ok && n > most {
			best, most = name, n
		}
	}
	return best, ctx.Err()
}

// Run runs the readers and the writer on a scratch database, each on
// a connection and thread of its own. A read looks a random row up by rowid; a
// write inserts one row of 200 bytes and commits.
func Run(ctx context.Context, scratch, table string, w Workload) (result Result, err error) {
	mode := "DELETE"
	if w.WAL {
		mode = "WAL"
	}
	conns := make([]*sqlite.Scratch, 0, w.Readers+1)
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			err = fmt.Errorf("%s with %d readers: %w", mode, w.Readers, err)
		}
	}()
	for range w.Readers + 1 {
		c, err := sqlite.OpenScratch(scratch)
		if err != nil {
			return result, err
		}
		conns = append(conns, c)
		if err := prepareBench(ctx, c, mode, w.Synchronous); err != nil {
			return result, err
		}
	}
	highest, err := conns[0].Rows(ctx, "SELECT max(rowid) FROM "+table)
	if err != nil || len(highest) != 1 {
		return result, errors.Join(errors.New("no rows to read"), err)
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

func prepareBench(ctx context.Context, c *sqlite.Scratch, mode, synchronous string) error {
	rows, err := c.Rows(ctx, "PRAGMA busy_timeout=5000; PRAGMA journal_mode="+mode)
	if err != nil {
		return err
	}
	if len(rows) != 1 || !strings.EqualFold(fmt.Sprint(rows[0][0]), mode) {
		return fmt.Errorf("SQLite stayed in another journal mode: %v", rows)
	}
	return c.Exec(ctx, "PRAGMA synchronous="+synchronous)
}

// tally counts one connection's transactions.
type tally struct {
	done, busy uint64
	longest    time.Duration
	err        error
}

// run repeats a prepared statement until ctx ends. With last > 0 its parameter
// is a random rowid up to that.
func (t *tally) run(ctx context.Context, c *sqlite.Scratch, statement string, last int64) {
	prepared, err := c.Prepare(ctx, statement)
	if err != nil {
		t.err = err
		return
	}
	defer func() { t.err = errors.Join(t.err, prepared.Close()) }()
	for ctx.Err() == nil {
		began := time.Now()
		if last > 0 {
			err = prepared.ReadOne(rand.Int64N(last) + 1)
		} else {
			err = prepared.Exec()
		}
		t.longest = max(t.longest, time.Since(began))
		switch {
		case err == nil:
			t.done++
		case errors.Is(err, sqlite.ErrBusy):
			t.busy++
		default:
			t.err = err
			return
		}
	}
}
