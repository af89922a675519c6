package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// snapshotRetry is how long to wait after a scheduled snapshot failed: nothing is
// more expensive to repeat.
const snapshotRetry = 5 * time.Minute

// maxChain is the largest number of files that a restore of the newest state should need.
const maxChain = 256

// snapshotter stores the whole database, unless restoring from the last full copy and the
// changes since is still cheap enough.
type snapshotter struct {
	name     string
	log      *slog.Logger
	store    store.Store
	scratch  string
	every    time.Duration // how often to check whether a snapshot is needed
	full     time.Duration // the greatest age of the last full copy
	source   *source
	progress *progress.Progress
	uploader *upload.Uploader
	lease    *lease.Lease
	begins   *beginning
	checked  func(time.Time) error // records durably when a check found that none is needed

	snapped time.Time // when a scheduled snapshot was last tried; used by the long lane only
	failed  error     // of that try; nil after a success
}

// take uploads the whole database as one stream: it is not staged on disk (only pages that change
// meanwhile are kept aside), and memory stays what the store's upload needs.
func (s *snapshotter) take(ctx context.Context) error {
	if err := s.lease.Hold(ctx); err != nil {
		return err
	}
	f, at, err := s.stream(ctx)
	if err != nil {
		return err
	}
	s.source.backlog.Advance(s.progress, f, at)
	s.log.Info("snapshot stored", "txid", f.MaxTXID, "bytes", f.Object.Size)
	return nil
}

// stream reads the database in one read transaction and stores it.
func (s *snapshotter) stream(ctx context.Context) (f store.LTXFile, at time.Time, err error) {
	status, _, _ := s.progress.Status()
	// Wait for admission before opening the snapshot: a waiting upload holds nothing of the database.
	err = store.Admitted(ctx, s.store, status.StoredBytes, func(ctx context.Context) error {
		return s.source.withSnapshot(ctx, func(ctx context.Context, r *capture.SnapshotReader) (err error) {
			if _, known := s.progress.Position(); !known {
				return lease.ErrMoved // or another chain was begun, whose snapshot may not fit this replica
			}
			h := r.Header()
			if h.MaxTXID == 0 || h.Commit == 0 {
				return errors.New("nothing was ever written to the database")
			}
			at = time.UnixMilli(h.Timestamp).UTC()
			f = store.LTXFile{Level: store.SnapshotLevel, MinTXID: 1, MaxTXID: h.MaxTXID}
			body := store.Body{Size: -1, AtMost: int64(h.Commit)*int64(h.PageSize) + 1<<20, Open: func() (io.ReadCloser, error) {
				return r.Stream(ctx, s.scratch), nil
			}}
			metadata := map[string]string{
				store.MetaTimestamp: at.Format(time.RFC3339Nano),
				store.MetaChecksum:  r.Checksum().String(),
				store.MetaLineage:   r.Lineage(),
			}
			r.Taken().Put(metadata)
			if err := s.begins.note(ctx, f, metadata); err != nil {
				return err
			}
			f.Object, err = s.uploader.CreateBase(ctx, store.LTXKey(store.SnapshotLevel, 1, h.MaxTXID), body, metadata)
			return err
		})
	})
	if err != nil {
		return store.LTXFile{}, at, fmt.Errorf("snapshot to %s: %w", s.name, err)
	}
	return f, at, nil
}

// due takes the scheduled snapshot, if anything was written since the last one and a full copy
// is needed.
func (s *snapshotter) due(ctx context.Context) (time.Time, error) {
	base := s.progress.Snapshot()
	if cursor, _ := s.progress.Position(); base == 0 || cursor <= base {
		return time.Time{}, nil
	}
	status, _, _ := s.progress.Status()
	now := s.progress.Clock()
	due := status.LastSnapshot.Add(s.every)
	if status.LastSnapshot.After(now) {
		due = time.Time{} // taken while the clock was ahead
	}
	if again := s.snapped.Add(snapshotRetry); again.After(due) && now.Before(again) {
		return again, worker.Since(s.failed)
	}
	if now.Before(due) {
		return due, nil
	}
	s.snapped = now
	needed, err := s.needed(ctx, now)
	if err != nil {
		s.failed = fmt.Errorf("snapshot to %s: %w", s.name, err)
		return time.Time{}, s.failed
	}
	if s.failed = nil; needed {
		s.failed = s.take(ctx)
		return time.Time{}, s.failed
	}
	s.progress.Update(func(st *ReplicaStatus) { st.LastSnapshot = now })
	return now.Add(s.every), s.checked(now)
}

// needed reports whether a full copy is needed: the last one is too old, or the changes since
// exceed half its size, are in too many files, or are incomplete.
func (s *snapshotter) needed(ctx context.Context, now time.Time) (bool, error) {
	if last := s.progress.FullAt(); s.full <= s.every || last.After(now) || now.Sub(last) >= s.full {
		return true, nil
	}
	cursor, _ := s.progress.Position() // before the plan: uploads continue in the meantime
	plan, err := catalog.MakePlan(ctx, s.store, catalog.Target{})
	if beyondRepair(err) {
		s.log.Error("the newest state cannot be restored: taking a new snapshot now", "err", err)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	whole := plan.Files[0].Object.Size
	return plan.TXID < cursor || plan.Bytes-whole > whole/2 || len(plan.Files) > maxChain, nil
}
