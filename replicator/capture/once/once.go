// Package once checkpoints a database that is not captured at the moment.
package once

import (
	"context"
	"errors"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/join"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Checkpoint runs a checkpoint on a connection of its own. The caller has none to the database.
func Checkpoint(ctx context.Context, files *dbfile.Files, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result,
	error) {
	r := sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}
	conn, err := join.Open(ctx, files, nil)
	if err != nil {
		return r, err
	}
	r, err = conn.Checkpoint(ctx, mode, budget)
	return r, errors.Join(err, conn.Close())
}
