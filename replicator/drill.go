package replicator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// verify is a restore drill: it restores the newest state into a scratch
// directory, checks it in full and leaves nothing. A replica that cannot be restored gets a new snapshot at
// once: what is broken in the past is reported, the future is made good.
func (p *replica) verify(ctx context.Context) (err error) {
	scratch, err := os.MkdirTemp(p.scratch, "verify-")
	if err != nil {
		return fmt.Errorf("verify %s: %w", p.o.Name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	start := p.now()
	cursor, _ := p.progress.position()
	result, err := restore.Run(ctx, p.store, restore.Options{
		Output: filepath.Join(scratch, "drill.db"), Check: restore.CheckFull, Leave: restore.DrillLeaves, Reach: cursor,
	})
	if err == nil && !result.Compared {
		p.log.Warn("the drill restored a database whose checksum the replica does not tell: integrity was checked, " +
			"identity was not")
	}
	if err != nil {
		if ctx.Err() == nil {
			p.failedDrills.Add(1)
			p.progress.update(func(s *ReplicaStatus) { s.DrillErr = err.Error() })
		}
		if beyondRepair(err) {
			p.log.Error("the replica cannot be restored: taking a new snapshot at once", "err", err)
			err = errors.Join(err, p.repair(ctx))
		}
		return fmt.Errorf("verify %s: %w", p.o.Name, err)
	}
	took := p.now().Sub(start)
	p.progress.update(func(s *ReplicaStatus) { s.LastVerified, s.VerifyDuration, s.DrillErr = start, took, "" })
	p.log.Info("the replica was restored in a drill", "txid", result.TXID, "took", took)
	return p.saved.Change(func(s *custody.Saved) { s.Verified, s.At = result.Objects, start.UTC() })
}

// repair makes the next turn store the newest state anew. Where a snapshot of it is
// there already, it may be what is damaged and cannot be replaced: then a new chain
// begins, with TXIDs that nothing has used.
func (p *replica) repair(ctx context.Context) error {
	defer p.worker.Kick()
	p.work.Lock()
	defer p.work.Unlock()
	if _, known := p.progress.position(); !known {
		return nil // perhaps another's
	}
	p.base = 0
	last := p.r.spool().Position()
	_, _, err := p.store.Get(ctx, store.LTXKey(store.SnapshotLevel, 1, last.TXID), 0, 0)
	if err != nil {
		return nil // it is not there, or the next drill will see
	}
	return p.r.rebase(ctx, last.TXID, time.UnixMilli(last.Timestamp))
}

// beyondRepair says whether asking again can help no more.
func beyondRepair(err error) bool {
	var gap *catalog.GapError
	var corrupt *store.CorruptError
	var sum *restore.ChecksumError
	return errors.As(err, &gap) || errors.As(err, &corrupt) || errors.As(err, &sum) || errors.Is(err, catalog.ErrEmpty)
}
