package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// lookEvery is how often it is looked whether the newest state can still be restored, of
// an idle database too: a lifecycle rule, or a person, may have removed what it rests on.
const lookEvery = 24 * time.Hour

// mender looks whether a replica's newest state is there, and stores it anew where it
// is not: what is broken in the past is reported, the future is made good.
type mender struct {
	name     string
	log      *slog.Logger
	store    store.Store
	source   *source
	progress *progress.Progress
	work     *sync.Mutex // see replica
	kick     func()      // has the replica's worker take a turn

	looked time.Time // the short lane's
}

// repair makes the next turn store the newest state anew. Where a snapshot of it is
// there already, it may be what is damaged and cannot be replaced: then a new chain
// begins, with TXIDs that nothing has used.
func (m *mender) repair(ctx context.Context) error {
	defer m.kick()
	m.work.Lock()
	defer m.work.Unlock()
	if _, known := m.progress.Position(); !known {
		return nil // perhaps another's
	}
	m.progress.Lost(progress.ForEver)
	last := m.source.backlog.Spool().Position()
	_, _, err := m.store.Get(ctx, store.LTXKey(store.SnapshotLevel, 1, last.TXID), 0, 0)
	if err != nil {
		return nil // it is not there, or the next drill will see
	}
	return m.source.rebase(ctx, last.TXID, time.UnixMilli(last.Timestamp))
}

// lookDue makes a plan for the newest state. Where there is none, that state is stored anew.
func (m *mender) lookDue(ctx context.Context) (time.Time, error) {
	cursor, _ := m.progress.Position()
	if cursor == 0 {
		return time.Time{}, nil
	}
	now := m.progress.Clock()
	if due := m.looked.Add(lookEvery); now.Before(due) && !m.looked.After(now) {
		return due, nil
	}
	m.looked = now
	plan, err := catalog.MakePlan(ctx, m.store, catalog.Target{})
	if err == nil && plan.TXID < cursor {
		err = &catalog.GapError{From: plan.TXID + 1, To: cursor, Reached: plan.TXID}
	}
	if beyondRepair(err) {
		m.log.Error("somebody removed what the newest state rests on (a lifecycle rule?): taking a new snapshot at once",
			"err", err)
		return time.Time{}, errors.Join(fmt.Errorf("look at %s: %w", m.name, err), m.repair(ctx))
	}
	return m.progress.Clock().Add(lookEvery), err
}

// beyondRepair reports whether asking again can help no more.
func beyondRepair(err error) bool {
	var gap *catalog.GapError
	var corrupt *store.CorruptError
	var sum *restore.ChecksumError
	return errors.As(err, &gap) || errors.As(err, &corrupt) || errors.As(err, &sum) || errors.Is(err, catalog.ErrEmpty)
}
