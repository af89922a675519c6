package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
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

	// Names has told called as soon as one of the names in a directory may lead to another
	// file or to none, until stop is called; nil, or an error: that is seen at the next look.
	Names func(dir string, names []string, told func()) (stop func(), err error)

	Queue     *queue.Queue  // of the databases that are read from end to end; nil: nobody waits
	Owner     string        // who writes, in leases and messages; "": host and database
	Boot      string        // since when this machine runs, in leases; "": the kernel's boot id
	FinalSync time.Duration // how long the last sync may take at shutdown; 0: 30 s
	Outstay   func() bool   // asked at the end: shall it continue while others use the database? nil: no
	Metrics   *Metrics      // may be nil
	Logger    *slog.Logger
	Clock     func() time.Time // time.Now if nil
}

// Replicator captures one database and ships it to its replicas. Each replica
// has a position of its own; none waits for another, and capture waits for none
// until the spool is full. One commit goes through these, each of which knows only
// those behind it:
//
//  1. source reads it from the WAL, proves that nothing before it was missed and spools it
//  2. backlog holds it until every replica has it
//  3. replica, one for each place: its worker is kicked, and uploads what its cursor has
//     not passed. See there
//
// Run is the only long-lived goroutine. Each replica has one more, only while
// there is something to ship, and one for each kind of maintenance that is due.
type Replicator struct {
	o        Options
	log      *slog.Logger
	custody  *custody.Custody
	backlog  *progress.Backlog
	source   *source
	replicas []*replica
	crew     worker.Crew
	wake     chan struct{}
	begun    atomic.Bool // Run has read what the state directory holds
	ending   atomic.Bool // Run is: it queues no more

	told   told // Run's: the last news for the replicas
	toldAt time.Time
	chain  *spool.Spool // Run's: that the replicas know of
}

// DefaultSpoolLimit is the bound of a spool for which none is set, in bytes.
const DefaultSpoolLimit = spool.DefaultLimit

// New returns a Replicator that does nothing before Run. Its metrics are exported
// from now on, until Forget.
func New(o Options) (*Replicator, error) {
	if o.Name == "" || o.Files == nil || o.StateDir == "" {
		return nil, errors.New("replicator: name, files and state directory are required")
	}
	o.setDefaults()
	r := &Replicator{o: o, log: o.Logger.With("db", o.Name), wake: make(chan struct{}, 1)}
	r.custody = custody.New(o.StateDir)
	r.backlog = progress.NewBacklog(cmp.Or(o.Capture.SpoolLimit, DefaultSpoolLimit), o.Clock)
	r.source = r.newSource()
	d := surroundings{
		name: o.Name, owner: o.Owner, boot: o.Boot, dir: r.replicaDir(), scratch: r.scratchDir(), log: r.log,
		clock: o.Clock, custody: r.custody, source: r.source, start: r.crew.Start,
	}
	names := map[string]bool{}
	for _, ro := range o.Replicas {
		if ro.Name == "" || ro.Store == nil || names[ro.Name] {
			return nil, fmt.Errorf("replicator %s: replica %q needs a store and a name of its own", o.Name, ro.Name)
		}
		names[ro.Name] = true
		ro.setDefaults()
		p := newReplica(d, ro)
		r.replicas = append(r.replicas, p)
		r.backlog.Serve(p.progress)
	}
	if o.Metrics != nil {
		o.Metrics.add(r)
	}
	return r, nil
}

func (o *Options) setDefaults() {
	o.FinalSync = cmp.Or(o.FinalSync, 30*time.Second)
	if o.Clock == nil {
		o.Clock = systemClock
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
}

// newSource returns what captures the database. Its capture cuts batches somewhat later than
// replicas ask for them, which is when their sync is due, so that one sync is one segment.
func (r *Replicator) newSource() *source {
	o := r.o.Capture
	o.Name, o.StateDir, o.Logger, o.Clock = r.o.Name, filepath.Join(r.o.StateDir, "capture"), r.o.Logger, r.o.Clock
	if o.BatchAge == 0 {
		o.BatchAge = time.Second
		for i, ro := range r.o.Replicas {
			if age := cmp.Or(ro.SyncEvery, time.Second) * 3 / 2; i == 0 || age < o.BatchAge {
				o.BatchAge = min(age, 10*time.Second)
			}
		}
	}
	o.Place = r.o.Queue.Place(r.Wake)
	return &source{
		o: o, log: r.log, find: r.o.Files, scratch: scratch{r.scratchDir(), time.Now().Add(-time.Second)},
		original: &custody.Original{}, backlog: r.backlog, wake: r.wake,
		names: names{watch: r.o.Names, changed: r.Wake, log: r.log},
	}
}

// kick has every replica look for what there is.
func (r *Replicator) kick() {
	for _, p := range r.replicas {
		p.worker.Kick()
	}
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
	if err := r.remember(); err != nil {
		r.source.note(err)
		return fmt.Errorf("replicate %s: %w", r.o.Name, err)
	}
	stop := r.crew.Begin(ctx)
	defer stop()
	r.kick()
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
		if r.source.note(err); err != nil {
			failures++
			next = min(worker.Backoff(failures), captureRetry)
		} else {
			failures = 0
		}
		timer.Reset(next)
	}
	return r.finish(ctx, stop)
}

// remember reads what the state directory holds of the replicas.
func (r *Replicator) remember() error {
	if err := durable.MkdirAll(r.scratchDir(), 0o700); err != nil {
		return err
	}
	err := r.custody.Load()
	for _, p := range r.replicas {
		err = errors.Join(err, p.saved.Load())
		p.progress.Update(func(s *ReplicaStatus) { s.LastVerified = p.saved.Get().At })
	}
	r.begun.Store(err == nil)
	return err
}

// captureRetry is how long capture waits at most after an error: a look costs
// nothing, and what is missed in the meantime costs a comparison.
const captureRetry = 2 * time.Second

// finish is the designed end: last sync, leases, workers, capture.
func (r *Replicator) finish(ctx context.Context, stop func()) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.FinalSync)
	defer cancel()
	r.ending.Store(true)
	r.outstay(last)
	err := r.sync(last, (*replica).syncTo)
	if held := r.backlog.Spool(); errors.Is(err, ErrNotOpen) && held != nil {
		err = r.each(last, func(p *replica) error { return p.syncTo(last, held.Last()) })
	}
	if err != nil && !errors.Is(err, ErrNotOpen) {
		r.log.Warn("the final sync did not reach every replica: the rest is in the spool and will be uploaded after the "+
			"next start", "err", err)
	}
	stop() // from here on, kick starts no worker
	r.crew.Wait()
	for _, p := range r.replicas {
		if err := p.lease.Release(last); err != nil {
			p.log.Warn("the lease could not be released: another writer has to wait until it expires", "err", err)
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
	if err := r.source.open(ctx, r.origin); err != nil {
		return 0, err
	}
	if chain := r.backlog.Spool(); chain != r.chain {
		r.chain = chain
		r.kick() // before the first step, which may last: replicas find out in the meantime where they stand
	}
	got, err := r.source.step(ctx, false)
	if errors.Is(err, capture.ErrSpoolFull) {
		// What was shipped may not have been fit to go at that moment.
		err = errors.Join(err, r.backlog.Release())
	}
	if err == nil {
		err = r.backlog.LetGo()
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
			if news.pending || p.progress.Behind(news.txid) {
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

// Checkpoint checkpoints the database without losing a commit. It implements
// watchdog.Checkpointer.
func (r *Replicator) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	defer r.Wake()
	return r.source.checkpoint(ctx, mode, b)
}

// Release closes the capture and every connection to the database; what is
// spooled keeps being shipped. Whoever owns the files calls it before closing
// them. Capture begins again when Options.Files returns others.
func (r *Replicator) Release() error { return r.source.close() }

// SyncNow returns when everything that was committed before the call is durable
// in every replica, or with what prevents it. Each is asked whether that is so.
func (r *Replicator) SyncNow(ctx context.Context) error { return r.sync(ctx, (*replica).syncProven) }

// sync captures what was committed before the call, and waits until each replica has come to
// its TXID as to says.
func (r *Replicator) sync(ctx context.Context, to func(*replica, context.Context, ltx.TXID) error) error {
	for {
		chain := r.backlog.Spool()
		txid, err := r.source.settled(ctx, !r.ending.Load())
		if err != nil {
			return fmt.Errorf("sync %s: %w", r.o.Name, err)
		}
		if err := r.each(ctx, func(p *replica) error { return to(p, ctx, txid) }); err != nil {
			return err
		}
		// A replica that was opened in the meantime may have had another writer's files: then
		// the TXID that it has is of another chain, and ours begins behind it.
		if r.backlog.Spool() == chain {
			return nil
		}
	}
}

// SnapshotNow takes a snapshot into every replica.
func (r *Replicator) SnapshotNow(ctx context.Context) error {
	return r.each(ctx, func(p *replica) error { return p.snapshotNow(ctx) })
}

// VerifyNow runs a restore drill from every replica and returns the failures, or ErrNotOpen
// before Run has begun. Right after the first start nothing is stored yet: then all is synced
// first, and what prevents that is no failed drill.
func (r *Replicator) VerifyNow(ctx context.Context) error {
	if !r.begun.Load() {
		return fmt.Errorf("verify: %w", ErrNotOpen)
	}
	drill := func(p *replica) error { return p.drill.verify(ctx) }
	err := r.each(ctx, drill)
	if !errors.Is(err, errNothingStored) {
		return err
	}
	if err := r.sync(ctx, (*replica).syncTo); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return r.each(ctx, drill)
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
			VerifyEverySeconds: o.VerifyEvery.Seconds(), StoredBytes: s.StoredBytes, LastSnapshot: s.LastSnapshot,
			OldestRestorePoint: s.OldestRestorePoint, Name: s.Name, Healthy: s.Healthy, CaughtUp: s.CaughtUp,
			LagSeconds: s.LagSeconds, PendingBytes: s.PendingBytes, TXID: uint64(s.TXID), LastVerified: s.LastVerified,
			Err: s.Err, MonthlyUSD: s.MonthlyUSD, ReplicaHistory: collector.ReplicaHistory{ReplicaCare: collector.ReplicaCare{
				LostFiles: s.LostFiles, MaintenanceErr: s.MaintenanceErr, WeakFencing: s.Guard.Weak()}},
		})
	}
	return out
}

// Captured returns what is spooled, and why commits are not captured, nil where they are.
func (r *Replicator) Captured() (spooled int64, err error) {
	if held := r.backlog.Spool(); held != nil {
		spooled = held.Bytes()
	}
	return spooled, r.source.failure()
}

// Stopped notes why Run has ended before its time, until it is called again.
func (r *Replicator) Stopped(err error) { r.source.note(err) }

// Replicas returns everything known about each replica, without a request.
func (r *Replicator) Replicas() []ReplicaStatus {
	out := make([]ReplicaStatus, len(r.replicas))
	for i, p := range r.replicas {
		out[i] = p.status()
	}
	return out
}

func (r *Replicator) replicaDir() string { return filepath.Join(r.o.StateDir, "replicas") }

// scratchDir is for files and directories that nobody needs after a crash.
func (r *Replicator) scratchDir() string { return filepath.Join(r.replicaDir(), "scratch") }

// originTimeout bounds the questions to one replica at start; reading its page
// checksums then takes as long as it takes.
const originTimeout = 20 * time.Second

// origin finds where to continue when the state directory is empty: behind the
// replica that has come farthest. Replicas out of reach are not waited for; one
// that turns out to be farther is dealt with when it is (see opener.open).
func (r *Replicator) origin(ctx context.Context) (ltx.TXID, store.PageSums, error) {
	var best *replica
	var end, behind ltx.TXID
	var at time.Time
	for _, p := range r.replicas {
		asking, cancel := context.WithTimeout(ctx, originTimeout)
		tip, ours, err := p.opener.recoverable(asking)
		cancel()
		if ctx.Err() != nil {
			return 0, store.PageSums{}, ctx.Err()
		}
		if err != nil {
			r.log.Warn("the replica's position could not be read: starting without it", "replica", p.o.Name, "err", err)
			continue
		}
		switch {
		case ours && tip.TXID > end:
			best, end = p, tip.TXID
		case !ours && tip.TXID > 0 && custody.LeapOver(tip.TXID) > behind:
			behind, at = custody.LeapOver(tip.TXID), tip.At
		}
	}
	if best == nil {
		return behind, store.PageSums{Timestamp: at}, nil
	}
	txid, sums, err := restore.PageChecksums(ctx, best.o.Store, catalog.Target{})
	if err != nil {
		r.log.Warn("the replica's newest state could not be read: starting after it with the whole database",
			"replica", best.o.Name, "err", err)
		return custody.LeapOver(max(end, behind)), store.PageSums{Timestamp: at}, nil
	}
	best.opener.from.Store(uint64(txid))
	return txid, sums, nil
}
