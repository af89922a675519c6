//go:build linux && cgo

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net/url"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Scratch is an ordinary connection, without guards, to a database of our own that nobody else uses and that may be
// lost. It is not for concurrent use.
type Scratch struct{ conn *sqlite3.SQLiteConn }

// OpenScratch opens the database at path, which must exist.
func OpenScratch(path string) (*Scratch, error) {
	conn, err := connect(dsn(path, url.Values{"mode": {"rw"}}))
	if err != nil {
		return nil, err
	}
	return &Scratch{conn}, nil
}

// Exec runs statements.
func (s *Scratch) Exec(ctx context.Context, statements string) error {
	_, err := s.conn.ExecContext(ctx, statements, nil)
	return classify(err)
}

// Rows runs a statement to its end.
func (s *Scratch) Rows(ctx context.Context, query string) ([][]driver.Value, error) {
	rows, err := queryRows(ctx, s.conn, query)
	return rows, classify(err)
}

// Close closes the connection.
func (s *Scratch) Close() error { return classify(s.conn.Close()) }

// Prepared is a statement that is run many times.
type Prepared struct{ stmt driver.Stmt }

// Prepare compiles a statement.
func (s *Scratch) Prepare(ctx context.Context, statement string) (*Prepared, error) {
	stmt, err := s.conn.PrepareContext(ctx, statement)
	if err != nil {
		return nil, classify(err)
	}
	return &Prepared{stmt}, nil
}

// Exec runs the statement. ErrBusy after the connection's busy timeout.
func (p *Prepared) Exec() error {
	_, err := p.stmt.(driver.StmtExecContext).ExecContext(context.Background(), nil)
	return classify(err)
}

// ReadOne runs the statement with one parameter, and reads its first row if there is one.
func (p *Prepared) ReadOne(parameter int64) (err error) {
	rows, err := p.stmt.(driver.StmtQueryContext).QueryContext(context.Background(),
		[]driver.NamedValue{{Ordinal: 1, Value: parameter}})
	if err != nil {
		return classify(err)
	}
	defer func() { err = errors.Join(err, classify(rows.Close())) }()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil && !errors.Is(err, io.EOF) {
		return classify(err)
	}
	return nil
}

// Close frees the statement.
func (p *Prepared) Close() error { return p.stmt.Close() }
