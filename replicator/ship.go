package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// Bounds of one upload of merged segments.
const (
	maxBatchSegments = 128
	maxBatchBytes    = 64 << 20
)

// shipper uploads what waits in the spool.
type shipper struct {
	name      string
	log       *slog.Logger
	scratch   string
	every     time.Duration // see ReplicaOptions.SyncEvery
	source    *source
	progress  *progress
	uploader  *upload.Uploader
	lease     *lease.Lease
	snapshots *snapshotter
	worker    *worker.Worker
	stored    func(store.LTXFile, spool.Segment) // told of each file, with its last segment

	lastPut time.Time // under replica.work
}

// sync ships what there is, once that is due. A positive wait says when it is.
func (s *shipper) sync(ctx context.Context) (time.Duration, error) {
	if wait := s.lastPut.Add(s.every).Sub(s.progress.clock()); wait > 0 && !s.worker.Urgent() {
		if s.waiting() {
			return wait, nil
		}
		return 0, nil
	}
	if _, err := s.source.step(ctx, true); err != nil && ctx.Err() == nil {
		// Capture reports its own trouble; what is in the spool can go out.
		s.log.Debug("sync goes on with what is spooled", "err", err)
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

// waiting reports whether anything is or will shortly be in the spool for us.
func (s *shipper) waiting() bool {
	cursor, _ := s.progress.position()
	return s.progress.snapshot() == 0 || len(s.source.backlog.spool().After(cursor)) > 0 || s.source.pending()
}

// ship uploads the next batch of segments, if there is one.
func (s *shipper) ship(ctx context.Context) (more bool, err error) {
	spool := s.source.backlog.spool() // before the position: who begins another chain casts doubt on that first
	cursor, known := s.progress.position()
	if !known {
		return false, nil // whoever doubts calls for a turn
	}
	newest := spool.Last() // before the look into the spool: what is missing there is gone then, not still to come
	segments := spool.After(cursor)
	switch {
	case len(segments) > 0:
	case s.progress.snapshot() == 0 && newest > 0:
		return false, s.snapshot(ctx) // nothing to restore from yet
	case cursor < newest:
		s.log.Info("what the replica lacks is no longer in the spool: taking a snapshot", "has", cursor, "newest", newest)
		return true, s.snapshot(ctx)
	default:
		return false, nil
	}
	if s.progress.snapshot() == 0 && !segments[0].Snapshot() || !segments[0].Snapshot() && segments[0].MinTXID != cursor+
		1 {
		s.log.Info("the replica lacks what is no longer in the spool: taking a snapshot", "has", cursor, "spool_from",
			segments[0].MinTXID)
		return true, s.snapshot(ctx)
	}
	if err := s.lease.Hold(ctx); err != nil {
		return false, err
	}
	batch := nextBatch(segments)
	s.lastPut = s.progress.clock()
	object, err := s.upload(ctx, batch)
	if err == nil {
		s.stored(object, batch[len(batch)-1])
		return true, s.source.backlog.letGo()
	}
	s.lastPut = time.Time{} // nothing was put: the next turn tries at once, and does not call this health
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrMisplaced) {
		return false, err
	}
	if again := spool.After(cursor); len(again) > 0 && again[0].Path == batch[0].Path {
		s.log.Error("a segment is gone from the spool: taking a snapshot", "segment", batch[0].Path)
		return true, s.snapshot(ctx)
	}
	return true, nil // released meanwhile, because we were too far behind: the next look decides
}

// nextBatch cuts the segments that become one object: contiguous, of one page
// size, bounded. A snapshot is a batch of its own.
func nextBatch(segments []spool.Segment) []spool.Segment {
	n, bytes := 1, segments[0].Size
	if segments[0].Snapshot() {
		return segments[:1]
	}
	for n < len(segments) && n < maxBatchSegments && !segments[n].Snapshot() &&
		segments[n].PageSize == segments[0].PageSize && bytes+segments[n].Size <= maxBatchBytes {
		bytes += segments[n].Size
		n++
	}
	return segments[:n]
}

// upload stores a batch as one object of level 0, or as a snapshot.
func (s *shipper) upload(ctx context.Context, batch []spool.Segment) (store.LTXFile, error) {
	first, last := batch[0], batch[len(batch)-1]
	f := store.LTXFile{MinTXID: first.MinTXID, MaxTXID: last.MaxTXID}
	if first.Snapshot() {
		f.Level = store.SnapshotLevel
	}
	body := store.Body{Size: first.Size, SHA256: first.SHA256, Open: func() (io.ReadCloser, error) {
		return os.Open(first.Path)
	}}
	if len(batch) > 1 {
		m, err := mergeSegments(ctx, s.scratch, "ship-"+custody.FileName(s.name), batch)
		if err != nil {
			return store.LTXFile{}, err
		}
		defer m.Discard()
		body = m.Body
	}
	var err error
	f.Object, err = s.uploader.Create(ctx, store.LTXKey(f.Level, f.MinTXID, f.MaxTXID), body, notes(batch, body.SHA256))
	return f, err
}

func mergeSegments(ctx context.Context, dir, name string, batch []spool.Segment) (*merge.Merged, error) {
	inputs := make([]io.Reader, len(batch))
	for i, s := range batch {
		f, err := os.Open(s.Path)
		if err != nil {
			return nil, fmt.Errorf("merge segments: %w", err)
		}
		defer f.Close()
		inputs[i] = f
	}
	return merge.Files(ctx, dir, name, inputs)
}

// notes are the metadata of a batch: of the state after it.
func notes(batch []spool.Segment, sha256 string) map[string]string {
	last := batch[len(batch)-1]
	m := map[string]string{
		store.MetaTimestamp: last.Timestamp.UTC().Format(time.RFC3339Nano),
		store.MetaChecksum:  last.Checksum.String(),
		store.MetaLineage:   last.Lineage,
		store.MetaSHA256:    sha256,
	}
	moment.Merged(batch[0].Stamp(), last.Stamp()).Put(m)
	for _, segment := range batch {
		if segment.Reason != "" {
			m[store.MetaReason] = segment.Reason
		}
	}
	return m
}

// snapshot stores the whole database in place of what is no longer in the spool.
func (s *shipper) snapshot(ctx context.Context) error {
	if err := s.snapshots.take(ctx); err != nil {
		return err
	}
	return s.source.backlog.release()
}
