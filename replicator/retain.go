package replicator

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// RetentionOptions say what a replica keeps.
type RetentionOptions struct {
	// Keep is the time for which every restore point stays reachable.
	Keep time.Duration
	// Grace is how long an unneeded file stays for restores under way. 0: one hour.
	Grace time.Duration
	// Thin gives, by level, the age at which a file may go although it is inside
	// Keep, once a higher level's file covers it: restore points become coarser
	// with age. 0, or a missing level, keeps the level's files for all of Keep.
	Thin []time.Duration
}

const defaultGrace = time.Hour

// period is how often to look: a day at most, and oftener where files live less long.
func (o RetentionOptions) period() time.Duration {
	shortest := o.Keep
	for _, age := range o.Thin {
		if age > 0 {
			shortest = min(shortest, age)
		}
	}
	return min(max(shortest/24, retainEvery), 24*time.Hour)
}

// retain lists the replica, forgets what became needed again, and deletes what
// has been unneeded for the grace period.
func (p *replica) retain(ctx context.Context) error {
	files, err := p.listOld(ctx)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	now := p.now()
	candidates := make(map[string]time.Time)
	var gone []string
	for _, f := range catalog.Unneeded(files, p.o.Retention.Keep, p.o.Retention.Thin, now, p.remembered().verifiedKeys()) {
		since, known := p.doomed[f.Object.Key]
		if !known {
			since = now
		}
		candidates[f.Object.Key] = since
		if now.Sub(since) >= p.o.Retention.Grace {
			gone = append(gone, f.Object.Key)
		}
	}
	p.doomed = candidates
	if len(gone) == 0 {
		return nil
	}
	if err := p.lease.Hold(ctx); err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	// Oldest first: a crash half way leaves a shorter past, never a gap in it.
	slices.SortFunc(gone, func(a, b string) int { return cmp.Compare(a[5:], b[5:]) })
	if err := p.store.Delete(ctx, gone...); err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	deleted := make(map[string]bool, len(gone))
	for _, key := range gone {
		deleted[key] = true
		delete(p.doomed, key)
	}
	p.work.Lock()
	p.forget(func(f store.LTXFile) bool { return deleted[f.Object.Key] })
	p.work.Unlock()
	p.log.Info("retention removed files", "files", len(gone))
	return nil
}

// listOld lists the files of which some may be unneeded, and tells Status what the
// replica holds in all.
func (p *replica) listOld(ctx context.Context) ([]catalog.Dated, error) {
	var snapshots, old []catalog.Dated
	for f, err := range p.listDated(ctx, store.LevelPrefix(store.SnapshotLevel)) {
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, f)
	}
	var bytes int64
	wanted := catalog.Sift(snapshots, p.o.Retention.Keep, p.o.Retention.Thin, p.now())
	for f, err := range p.listDated(ctx, "0") {
		if err != nil {
			return nil, err
		}
		bytes += f.Object.Size
		if wanted(f) {
			old = append(old, f)
		}
	}
	p.update(func(s *ReplicaStatus) {
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
	return old, nil
}

// listDated lists the files whose key has the prefix. Where listing does not tell
// a file's time, it is that of its upload: never earlier than its newest batch, so
// nothing is taken for older than it is.
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
			f := catalog.Dated{LTXFile: store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object}, At: object.Modified}
			if t, ok := store.MetadataTime(object.Metadata); ok {
				f.At = t
			}
			f.At, f.Object.Metadata = p.past(f.At, f.LTXFile), nil
			if !yield(f, nil) {
				return
			}
		}
	}
}
