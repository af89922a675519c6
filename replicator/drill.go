package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// driller runs a replica's restore drills.
type driller struct {
	name     string
	log      *slog.Logger
	store    store.Store
	scratch  string
	every    time.Duration // 0: on demand only
	progress *progress.Progress
	saved    *custody.StateFile
	mender   *mender

	failures atomic.Uint64 // for the metric
	told     atomic.Bool   // a pass was logged, and no drill has failed since
	drilled  time.Time     // when a scheduled drill was last tried; used by the long lane only
	failed   error         // of that try; nil after a success
}

// errNothingStored says that there was nothing to restore: the replica is still empty.
var errNothingStored = errors.New("nothing is stored there yet")

// verify runs a restore drill: it restores the newest state into a scratch directory, checks it
// in full and removes it. If the replica cannot be restored, it gets a new snapshot at
// once.
func (d *driller) verify(ctx context.Context) (err error) {
	scratch, err := os.MkdirTemp(d.scratch, "verify-")
	if err != nil {
		return fmt.Errorf("verify %s: %w", d.name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	start := d.progress.Clock()
	cursor, _ := d.progress.Position()
	result, err := restore.Run(ctx, d.store, restore.Options{
		Output: filepath.Join(scratch, "drill.db"), Check: restore.CheckFull, Drill: true, Leave: restore.DrillLeaves,
		Reach: cursor,
	})
	if err == nil && !result.Compared {
		d.log.Warn("the replica records no checksum for the database that the drill restored: its integrity was checked, " +
			"but not that it equals the original")
	}
	if cursor == 0 && (errors.Is(err, catalog.ErrEmpty) || errors.Is(err, store.ErrMisplaced)) {
		return fmt.Errorf("verify %s: %w: %w", d.name, errNothingStored, err)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.failures.Add(1)
			d.told.Store(false)
			d.progress.Update(func(s *ReplicaStatus) { s.DrillErr = err.Error() })
		}
		if beyondRepair(err) {
			d.log.Error("the replica cannot be restored: taking a new snapshot now", "err", err)
			useless := result.Useless
			if errors.As(err, new(*restore.ChecksumError)) {
				useless = append(useless, result.Objects...) // which of them is wrong is not known
			}
			err = errors.Join(err, d.mender.repair(ctx, useless...))
		}
		return fmt.Errorf("verify %s: %w", d.name, err)
	}
	took := d.progress.Clock().Sub(start)
	d.progress.Update(func(s *ReplicaStatus) { s.LastVerified, s.VerifyDuration, s.DrillErr = start, took, "" })
	level := slog.LevelInfo
	if d.told.Swap(true) { // repeated success is not news
		level = slog.LevelDebug
	}
	d.log.Log(ctx, level, "restore drill passed", "txid", result.TXID, "took", took)
	err = d.saved.Change(func(s *custody.Saved) { s.Verified, s.At = result.Objects, start.UTC() })
	return errors.Join(err, d.without(ctx, result.Useless))
}

// without deals with files that a drill that passed did without. If one is a snapshot, there is to be another one.
func (d *driller) without(ctx context.Context, useless []string) error {
	if len(useless) == 0 {
		return nil
	}
	d.log.Error("the drill did without files that are corrupt or unreadable", "files", useless)
	for _, key := range useless {
		if _, min, _, err := store.ParseLTXKey(key); err == nil && min == 1 {
			return d.mender.repair(ctx, useless...)
		}
	}
	return d.mender.lost(0, useless...)
}

// due runs the scheduled restore drill if it is time, and returns when the next one is.
func (d *driller) due(ctx context.Context) (time.Time, error) {
	cursor, _ := d.progress.Position()
	if d.every <= 0 || cursor == 0 {
		return time.Time{}, nil
	}
	now := d.progress.Clock()
	s, _, _ := d.progress.Status()
	due := s.LastVerified.Add(d.every)
	if s.LastVerified.IsZero() || s.LastVerified.After(now) {
		due = d.progress.Began.Add(d.every)
	}
	if again := d.drilled.Add(d.every / 10); again.After(due) && now.Before(again) {
		return again, worker.Since(d.failed)
	}
	if now.Before(due) {
		return due, nil
	}
	d.drilled = now
	if d.failed = d.verify(ctx); d.failed != nil {
		return time.Time{}, d.failed
	}
	return d.progress.Clock().Add(d.every), nil
}
