package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// How often a replica is checked for whether its newest state can still be restored, even of an
// idle database: a lifecycle rule or a person may have removed files. Checking the first and the
// last file costs two requests, or two stat calls in a directory; making a plan costs at least
// one request for each level.
const (
	lookEvery     = time.Hour
	lookNearEvery = 10 * time.Second
	planEvery     = 24 * time.Hour
)

// looksEvery returns how often to check a replica in st.
func looksEvery(st store.Store) time.Duration {
	if _, near := store.As[store.Directory](st); near {
		return lookNearEvery
	}
	return lookEvery
}

// mender checks whether a replica's newest state is still there, and stores it again if not.
// Lost restore points of the past are reported; later ones are restorable again.
type mender struct {
	name     string
	log      *slog.Logger
	store    store.Store
	every    time.Duration // see looksEvery
	source   *source
	progress *progress.Progress
	opener   *opener
	work     *sync.Mutex // replica.work
	worker   *worker.Worker
	lost     func(txid ltx.TXID, useless ...string) error // see replica.lost

	looked, planned time.Time // used by the short lane only
}

// repair makes the next turn store the newest state again. If the replica already has a
// snapshot of that TXID, it may be the corrupt file, and stored files are never replaced:
// then a new chain begins, with unused TXIDs. useless are the keys of files found corrupt or unreadable.
func (m *mender) repair(ctx context.Context, useless ...string) error {
	return m.anew(ctx, func() error {
		noted := m.lost(progress.ForEver, useless...)
		last := m.source.backlog.Spool().Position()
		_, _, err := m.store.Get(ctx, store.LTXKey(store.SnapshotLevel, 1, last.TXID), 0, 0)
		if err != nil {
			return noted // it is not there; if the store only failed to answer, the next drill will tell
		}
		return errors.Join(noted, m.source.rebase(ctx, last.TXID, time.UnixMilli(last.Timestamp)))
	})
}

// anew calls f before anything else is stored, unless the replica has to be opened again:
// then it may belong to another writer.
func (m *mender) anew(ctx context.Context, f func() error) error {
	defer m.worker.Kick()
	m.work.Lock()
	defer m.work.Unlock()
	if _, known := m.progress.Position(); !known {
		return nil
	}
	return f()
}

// lookDue checks the first and the last file of the newest state, and once a day makes a plan for it.
func (m *mender) lookDue(ctx context.Context) (time.Time, error) {
	cursor, _ := m.progress.Position()
	if cursor == 0 {
		return time.Time{}, nil
	}
	now := m.progress.Clock()
	if due := m.looked.Add(m.every); now.Before(due) && !m.looked.After(now) {
		return due, nil
	}
	if due := m.planned.Add(planEvery); now.Before(due) && !m.planned.After(now) {
		there, err := m.there(ctx)
		if err != nil {
			return time.Time{}, err // the lane tries again soon
		}
		if there {
			m.looked = now
			return now.Add(m.every), nil
		}
	}
	mended, err := m.plan(ctx)
	if err == nil {
		m.planned = now
	}
	if err == nil || mended {
		m.looked = now
	}
	return now.Add(m.every), err
}

// there reports whether the first and the last file of the newest state are in the store.
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

// plan makes a plan for the newest state. If that fails because files are missing, it stores that
// state again and returns mended, with the reason as the error. A plan may end in other files than
// were known, because compaction has merged those.
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
	// Lease and lineage may be gone as well. Missing newest files that the spool still has are uploaded again.
	err = errors.Join(err, m.anew(ctx, func() error {
		m.progress.Doubt(m.source.backlog.CaughtUp)
		return m.opener.open(ctx)
	}))
	if !short && m.progress.Snapshot() != 0 {
		err = errors.Join(err, m.repair(ctx))
	}
	m.progress.Miss()
	return true, err
}

// beyondRepair reports whether err is a fault of the stored files, which no retry cures.
func beyondRepair(err error) bool {
	var gap *catalog.GapError
	var corrupt *store.CorruptError
	var sum *restore.ChecksumError
	return errors.As(err, &gap) || errors.As(err, &corrupt) || errors.As(err, &sum) || errors.Is(err, catalog.ErrEmpty)
}
