package replicator

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// RetentionOptions say what a replica keeps.
type RetentionOptions = retention.Options

// retain lists the replica, forgets what became needed again, and deletes what
// has been unneeded for the grace period, by a clock that the store agrees with.
func (p *replica) retain(ctx context.Context) error {
	now, o := p.now(), p.o.Retention
	files, total, err := p.listOld(ctx, now)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	line := p.progress.lineage()
	unneeded := slices.DeleteFunc(catalog.Unneeded(files, o.Keep, o.Thin, now, p.saved.Get().VerifiedKeys()),
		func(f catalog.Dated) bool {
			return line.Spared(f.MaxTXID, now) // of another lineage, which is kept for its own time
		})
	gone := p.ledger.Due(unneeded, total, o.Grace, now)
	if len(gone) == 0 {
		return nil
	}
	stores, err := p.storeTime(ctx)
	if err == nil {
		_, err = retention.Now(p.now(), stores)
	}
	if err == nil {
		err = p.lease.Hold(ctx)
	}
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	err = p.store.Delete(ctx, gone...)
	p.ledger.Deleted(gone, err != nil)
	if err != nil {
		return fmt.Errorf("retention: %w; what could be deleted is", err)
	}
	deleted := make(map[string]bool, len(gone))
	for _, key := range gone {
		deleted[key] = true
	}
	p.compactor.Forget(func(f store.LTXFile) bool { return deleted[f.Object.Key] })
	p.log.Info("retention removed files", "files", len(gone))
	return nil
}

// storeTime returns what the store's clock shows, by writing a note and asking for its
// time. Zero: it does not tell.
func (p *replica) storeTime(ctx context.Context) (time.Time, error) {
	const key = "sqlwatch/clock"
	body := store.Body{Size: 1, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("\n")), nil }}
	if _, err := p.store.Put(ctx, key, body, store.PutOptions{}); err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	_, object, err := p.store.Get(ctx, key, 0, 0)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	return object.Modified, nil
}

// listOld lists the files of which some may be unneeded, and tells Status what the
// replica holds in all.
func (p *replica) listOld(ctx context.Context, now time.Time) (old []catalog.Dated, total int, err error) {
	var snapshots []catalog.Dated
	for f, err := range p.listDated(ctx, store.LevelPrefix(store.SnapshotLevel)) {
		if err != nil {
			return nil, 0, err
		}
		snapshots = append(snapshots, f)
	}
	var bytes int64
	wanted := catalog.Sift(snapshots, p.o.Retention.Keep, p.o.Retention.Thin, now)
	for f, err := range p.listDated(ctx, "0") {
		if err != nil {
			return nil, 0, err
		}
		bytes += f.Object.Size
		total++
		if wanted(f) {
			old = append(old, f)
		}
	}
	p.progress.update(func(s *ReplicaStatus) {
		s.StoredBytes, s.OldestRestorePoint = bytes, time.Time{}
		for _, f := range snapshots {
			if s.OldestRestorePoint.IsZero() || f.At.Before(s.OldestRestorePoint) {
				s.OldestRestorePoint = f.At
			}
			if f.At.After(s.LastSnapshot) {
				s.LastSnapshot = f.At
			}
		}
	})
	return old, total, nil
}

// listDated lists the files whose key has the prefix. Their time is that of the upload by
// the store's clock: never earlier than the newest batch, so nothing is taken for older
// than it is, and never the clock's that may have been ahead when a batch was taken.
func (p *replica) listDated(ctx context.Context, prefix string) iter.Seq2[catalog.Dated, error] {
	return func(yield func(catalog.Dated, error) bool) {
		for object, err := range p.store.List(ctx, prefix, "") {
			if err != nil {
				yield(catalog.Dated{}, err)
				return
			}
			level, min, max, err := store.ParseLTXKey(object.Key)
			if err != nil {
				continue
			}
			f := catalog.Dated{LTXFile: store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object},
				At: object.Modified}
			f.At, f.Object.Metadata = catalog.Past(p.now(), f.At, f.LTXFile), nil
			if !yield(f, nil) {
				return
			}
		}
	}
}
