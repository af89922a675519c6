package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// Options are what a Replicator is made of.
type Options struct {
	Name string // the database's configured name

	// Files returns the database's open files, nil while there are none. After
	// the database was replaced it returns new ones.
	Files    func() *dbfile.Files
	StateDir string          // of this database alone
	Capture  capture.Options // bounds only: Name, Files, StateDir, Logger, Clock and Recover are filled in
	Replicas []ReplicaOptions

	Owner     string        // who writes, in leases and messages; "": host and database
	Boot      string        // since when this machine runs, in leases; "": the kernel's boot id
	FinalSync time.Duration // how long the last sync may take at shutdown; 0: 30 s
	Outstay   func() bool   // asked at the end: shall it go on while others use the database? nil: no
	Metrics   *Metrics      // may be nil
	Logger    *slog.Logger
	Clock     func() time.Time // time.Now if nil
}

// Replicator captures one database and ships it to its replicas. Each replica
// has a position of its own; none waits for another, and capture waits for none
// until the spool is full.
//
// Run is the only long-lived goroutine. Each replica has one more, only while
// there is something to ship or to tidy up.
type Replicator struct {
	o        Options
	log      *slog.Logger
	replicas []*replica
	wake     chan struct{}
	made     time.Time // no file of ours is older, by the system's clock
	custody  *custody.Custody
	which    atomic.Pointer[identity]

	// held for reading while the capture is used, for writing while it is opened or closed
	life     sync.RWMutex
	capture  *capture.Capture // nil while closed
	views    context.Context
	endView  context.CancelFunc
	files    *dbfile.Files // of the open capture
	released *dbfile.Files // not to be used again: their owner is about to close them
	counted  map[string]uint64
	lost     map[string]uint64 // of all captures together, under mu

	segments atomic.Pointer[spool.Spool]

	told   told // Run's: the last news for the replicas
	toldAt time.Time

	mu       sync.Mutex
	marks    []mark         // ascending
	letGoAt  time.Time      // when segments were last released
	captured error          // of the last step
	blocked  worker.Trouble // what keeps it from advancing
	gathers  bool           // commits were met that are not spooled yet
	shipping context.Context
	workers  sync.WaitGroup
}

// mark says that every commit before at has a TXID of at most txid.
type mark struct {
	txid ltx.TXID
	at   time.Time
}

// New returns a Replicator that does nothing before Run. Its metrics are exported
// from now on, until Forget.
func New(o Options) (*Replicator, error) {
	if o.Name == "" || o.Files == nil || o.StateDir == "" {
		return nil, errors.New("replicator: name, files and state directory are required")
	}
	o.FinalSync = cmp.Or(o.FinalSync, 30*time.Second)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Owner == "" {
		o.Owner = defaultOwner(o.Name)
	}
	if o.Boot == "" {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, a lease of our own is waited for after a crash
		o.Boot = strings.TrimSpace(string(id))
	}
	r := &Replicator{o: o, log: o.Logger.With("db", o.Name), made: time.Now().Add(-time.Second),
		wake: make(chan struct{}, 1), counted: map[string]uint64{}, lost: map[string]uint64{}}
	r.shipping = context.Background()
	r.custody = custody.New(o.StateDir)
	names := map[string]bool{}
	for _, ro := range o.Replicas {
		if ro.Name == "" || ro.Store == nil || names[ro.Name] {
			return nil, fmt.Errorf("replicator %s: replica %q needs a store and a name of its own", o.Name, ro.Name)
		}
		names[ro.Name] = true
		r.replicas = append(r.replicas, newReplica(r, ro))
	}
	if o.Metrics != nil {
		o.Metrics.add(r)
	}
	return r, nil
}

// Forget ends the export of its metrics: the database is no longer replicated.
// Until then they are there, whether Run runs or not.
func (r *Replicator) Forget() {
	if r.o.Metrics != nil {
		r.o.Metrics.remove(r)
	}
}

// defaultOwner tells hosts apart, also those that were cloned with their names.
func defaultOwner(name string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) >= 8 {
		host += "-" + string(id[:8])
	}
	return host + "/" + name
}

// Name returns the database's name.
func (r *Replicator) Name() string { return r.o.Name }

// Run captures and ships until ctx ends; then it ships what is left within
// Options.FinalSync, gives its leases up and returns nil. A second cancellation
// is the caller's: it exits.
func (r *Replicator) Run(ctx context.Context) error {
	if err := durable.MkdirAll(r.scratchDir(), 0o700); err != nil {
		return fmt.Errorf("replicate %s: %w", r.o.Name, err)
	}
	err := r.custody.Load()
	for _, p := range r.replicas {
		err = errors.Join(err, p.saved.Load())
		p.progress.update(func(s *ReplicaStatus) { s.LastVerified = p.saved.Get().At })
	}
	if err != nil {
		return fmt.Errorf("replicate %s: %w", r.o.Name, err)
	}
	shipping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.mu.Lock()
	r.shipping = shipping
	r.mu.Unlock()
	for _, p := range r.replicas {
		p.worker.Kick()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			continue
		case <-r.wake:
		case <-timer.C:
		}
		next, err := r.turn(ctx)
		if r.note(err); err != nil {
			failures++
			next = min(worker.Backoff(failures), captureRetry)
		} else {
			failures = 0
		}
		timer.Reset(next)
	}
	return r.finish(ctx, stop)
}

// startWorker runs a replica's goroutine, unless there are to be none any more.
func (r *Replicator) startWorker(run func(context.Context)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx := r.shipping
	if ctx.Err() != nil {
		return false
	}
	r.workers.Go(func() { run(ctx) })
	return true
}

// captureRetry is how long capture waits at most after an error: a look costs
// nothing, and what is missed meanwhile costs a diff.
const captureRetry = 2 * time.Second

// finish is the designed end: last sync, leases, workers, capture.
func (r *Replicator) finish(ctx context.Context, stop context.CancelFunc) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.FinalSync)
	defer cancel()
	r.outstay(last)
	err := r.SyncNow(last)
	if spool := r.spool(); errors.Is(err, ErrNotOpen) && spool != nil {
		err = r.each(last, func(p *replica) error { return p.syncTo(last, spool.Last()) })
	}
	if err != nil && !errors.Is(err, ErrNotOpen) {
		r.log.Warn("the last sync did not reach every replica: what is missing is in the spool and goes out after the next "+
			"start", "err", err)
	}
	r.mu.Lock()
	stop() // from here on, kick starts no worker
	r.mu.Unlock()
	r.workers.Wait()
	for _, p := range r.replicas {
		if err := p.lease.Release(last); err != nil {
			p.log.Warn("lease was not given up: another writer has to wait for its end", "err", err)
		}
	}
	return r.Release()
}

// Wake makes Run look for commits at once: something was heard of the files.
func (r *Replicator) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// turn captures what there is and tells the replicas.
func (r *Replicator) turn(ctx context.Context) (time.Duration, error) {
	if err := r.open(ctx); err != nil {
		return 0, err
	}
	got, err := r.step(ctx, false)
	if errors.Is(err, capture.ErrSpoolFull) {
		// What was shipped may not have been fit to go at that moment.
		err = errors.Join(err, r.release(r.spool()))
	}
	if err == nil {
		err = r.letGo()
	}
	if err != nil {
		return 0, err
	}
	// A replica that was told waits until its sync is due: telling it again
	// would only wake it. Now and then does no harm.
	news := told{got.TXID, !got.Pending.IsZero()}
	if now := r.o.Clock(); news != r.told || now.Sub(r.toldAt) >= tellAgain {
		r.told, r.toldAt = news, now
		for _, p := range r.replicas {
			if news.pending || p.progress.behind(news.txid) {
				p.worker.Kick()
			}
		}
	}
	return got.Next, nil
}

// told is what there is for the replicas to ship.
type told struct {
	txid    ltx.TXID // spooled
	pending bool     // met and not spooled
}

const tellAgain = time.Second

// pending says whether commits were met that are not in the spool yet.
func (r *Replicator) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gathers
}

// stuck says whether there may be commits that capture cannot read.
func (r *Replicator) stuck() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.captured != nil && !errors.Is(r.captured, ErrNotOpen)
}

// count notes what the capture's own counters rose by.
func (r *Replicator) count(lost map[string]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for reason, n := range lost {
		r.lost[reason] += n - r.counted[reason]
		r.counted[reason] = n
	}
}

// discontinuities returns how often continuity was lost for a reason.
func (r *Replicator) discontinuities(reason string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost[reason]
}

// spool returns the segments that wait, nil before the capture was first
// opened. It waits for nobody: Status asks at scrape.
func (r *Replicator) spool() *spool.Spool { return r.segments.Load() }

// To let go of segments takes several fsyncs, whatever their number; to keep them a
// while costs room only.
const (
	letGoEvery = 10 * time.Second
	letGoBytes = 8 << 20
)

// letGo releases segments once that is worth it.
func (r *Replicator) letGo() error {
	spool, now := r.spool(), r.o.Clock()
	held := spool.Bytes()
	r.mu.Lock()
	due := held > 0 && (now.Sub(r.letGoAt) >= letGoEvery ||
		held >= min(letGoBytes, cmp.Or(r.o.Capture.SpoolLimit, capture.DefaultSpoolLimit)/8))
	if due {
		r.letGoAt = now
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	return r.release(spool)
}

// release lets go of what every replica has. A replica that fails is not
// waited for when the spool runs full and another one does not: it gets a
// snapshot when it comes back.
func (r *Replicator) release(spool *spool.Spool) error {
	limit := cmp.Or(r.o.Capture.SpoolLimit, capture.DefaultSpoolLimit)
	r.mu.Lock()
	stopped := errors.Is(r.captured, capture.ErrSpoolFull) // until half of the limit is free
	r.mu.Unlock()
	crowded := stopped || spool.Bytes() > limit/4*3
	upTo, some := ltx.TXID(0), false
	for _, p := range r.replicas {
		cursor, _ := p.progress.position()
		if crowded && !p.progress.healthy() {
			continue
		}
		if !some || cursor < upTo {
			upTo, some = cursor, true
		}
	}
	if !some || upTo == 0 {
		return nil
	}
	return spool.Release(upTo)
}

// caughtUp is the latest instant before which every commit is in TXIDs up to txid.
func (r *Replicator) caughtUp(txid ltx.TXID) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at time.Time
	for _, m := range r.marks {
		if m.txid <= txid {
			at = m.at
		}
	}
	return at
}

// forget drops marks that no replica needs any more.
func (r *Replicator) forget() {
	least := ltx.TXID(0)
	for i, p := range r.replicas {
		if cursor, _ := p.progress.position(); i == 0 || cursor < least {
			least = cursor
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.marks) > 1 && r.marks[1].txid <= least {
		r.marks = r.marks[1:]
	}
	if len(r.marks) > 4096 { // a long outage: the oldest marks give a freshness that is too old, never too new
		r.marks = slices.Delete(r.marks, 1, len(r.marks)/2)
	}
}

// Checkpoint checkpoints the database without losing a commit. It implements
// watchdog.Checkpointer.
func (r *Replicator) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	r.life.RLock()
	defer r.life.RUnlock()
	if r.capture == nil {
		return sqlite.Result{Outcome: sqlite.OutcomeFailed}, fmt.Errorf("checkpoint %s: capture is closed", r.o.Name)
	}
	defer r.Wake()
	return r.capture.Checkpoint(ctx, mode, b)
}

// SyncNow returns when everything that was committed before the call is durable
// in every replica, or with what prevents it.
func (r *Replicator) SyncNow(ctx context.Context) error {
	for {
		chain := r.spool()
		txid, err := r.settled(ctx)
		if err != nil {
			return fmt.Errorf("sync %s: %w", r.o.Name, err)
		}
		if err := r.each(ctx, func(p *replica) error { return p.syncTo(ctx, txid) }); err != nil {
			return err
		}
		// A replica that was opened meanwhile may have had another writer's files: then
		// the TXID that it has is of another chain, and ours begins behind it.
		if r.spool() == chain {
			return nil
		}
	}
}

// settled captures until everything committed before the call is in the spool.
func (r *Replicator) settled(ctx context.Context) (ltx.TXID, error) {
	got, err := r.step(ctx, true)
	for err == nil && !got.Complete {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(got.Next):
			got, err = r.step(ctx, true)
		}
	}
	return got.TXID, err
}

// SnapshotNow takes a snapshot into every replica.
func (r *Replicator) SnapshotNow(ctx context.Context) error {
	return r.each(ctx, func(p *replica) error { return p.snapshotNow(ctx) })
}

// VerifyNow runs a restore drill from every replica and returns the first failure.
func (r *Replicator) VerifyNow(ctx context.Context) error {
	return r.each(ctx, func(p *replica) error { return p.verify(ctx) })
}

// each does f for all replicas in parallel.
func (r *Replicator) each(ctx context.Context, f func(*replica) error) error {
	errs := make([]error, len(r.replicas))
	var wg sync.WaitGroup
	for i, p := range r.replicas {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Status returns how far each replica has come, for samples.
func (r *Replicator) Status() []collector.Replica {
	var out []collector.Replica
	for i, s := range r.Replicas() {
		o := r.replicas[i].o
		out = append(out, collector.Replica{
			Reason: s.Reason, FailingSince: s.FailingSince, DrillErr: s.DrillErr, DrillSeconds: s.VerifyDuration.Seconds(),
			ObjectiveSeconds: s.Objective.Seconds(), SnapshotEverySeconds: o.SnapshotEvery.Seconds(),
			VerifyEverySeconds: o.VerifyEvery.Seconds(),
			StoredBytes:        s.StoredBytes, LastSnapshot: s.LastSnapshot, OldestRestorePoint: s.OldestRestorePoint,
			Name: s.Name, Healthy: s.Healthy, CaughtUp: s.CaughtUp, LagSeconds: s.LagSeconds, PendingBytes: s.PendingBytes,
			TXID: uint64(s.TXID), LastVerified: s.LastVerified, Err: s.Err, MonthlyUSD: s.MonthlyUSD,
		})
	}
	return out
}

// Captured returns what is spooled, and why commits are not captured, nil where they are.
func (r *Replicator) Captured() (spooled int64, err error) {
	if spool := r.spool(); spool != nil {
		spooled = spool.Bytes()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return spooled, r.captured
}

// Replicas returns everything known about each replica, without a request.
func (r *Replicator) Replicas() []ReplicaStatus {
	out := make([]ReplicaStatus, len(r.replicas))
	for i, p := range r.replicas {
		out[i] = p.status()
	}
	return out
}

func (r *Replicator) captureDir() string { return filepath.Join(r.o.StateDir, "capture") }
func (r *Replicator) replicaDir() string { return filepath.Join(r.o.StateDir, "replicas") }

// scratchDir is for files and directories that nobody needs after a crash.
func (r *Replicator) scratchDir() string { return filepath.Join(r.replicaDir(), "scratch") }
