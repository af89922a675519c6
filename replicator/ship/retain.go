package ship

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
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

// retain lists the replica, forgets what became needed again, and deletes what
// has been unneeded for the grace period. It returns what the replica holds.
func (p *replica) retain(ctx context.Context) error {
	files, err := p.listDated(ctx)
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
	p.publishHoldings(files)
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
	p.forget(func(f replicator.LTXFile) bool { return deleted[f.Object.Key] })
	p.work.Unlock()
	p.log.Info("retention removed files", "files", len(gone))
	return nil
}

// listDated lists every file. Where listing does not tell a file's time, it is
// that of its upload: never earlier than its newest batch, so nothing is taken
// for older than it is.
func (p *replica) listDated(ctx context.Context) ([]catalog.Dated, error) {
	var files []catalog.Dated
	for object, err := range p.store.List(ctx, "0", "") {
		if err != nil {
			return nil, err
		}
		level, min, max, err := replicator.ParseLTXKey(object.Key)
		if err != nil {
			continue
		}
		f := catalog.Dated{LTXFile: replicator.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object}, At: object.Modified}
		if t, ok := replicator.MetadataTime(object.Metadata); ok {
			f.At = t
		}
		f.At = p.past(f.At, f.LTXFile)
		files = append(files, f)
	}
	return files, nil
}

// publishHoldings tells Status what the replica holds.
func (p *replica) publishHoldings(files []catalog.Dated) {
	var bytes int64
	var oldest, newest time.Time
	for _, f := range files {
		bytes += f.Object.Size
		if f.Snapshot() {
			if oldest.IsZero() || f.At.Before(oldest) {
				oldest = f.At
			}
			if f.At.After(newest) {
				newest = f.At
			}
		}
	}
	p.update(func(s *ReplicaStatus) {
		s.StoredBytes, s.OldestRestorePoint = bytes, oldest
		if newest.After(s.LastSnapshot) {
			s.LastSnapshot = newest
		}
	})
}
