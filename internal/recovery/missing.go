package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
)

// Missing restores the databases of a configuration whose files are missing, before
// anything else is started.
type Missing struct {
	Config *config.Config
	Stderr io.Writer // what came of each
}

// Restore restores each from the replica that reaches farthest. One without any replica,
// or whose replicas are empty and were never anything else, is left to its application, which
// makes it.
func (m Missing) Restore(ctx context.Context) error {
	targets, err := m.Config.Expand()
	if err != nil {
		return err
	}
	disks := lookup.New() // what is on one that does not answer is not known to be missing
	for _, t := range targets {
		if _, err := disks.Stat(t.Path); !errors.Is(err, fs.ErrNotExist) || len(t.Replicas) == 0 {
			continue
		}
		if err := m.one(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (m Missing) one(ctx context.Context, t config.DatabaseTarget) error {
	ours := custody.LineageOf(target.StateOf(m.Config, t.Name))
	st, from, err := target.Farthest(ctx, m.Stderr, t.Replicas, ours)
	if err != nil {
		return err
	}
	tip, err := catalog.FindTip(ctx, st)
	taken := false
	if err == nil {
		taken, err = catalog.Taken(ctx, st, tip)
	}
	if err != nil && !NothingYet(from, err) {
		return err
	}
	if !taken {
		warning, err := known(ctx, target.Source{Store: st, Lineage: ours})
		if err != nil {
			return fmt.Errorf("restore %s from %s: %w", t.Path, from.Name, err)
		}
		if warning != "" {
			fmt.Fprintf(m.Stderr, "sqlwatch: %s: %s\n", from.Name, warning)
		}
		fmt.Fprintf(m.Stderr, "sqlwatch: %s does not exist and %s is empty: starting without a restore\n", t.Path, from.Name)
		return nil
	}
	result, err := restore.Run(ctx, st, restore.Options{Note: true, Output: t.Path, IfNotExists: true,
		SyncEvery: from.SyncEvery})
	if err != nil {
		return fmt.Errorf("restore %s from %s: %w", t.Path, from.Name, err)
	}
	return Outcome{Result: result, Database: t.Name, Place: from.Place()}.Write(m.Stderr)
}
