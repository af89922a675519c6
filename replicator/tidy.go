package replicator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// lookEvery is how often it is looked whether the newest state can still be restored, of
// an idle database too: a lifecycle rule, or a person, may have removed what it rests on.
const lookEvery = 24 * time.Hour

// firstRetention is how soon after the start it is done: not when a hundred
// databases start at once, but also where sqlwatch never runs for an hour.
const firstRetention = 10 * time.Minute

// snapshotRetry is how long to wait after a scheduled snapshot failed: it is the
// most expensive thing to repeat.
const snapshotRetry = 5 * time.Minute

// slack is how long after a window's end its last commits may still arrive.
func (p *replica) slack() time.Duration { return p.o.SyncEvery + time.Second }

// tidy does what keeps a replica small and proven: compaction, snapshots,
// retention, drills. It runs beside the uploads and holds work only for
// moments. What fails here never holds uploads up: it is logged, counted and
// tried again after a while.
func (p *replica) tidy(ctx context.Context) {
	next, err := p.tasks(ctx)
	p.work.Lock()
	defer p.work.Unlock()
	if err != nil && ctx.Err() == nil {
		p.untidy++
		p.doubtAfter(err)
		next = p.now().Add(time.Second + patience(err, p.untidy))
		if p.messy.met(store.FailureReason(err), p.now()) {
			p.log.Warn("tidying the replica failed; uploads go on, trying again", "err", err)
		}
	} else {
		p.untidy = 0
		if p.messy.over() {
			p.log.Info("the replica is tidied up again")
		}
	}
	p.nextTidy = next
	p.tidying.Store(false)
	p.kick()
}

// tasks does everything that is due and returns when the next thing is; zero is
// never.
func (p *replica) tasks(ctx context.Context) (next time.Time, err error) {
	for _, task := range []func(context.Context) (time.Time, error){p.lookDue, p.compactAll, p.snapshotDue, p.retainDue, p.drillDue} {
		due, failed := task(ctx)
		err = errors.Join(err, failed) // the others are due nevertheless
		next = sooner(next, due)
	}
	return next, err
}

// snapshotDue takes the scheduled snapshot, if anything was written since the last.
func (p *replica) snapshotDue(ctx context.Context) (time.Time, error) {
	p.work.Lock()
	base := p.base
	p.work.Unlock()
	cursor, _ := p.position()
	if base == 0 || cursor <= base {
		return time.Time{}, nil
	}
	last := p.status().LastSnapshot
	if last.After(p.now()) {
		last = time.Time{} // taken while the clock was ahead
	}
	due := last.Add(p.o.SnapshotEvery)
	if again := p.snapped.Add(snapshotRetry); again.After(due) {
		due = again
	}
	if p.now().Before(due) {
		return due, nil
	}
	p.snapped = p.now()
	if err := p.lease.Hold(ctx); err != nil {
		return time.Time{}, err
	}
	f, at, err := p.stream(ctx)
	if err != nil {
		return time.Time{}, err
	}
	p.work.Lock()
	defer p.work.Unlock()
	p.snapshotStored(f, at)
	return time.Time{}, nil
}

// lookDue makes a plan for the newest state. Where there is none, that state is stored anew.
func (p *replica) lookDue(ctx context.Context) (time.Time, error) {
	cursor, _ := p.position()
	if cursor == 0 {
		return time.Time{}, nil
	}
	if due := p.looked.Add(lookEvery); p.now().Before(due) && !p.looked.After(p.now()) {
		return due, nil
	}
	p.looked = p.now()
	plan, err := catalog.MakePlan(ctx, p.store, catalog.Target{})
	if err == nil && plan.TXID < cursor {
		err = &catalog.GapError{From: plan.TXID + 1, To: cursor, Reached: plan.TXID}
	}
	if beyondRepair(err) {
		p.log.Error("somebody removed what the newest state rests on (a lifecycle rule?): taking a new snapshot at once", "err", err)
		return time.Time{}, errors.Join(fmt.Errorf("look at %s: %w", p.o.Name, err), p.repair(ctx))
	}
	return p.now().Add(lookEvery), err
}

// retainDue looks for files that nobody needs, now and then: they grow old on an idle
// replica too.
func (p *replica) retainDue(ctx context.Context) (time.Time, error) {
	if cursor, _ := p.position(); cursor == 0 {
		return time.Time{}, nil
	}
	if p.now().Before(p.retained) {
		return p.retained, nil
	}
	p.retained = p.now().Add(max(retention.Often, p.o.Retention.Grace)) // also when it fails: a refused deletion must not cost a listing every few seconds
	if err := p.retain(ctx); err != nil {
		return time.Time{}, err
	}
	if !p.ledger.Waits() {
		p.retained = p.now().Add(p.o.Retention.Period())
	}
	return p.retained, nil
}

// drillDue runs the scheduled restore drill.
func (p *replica) drillDue(ctx context.Context) (time.Time, error) {
	cursor, _ := p.position()
	if p.o.VerifyEvery <= 0 || cursor == 0 {
		return time.Time{}, nil
	}
	last := p.status().LastVerified
	if last.IsZero() || last.After(p.now()) {
		last = p.began
	}
	due := last.Add(p.o.VerifyEvery)
	if again := p.drilled.Add(p.o.VerifyEvery / 10); again.After(due) {
		due = again
	}
	if p.now().Before(due) {
		return due, nil
	}
	p.drilled = p.now()
	if err := p.verify(ctx); err != nil {
		return time.Time{}, err
	}
	return p.now().Add(p.o.VerifyEvery), nil
}

// sooner ignores zero times.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// compactAll merges every window that is over and returns when the next one is.
func (p *replica) compactAll(ctx context.Context) (due time.Time, err error) {
	for i, interval := range compactionIntervals {
		next, failed := p.compactLevel(ctx, i+1, interval)
		due, err = sooner(due, next), errors.Join(err, failed)
	}
	p.work.Lock()
	defer p.work.Unlock()
	done := p.done[len(compactionIntervals)]
	p.forget(func(f store.LTXFile) bool { return f.MaxTXID <= done })
	return due, err
}

func (p *replica) compactLevel(ctx context.Context, level int, interval time.Duration) (due time.Time, err error) {
	for {
		w := p.nextWindow(level, interval)
		switch {
		case len(w.Inputs) > 0:
			if err := p.compactWindow(ctx, w); err != nil {
				return due, err
			}
		case w.Due.IsZero():
			return due, nil
		default:
			return w.Due.Add(p.slack()), nil
		}
	}
}

// nextWindow plans, and passes over what needs no work.
func (p *replica) nextWindow(level int, interval time.Duration) catalog.Window {
	p.work.Lock()
	defer p.work.Unlock()
	for {
		w := catalog.NextWindow(p.recent, level, p.done[level], interval, p.now().Add(-p.slack()), p.when)
		if len(w.Inputs) != 1 {
			if len(w.Inputs) == 0 {
				p.done[level] = w.Until
			}
			return w
		}
		p.done[level] = w.Until
	}
}

// compactWindow merges one window. Where an input is lost, neither the newest state
// nor what comes behind it is to be lost with it: a snapshot is taken at once, and
// compaction goes on around the gap.
func (p *replica) compactWindow(ctx context.Context, w catalog.Window) error {
	if err := p.lease.Hold(ctx); err != nil {
		return err
	}
	f, err := p.compact(ctx, w)
	p.work.Lock()
	defer p.work.Unlock()
	if lost := (*lostError)(nil); errors.As(err, &lost) {
		p.log.Error("the replica's past has a gap where a file was", "err", err)
		p.forget(func(f store.LTXFile) bool { return f.Object.Key == lost.file.Object.Key })
		if lost.file.MaxTXID > p.base {
			p.base = 0
		}
		return nil
	}
	if err != nil {
		return err
	}
	p.times[f.Object.Key] = p.when(w.Inputs[len(w.Inputs)-1])
	p.remember(f)
	p.done[w.Level] = w.Until
	p.update(func(s *ReplicaStatus) { s.StoredBytes += f.Object.Size })
	return nil
}

// maxRecent is how many files may wait for compaction.
const maxRecent = 1 << 14

// remember keeps f for compaction. Where that fails for hours, the oldest files are
// passed over: they stay as they are, and restores read more of them.
func (p *replica) remember(f store.LTXFile) {
	if len(p.recent) == maxRecent {
		for _, old := range p.recent[:maxRecent/2] {
			delete(p.times, old.Object.Key)
		}
		p.recent = slices.Delete(p.recent, 0, maxRecent/2)
	}
	p.recent = append(p.recent, f)
}

// forget drops files that compaction is not to ask for again.
func (p *replica) forget(gone func(store.LTXFile) bool) {
	p.recent = slices.DeleteFunc(p.recent, func(f store.LTXFile) bool {
		if !gone(f) {
			return false
		}
		delete(p.times, f.Object.Key)
		return true
	})
}

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
	cursor, _ := p.position()
	result, err := restore.Run(ctx, p.store, restore.Options{Output: filepath.Join(scratch, "drill.db"), Check: restore.CheckFull, Leave: restore.DrillLeaves, Reach: cursor})
	if err == nil && !result.Compared {
		p.log.Warn("the drill restored a database whose checksum the replica does not tell: integrity was checked, identity was not")
	}
	if err != nil {
		if ctx.Err() == nil {
			p.failedDrills.Add(1)
			p.update(func(s *ReplicaStatus) { s.DrillErr = err.Error() })
		}
		if beyondRepair(err) {
			p.log.Error("the replica cannot be restored: taking a new snapshot at once", "err", err)
			err = errors.Join(err, p.repair(ctx))
		}
		return fmt.Errorf("verify %s: %w", p.o.Name, err)
	}
	took := p.now().Sub(start)
	p.update(func(s *ReplicaStatus) { s.LastVerified, s.VerifyDuration, s.DrillErr = start, took, "" })
	p.log.Info("the replica was restored in a drill", "txid", result.TXID, "took", took)
	return p.save(func(s *saved) { s.Verified, s.At = result.Objects, start.UTC() })
}

// repair makes the next turn store the newest state anew. Where a snapshot of it is
// there already, it may be what is damaged and cannot be replaced: then a new chain
// begins, with TXIDs that nothing has used.
func (p *replica) repair(ctx context.Context) error {
	defer p.kick()
	p.work.Lock()
	defer p.work.Unlock()
	if _, known := p.position(); !known {
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
