//go:build linux && cgo

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"strings"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// QuickCheck verifies the structure of the database file at path, which nobody
// else uses: it is opened read-only and immutable, without locks, WAL or
// shared memory. errors.Is(err, ErrCorrupt) when it is corrupt. Rows that break
// a CHECK constraint are not corrupt, and not looked for.
func QuickCheck(ctx context.Context, path string) error {
	return check(ctx, path, "PRAGMA quick_check(10)")
}

// IntegrityCheck is QuickCheck and compares every index with its table.
func IntegrityCheck(ctx context.Context, path string) error {
	return check(ctx, path, "PRAGMA integrity_check(10)")
}

func check(ctx context.Context, path, query string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("check database %s: %w", path, err)
		}
	}()
	resolved, err := resolve(path)
	if err != nil {
		return err
	}
	conn, err := connect(dsn(resolved, url.Values{"mode": {"ro"}, "immutable": {"1"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := limitValues(conn, resolved); err != nil {
		return err
	}
	// The file may come from anywhere, and its index expressions run here.
	if _, err := conn.ExecContext(ctx, "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON", nil); err != nil {
		return classify(err)
	}
	return verdict(ctx, conn, query)
}

// largestValue is how large one value may always be while a database is checked, in bytes.
const largestValue = 64 << 20

// limitValues keeps a crafted schema from computing values of a gigabyte: no stored value is larger than the file
// that holds it.
func limitValues(conn *sqlite3.SQLiteConn, path string) error {
	info, err := os.Stat(path)
	if err == nil {
		conn.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, int(min(max(info.Size(), largestValue), math.MaxInt32)))
	}
	return err
}

// verdict runs the check: one row that says ok, or the problems found.
func verdict(ctx context.Context, conn *sqlite3.SQLiteConn, query string) error {
	rows, err := queryRows(ctx, conn, query)
	if err != nil {
		return classify(err)
	}
	var problems []string
	for _, row := range rows {
		problems = append(problems, fmt.Sprint(row[0]))
	}
	if len(problems) == 1 && problems[0] == "ok" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrCorrupt, strings.Join(problems, "; "))
}

// queryRows runs a statement to its end.
func queryRows(ctx context.Context, conn *sqlite3.SQLiteConn, query string) (_ [][]driver.Value, err error) {
	rows, err := conn.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all [][]driver.Value
	for {
		row := make([]driver.Value, len(rows.Columns()))
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
}

// SetJournalModeWAL turns WAL mode on, which the file remembers. It is for an
// operator who asked for it; nothing else changes a database.
func SetJournalModeWAL(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("turn WAL mode on for %s: %w", path, err)
		}
	}()
	resolved, err := resolve(path)
	if err != nil {
		return err
	}
	if err := checkOwner(resolved); err != nil {
		return err
	}
	conn, err := connect(dsn(resolved, url.Values{"mode": {"rw"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	rows, err := queryRows(ctx, conn, "PRAGMA journal_mode=WAL")
	if err != nil {
		return classify(err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 || fmt.Sprint(rows[0][0]) != "wal" {
		return fmt.Errorf("SQLite stayed in another mode: %v", rows)
	}
	return nil
}
