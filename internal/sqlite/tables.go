//go:build linux && cgo

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"

	sqlite3 "github.com/mattn/go-sqlite3"
)

const tableNames = "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name"

// TableNames returns the names of the tables that begin with prefix. It creates
// no file. attached says that another process is connected to a WAL database:
// its schema is then read through the WAL, by an ordinary read transaction
// under every guard. Otherwise the file alone is read, without any lock.
func TableNames(ctx context.Context, path, prefix string, attached bool) ([]string, error) {
	rows, err := schema(ctx, path, attached)
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", path, err)
	}
	var names []string
	for _, row := range rows {
		if name, ok := row[0].(string); ok && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, nil
}

func schema(ctx context.Context, path string, attached bool) (rows [][]driver.Value, err error) {
	if attached {
		rows, err := schemaThroughWAL(ctx, path)
		if err == nil || errors.Is(err, ErrCorrupt) {
			return rows, err
		}
	}
	conn, err := immutable(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if rows, err = queryRows(ctx, conn, tableNames); err != nil {
		return nil, classify(err)
	}
	return rows, nil
}

func schemaThroughWAL(ctx context.Context, path string) (rows [][]driver.Value, err error) {
	path, err = resolve(path)
	if err != nil {
		return nil, err
	}
	c, _, err := openBeside(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if rows, err = queryRows(ctx, c.conn, tableNames); err != nil {
		return nil, classify(err)
	}
	return rows, nil
}

// immutable opens a file as it is: without a lock, a WAL or shared memory. A writer at work can make a read fail, but
// neither waits for the other.
func immutable(path string) (*sqlite3.SQLiteConn, error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, err
	}
	c, err := connect(dsn(resolved, url.Values{"mode": {"ro"}, "immutable": {"1"}}))
	if err != nil {
		return nil, err
	}
	if _, err := c.ExecContext(context.Background(), "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON",
		nil); err != nil {
		return nil, errors.Join(classify(err), c.Close())
	}
	return c, nil
}
