package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// How often it is looked whether the newest state can still be restored, of an idle database
// too: a lifecycle rule, or a person, may have removed what it rests on. A look at its first
// and last file costs two requests, a plan as many as the replica has levels, and more. In a
// directory a look is two calls of stat.
const (
	lookEvery     = time.Hour
	lookNearEvery = 10 * time.Second
	planEvery     = 24 * time.Hour
)

// looksEvery is how often to look at what is in a store.
func looksEvery(st store.Store) time.Duration {
	if _, near := store.As[store.Directory](st); near {
		return lookNearEvery
	}
	return lookEvery
}

// mender looks whether a replica's newest state is there, and stores it again where it
// is not: what is broken in the past is reported, the future is made good.
type mender struct {
	name     string
	log      *slog.Logger
	store    store.Store
	every    time.Duration // see looksEvery
	source   *source
	progress *progress.Progress
	opener   *opener
	work     *sync.Mutex // see replica
	worker   *worker.Worker

	looked, planned time.Time // the short lane's
}

// repair makes the next turn store the newest state again. Where a snapshot of it is
// there already, it may be what is corrupt and cannot be replaced: then a new chain
// begins, with TXIDs that nothing has used.
func (m *mender) repair(ctx context.Context) error {
	return m.anew(ctx, func() error {
		m.progress.Lost(progress.ForEver)
		last := m.source.backlog.Spool().Position()
		_, _, err := m.store.Get(ctx, store.LTXKey(store.SnapshotLevel, 1, last.TXID), 0, 0)
		if err != nil {
			return nil // it is not there, or the next drill will see
		}
		return m.source.rebase(ctx, last.TXID, time.UnixMilli(last.Timestamp))
	})
}

// anew does f before anything else is stored, unless the replica is not known any more:
// then it is perhaps another's.
func (m *mender) anew(ctx context.Context, f func() error) error {
	defer m.worker.Kick()
	m.work.Lock()
	defer m.work.Unlock()
	if _, known := m.progress.Position(); !known {
		return nil
	}
	return f()
}

// lookDue looks at the ends of the newest state, and once a day makes a plan for it.
func (m *mender) lookDue(ctx context.Context) (time.Time, error) {
	cursor, _ := m.progress.Position()
	if cursor == 0 {
		return time.Time{}, nil
	}
	now := m.progress.Clock()
	if due := m.looked.Add(m.every); now.Before(due) && !m.looked.After(now) {
		return due, nil
	}
	m.looked = now
	if due := m.planned.Add(planEvery); now.Before(due) && !m.planned.After(now) {
		if there, err := m.there(ctx); there || err != nil {
			return now.Add(m.every), err
		}
	}
	_, err := m.plan(ctx)
	if err == nil {
		m.planned = now
	}
	return now.Add(m.every), err
}

// there reports whether the ends of the newest state are.
func (m *mender) there(ctx context.Context) (bool, error) {
	ends := m.progress.Ends()
	for _, key := range slices.Compact([]string{ends.First, ends.Last}) {
		if key == "" {
			return false, nil
		}
		_, _, err := m.store.Get(ctx, key, 0, 0)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at %s: %w", m.name, err)
		}
	}
	return true, nil
}

// plan makes a plan for the newest state. Where there is none, that state is stored again:
// mended, with the reason as the error. Others may stand in for the ends that were known:
// merged files do.
func (m *mender) plan(ctx context.Context) (mended bool, err error) {
	cursor, _ := m.progress.Position()
	known := m.progress.Ends()
	plan, err := catalog.MakePlan(ctx, m.store, catalog.Target{})
	short := err == nil && plan.TXID < cursor
	switch {
	case short:
		err = &catalog.GapError{From: plan.TXID + 1, To: cursor, Reached: plan.TXID}
	case err == nil:
		files := plan.Files
		m.progress.SetEnds(known, progress.Ends{First: files[0].Object.Key, Last: files[len(files)-1].Object.Key})
		return false, nil
	case !beyondRepair(err) && !errors.Is(err, store.ErrMisplaced):
		return false, fmt.Errorf("look at %s: %w", m.name, err)
	}
	m.log.Error("files that the newest state needs were removed (by a lifecycle rule?): storing it again now",
		"err", err)
	err = fmt.Errorf("look at %s: %w", m.name, err)
	told := 0
	m.progress.Update(func(s *ReplicaStatus) { told = s.LostFiles })
	// Lease and lineage may be gone as well. What the spool still has of an end is stored again.
	err = errors.Join(err, m.anew(ctx, func() error {
		m.progress.Doubt(m.source.backlog.CaughtUp)
		return m.opener.open(ctx)
	}))
	if !short && m.progress.Snapshot() != 0 {
		err = errors.Join(err, m.repair(ctx))
	}
	m.progress.Update(func(s *ReplicaStatus) { s.LostFiles = max(s.LostFiles, told+1) })
	return true, err
}

// beyondRepair reports whether asking again can help no more.
func beyondRepair(err error) bool {
	var gap *catalog.GapError
	var corrupt *store.CorruptError
	var sum *restore.ChecksumError
	return errors.As(err, &gap) || errors.As(err, &corrupt) || errors.As(err, &sum) || errors.Is(err, catalog.ErrEmpty)
}
