// Package join opens connections to a database that other processes may be using.
package join

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// ErrReplaced says that another file is at the database's path than the one that is held.
var ErrReplaced = errors.New("another file is at the database's path")

// Open connects to the database whose files are held, and checks that everybody who uses it shares the side files
// of the new connection. dbfile.Files.MayOpen comes before. If somebody has removed the -wal and -shm of a running
// application since, a connection would make new ones; while it was open, the application's close would not be the
// last one, and what is in its WAL would be lost. So the connection insists on the side files that are held, where
// there are any, and is closed at once where the check fails. rejoin is that of sqlite.Options. Errors: ErrReplaced,
// dbfile.ErrUnclear, *dbfile.ForeignError, those of sqlite.Open.
func Open(ctx context.Context, files *dbfile.Files, rejoin func() error) (*sqlite.Conn, error) {
	st, err := files.Stat()
	if err != nil {
		return nil, err
	}
	conn, err := sqlite.Open(ctx, files.Path(), sqlite.Options{Rejoin: rejoin, WAL: st.WALInode, Shm: st.ShmInode})
	if errors.Is(err, sqlite.ErrReplaced) {
		return nil, fmt.Errorf("%w: %w", dbfile.ErrUnclear, err)
	} else if err != nil {
		return nil, err
	}
	change, err := dbfile.Joined(files)
	if err == nil && change.Database {
		err = ErrReplaced
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
