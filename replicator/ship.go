package replicator

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/compact"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// shipper uploads what waits in the spool.
type shipper struct {
	name      string
	log       *slog.Logger
	scratch   string
	every     time.Duration // see ReplicaOptions.SyncEvery
	slack     time.Duration // see replica.slack
	source    *source
	progress  *progress.Progress
	uploader  *upload.Uploader
	lease     *lease.Lease
	snapshots *snapshotter
	compactor *compact.Compactor
	begins    *beginning
	worker    *worker.Worker
	upkeep    *worker.Lanes

	lastPut time.Time // guarded by replica.work
}

// sync ships everything if a sync is due, or returns how long until it is.
func (s *shipper) sync(ctx context.Context) (time.Duration, error) {
	if wait := s.lastPut.Add(s.every).Sub(s.progress.Clock()); wait > 0 && !s.worker.Urgent() {
		if s.waiting() {
			return wait, nil
		}
		return 0, nil
	}
	if _, err := s.source.step(ctx, true); err != nil && ctx.Err() == nil {
		// Capture reports its own errors; what is in the spool can be uploaded.
		s.log.Debug("sync continues with what is in the spool", "err", err)
	}
	for {
		more, err := s.ship(ctx)
		if err == nil && more && ctx.Err() == nil {
			continue
		}
		if err == nil {
			s.worker.SetUrgent(false)
		}
		return 0, err
	}
}

// waiting reports whether the spool has, or will shortly have, something for this replica.
func (s *shipper) waiting() bool {
	cursor, _ := s.progress.Position()
	return s.progress.Snapshot() == 0 || len(s.source.backlog.Spool().After(cursor)) > 0 || s.source.pending()
}

// ship uploads the next batch of segments, if there is one.
func (s *shipper) ship(ctx context.Context) (more bool, err error) {
	spool := s.source.backlog.Spool() // before the position, which is doubted before another chain is published
	cursor, known := s.progress.Position()
	if !known {
		return false, nil // the part that doubted the position wakes the worker
	}
	if s.source.backlog.Pass(s.progress) {
		return true, nil
	}
	newest := spool.Last() // read before After: what After lacks up to here was released, and is not still to come
	segments := spool.After(cursor)
	switch {
	case len(segments) > 0:
	case s.progress.Snapshot() == 0 && newest > 0:
		return false, s.snapshot(ctx) // nothing to restore from yet
	case cursor < newest:
		s.log.Info("what the replica lacks is no longer in the spool: taking a snapshot", "has", cursor, "newest", newest)
		return true, s.snapshot(ctx)
	default:
		return false, nil
	}
	if s.progress.Snapshot() == 0 && !segments[0].Snapshot() || !segments[0].Snapshot() && segments[0].MinTXID != cursor+
		1 {
		s.log.Info("the replica lacks what is no longer in the spool: taking a snapshot", "has", cursor, "spool_from",
			segments[0].MinTXID)
		return true, s.snapshot(ctx)
	}
	if err := s.lease.Hold(ctx); err != nil {
		return false, err
	}
	batch := upload.NextBatch(segments)
	s.lastPut = s.progress.Clock()
	object, err := s.upload(ctx, batch)
	if err == nil {
		s.stored(object, batch[len(batch)-1].Timestamp)
		return true, s.source.backlog.LetGo()
	}
	s.lastPut = time.Time{} // nothing was put: the next turn tries at once and does not pass for a success
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrMisplaced) {
		return false, err
	}
	if again := spool.After(cursor); len(again) > 0 && again[0].Path == batch[0].Path {
		s.log.Error("a segment is gone from the spool: taking a snapshot", "segment", batch[0].Path)
		err := s.snapshots.take(ctx)
		if err == nil {
			err = s.source.backlog.Abandon(s.progress)
		}
		return true, err
	}
	return true, nil // released in the meantime, because this replica was too far behind: the next call decides
}

// upload stores a batch as one object of level 0, or as a snapshot.
func (s *shipper) upload(ctx context.Context, batch upload.Batch) (store.LTXFile, error) {
	body, path, discard, err := batch.Body(ctx, s.scratch, "ship-"+custody.FileName(s.name))
	if err != nil {
		return store.LTXFile{}, err
	}
	defer discard()
	f, notes := batch.File(), batch.Notes(body.SHA256)
	key := store.LTXKey(f.Level, f.MinTXID, f.MaxTXID)
	if f.Snapshot() {
		if err = s.begins.note(ctx, f, notes); err == nil {
			f.Object, err = s.uploader.CreateBase(ctx, key, body, notes)
		}
		return f, err
	}
	if f.Object, err = s.uploader.Create(ctx, key, body, notes); err == nil {
		s.compactor.Keep(f, path, notes)
	}
	return f, err
}

// stored records that f is durable in the replica; at is the time of its last segment.
func (s *shipper) stored(f store.LTXFile, at time.Time) {
	if !f.Snapshot() {
		s.upkeep.Due(shortLane, s.compactor.Add(f, at))
	}
	s.upkeep.Due(longLane, s.progress.Clock().Add(s.slack))
	s.source.backlog.Advance(s.progress, f, at)
}

// snapshot stores the whole database in place of segments that are no longer in the spool.
func (s *shipper) snapshot(ctx context.Context) error {
	if err := s.snapshots.take(ctx); err != nil {
		return err
	}
	return s.source.backlog.Release()
}
