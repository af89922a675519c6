// Package leftover removes empty side files beside a database that nobody uses. A process that was killed while
// it was connected leaves them.
package leftover

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/join"
)

// There reports whether there are side files, and no frames in the WAL.
func There(files *dbfile.Files) (bool, error) {
	st, err := files.Stat()
	return err == nil && (st.WALInode != 0 || st.ShmInode != 0) && st.WALSize <= dbfile.WALHeaderSize, err
}

// Remove connects to the database and closes it as SQLite's last close does, which removes its side files. This
// process must have no connection to the database. Where another process has come, or has put frames into the
// WAL, everything stays as it is. Errors: those of dbfile.Files.MayOpen and of join.Open.
func Remove(ctx context.Context, files *dbfile.Files) error {
	if err := files.MayOpen(); err != nil {
		return fmt.Errorf("remove empty side files of %s: %w", files.Path(), err)
	}
	conn, err := join.Open(ctx, files, nil)
	if err != nil {
		return fmt.Errorf("remove empty side files: %w", err)
	}
	leave := conn.Close
	empty, err := There(files) // somebody may be putting a copy of two files in place right now
	if err == nil && empty {
		leave = conn.CloseLast
	}
	err = errors.Join(err, leave())
	_, refreshErr := files.Refresh()
	return errors.Join(err, refreshErr)
}
