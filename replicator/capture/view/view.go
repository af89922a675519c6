// Package view begins read transactions that are meant to last.
package view

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// tries bounds how often Begin tries again while other processes keep it from a read mark.
const tries = 200

// ErrNone says that other processes were in the way all the time.
var ErrNone = errors.New("no moment found at which a read mark was to be had: try again")

// Begin begins a read transaction on conn that is meant to last, and returns the wal-index that it sees. It
// takes a read mark and never READ0, which costs the application more the longer it is held. As long as the
// transaction lasts, frames stay in the WAL, and nothing beyond the mark reaches the main file.
func Begin(ctx context.Context, files *dbfile.Files, conn *sqlite.Conn) (dbfile.WALIndex, error) {
	for range tries {
		err := conn.BeginMarked(ctx)
		if errors.Is(err, sqlite.ErrBusy) {
			continue
		}
		if err != nil {
			return dbfile.WALIndex{}, err
		}
		x, err := tail.Index(files)
		if err != nil {
			return x, errors.Join(err, conn.EndRead())
		}
		return x, nil
	}
	return dbfile.WALIndex{}, ErrNone
}

// Disturbed returns ErrNone where a checkpoint of another process waits for a read mark of ours at x's end, and for no
// earlier one, or the files have left their paths: whoever holds the mark is to let it go, and begins again.
func Disturbed(files *dbfile.Files, x dbfile.WALIndex) error {
	change, err := files.Refresh()
	if err == nil && change != (dbfile.Change{}) {
		err = fmt.Errorf("%w: the files are no longer at their names", ErrNone)
	}
	if waits, lockErr := files.CheckpointHoldsWrite(); err != nil || lockErr != nil || !waits {
		return err
	}
	now, err := files.WALIndex()
	if err == nil && now.MaxFrame == x.MaxFrame && now.Backfilled < now.MaxFrame {
		return nil // it may backfill all there is
	}
	if behind, lockErr := othersBehind(files, now, x.MaxFrame); err == nil && lockErr == nil && behind {
		return nil // to let go would not help it
	}
	return fmt.Errorf("%w: a checkpoint waits for our read mark", ErrNone)
}

// othersBehind reports whether a reader holds a mark before this frame of the WAL, as x has the marks.
func othersBehind(files *dbfile.Files, x dbfile.WALIndex, frame uint32) (bool, error) {
	l, err := files.WALLocks()
	for i, mark := range x.ReadMarks {
		if i > 0 && l.Read[i].Held && !l.Read[i].Exclusive && mark < frame {
			return true, nil
		}
	}
	return false, err
}
