package replicator

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
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

// lane is maintenance that one goroutine at a time does beside the uploads. What takes
// long and what is short are in lanes of their own, so that none waits for a snapshot.
type lane struct {
	tasks   []func(context.Context) (time.Time, error) // each returns when it is due again; zero is never
	running atomic.Bool
	next    time.Time      // under replica.work; zero: nothing to do
	worried int            // failures in a row
	trouble worker.Trouble // that was logged
}

// slack is how long after a window's end its last commits may still arrive.
func (p *replica) slack() time.Duration { return p.o.SyncEvery + time.Second }

// turnOf spreads what many replicas do at the same time of the hour: a number from 0 to
// 1 that stays the same for each.
func turnOf(db, replica string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(db + "\x00" + replica)) // never fails
	return float64(h.Sum32()) / (1 << 32)
}

// begin starts a lane if something is due in it, and returns how long until then. The
// caller holds work.
func (p *replica) begin(ctx context.Context, l *lane) time.Duration {
	if l.next.IsZero() || l.running.Load() {
		return -1
	}
	if wait := l.next.Sub(p.now()); wait > 0 {
		return wait
	}
	l.running.Store(true)
	p.r.workers.Go(func() { p.maintain(ctx, l) })
	return -1
}

// maintain does what is due in a lane. It holds work only for moments. What fails here
// never holds uploads up: it is logged, counted and tried again after a while.
func (p *replica) maintain(ctx context.Context, l *lane) {
	next, err := worker.Protected(ctx, l.run)
	p.work.Lock()
	defer p.work.Unlock()
	if err != nil && ctx.Err() == nil {
		l.worried++
		p.doubtAfter(err)
		next = p.now().Add(time.Second + pause(err, l.worried))
		if l.trouble.Met(reasonOf(err), p.now()) {
			p.log.Warn("maintenance of the replica failed; uploads go on, trying again", "err", err)
		}
	} else {
		l.worried = 0
		if l.trouble.Over() {
			p.log.Info("the replica is maintained again")
		}
	}
	p.progress.update(func(s *ReplicaStatus) { s.MaintenanceErr = troubleOf(p.lanes) })
	l.next = next
	l.running.Store(false)
	p.worker.Kick()
}

// pause is patience that goes on growing, to ten minutes: what failed for long is asked
// seldom, because each attempt may read much.
func pause(err error, failures int) time.Duration {
	wait := patience(err, failures)
	if failures > 5 && !errors.Is(err, lease.ErrConfirming) {
		wait = min(wait+time.Second<<min(failures, 10), 10*time.Minute)
	}
	return wait
}

// troubleOf names what is the matter with maintenance.
func troubleOf(lanes []*lane) string {
	for _, l := range lanes {
		if l.trouble.What() != "" {
			return l.trouble.What()
		}
	}
	return ""
}

// run does everything that is due and returns when the next thing is; zero is never.
func (l *lane) run(ctx context.Context) (next time.Time, err error) {
	for _, task := range l.tasks {
		due, failed := task(ctx)
		err = errors.Join(err, failed) // the others are due nevertheless
		next = sooner(next, due)
	}
	return next, err
}

// sooner ignores zero times.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// compactDue merges every window that is over. Where an input is lost, neither the
// newest state nor what comes behind it is to be lost with it: a snapshot is next.
func (p *replica) compactDue(ctx context.Context) (time.Time, error) {
	report, err := p.compactor.Run(ctx)
	p.progress.update(func(s *ReplicaStatus) {
		s.StoredBytes += report.Bytes
		s.LostFiles += len(report.Lost)
	})
	p.work.Lock()
	defer p.work.Unlock()
	for _, f := range report.Lost {
		if f.MaxTXID > p.base {
			p.base = 0
		}
	}
	return report.Due, err
}

// snapshotDue takes the scheduled snapshot, if anything was written since the last.
func (p *replica) snapshotDue(ctx context.Context) (time.Time, error) {
	p.work.Lock()
	base := p.base
	p.work.Unlock()
	cursor, _ := p.progress.position()
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
	cursor, _ := p.progress.position()
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
		p.log.Error("somebody removed what the newest state rests on (a lifecycle rule?): taking a new snapshot at once",
			"err", err)
		return time.Time{}, errors.Join(fmt.Errorf("look at %s: %w", p.o.Name, err), p.repair(ctx))
	}
	return p.now().Add(lookEvery), err
}

// retainDue looks for files that nobody needs, now and then: they grow old on an idle
// replica too.
func (p *replica) retainDue(ctx context.Context) (time.Time, error) {
	if cursor, _ := p.progress.position(); cursor == 0 {
		return time.Time{}, nil
	}
	if p.now().Before(p.retained) {
		return p.retained, nil
	}
	// also when it fails: a refused deletion must not cost a listing every few seconds
	p.retained = p.now().Add(max(retention.Often, p.o.Retention.Grace))
	if err := p.retain(ctx); err != nil {
		return time.Time{}, err
	}
	store.Sweep(ctx, p.store, p.now(), p.log)
	if !p.ledger.Waits() {
		p.retained = p.now().Add(p.o.Retention.Period())
	}
	return p.retained, nil
}

// drillDue runs the scheduled restore drill.
func (p *replica) drillDue(ctx context.Context) (time.Time, error) {
	cursor, _ := p.progress.position()
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

// doubtAfter makes the next turn look at the replica anew where err says that it is not
// what it was.
func (p *replica) doubtAfter(err error) {
	for _, anew := range []error{lease.ErrMoved, lease.ErrFenced, store.ErrMisplaced} {
		if errors.Is(err, anew) {
			p.progress.doubt(p.r.caughtUp)
		}
	}
}

// patience is the wait after err: what only a person can cure is not asked often, and
// who has the lease in our place least of all.
func patience(err error, failures int) time.Duration {
	if errors.Is(err, lease.ErrConfirming) {
		return 500 * time.Millisecond
	}
	for _, slow := range []error{custody.ErrForeign, lease.ErrFenced} {
		if errors.Is(err, slow) {
			return time.Second + min(worker.Backoff(failures)<<min(failures, 5), 5*time.Minute)
		}
	}
	for _, slow := range []error{store.ErrAuth, store.ErrMisplaced, lease.ErrHeld} {
		if errors.Is(err, slow) {
			return min(worker.Backoff(failures)*4, 30*time.Second)
		}
	}
	return worker.Backoff(failures)
}
