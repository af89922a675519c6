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

// Options configure a Replicator.
type Options struct {
	Name string // the database's configured name

	// Files returns the database's open files, nil while there are none. Once
	// the database was replaced, it returns the new files.
	Files    func() *dbfile.Files
	StateDir string          // used for this database only
	Capture  capture.Options // bounds only: New fills in Name, Files, StateDir, Logger, Clock and Recover
	Replicas []ReplicaOptions

	// Names calls told, until stop, as soon as a name in dir may refer to another file or to
	// none. If it is nil or fails, such a change is only noticed at the next poll.
	Names func(dir string, names []string, told func()) (stop func(), err error)

	Queue     *queue.Queue  // limits how many databases are read from end to end at once; nil: no limit
	Owner     string        // names this writer in leases and messages; "": host and database
	Boot      string        // names this boot of the machine in leases; "": the kernel's boot id
	FinalSync time.Duration // how long the last sync may take at shutdown; 0: 30 s
	Outstay   func() bool   // asked at shutdown: continue while other processes use the database? nil: no
	Metrics   *Metrics      // may be nil
	Logger    *slog.Logger
	Clock     func() time.Time // time.Now if nil
}

// Replicator captures one database and ships it to its replicas. Each replica has its own
// position; none waits for another, and capture waits for none until the spool is full. A
// commit passes through these parts; replica calls source and backlog, source calls backlog,
// and none calls back:
//
//  1. source reads it from the WAL, proves that no earlier commit was missed and spools it
//  2. backlog holds it until every replica has it
//  3. replica, one for each place: its worker is woken and uploads everything after its
//     cursor; see there
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
	ending   atomic.Bool // Run is shutting down: the last sync does not wait for the queue

	told   told // the last news for the replicas; this and the next two are Run's alone
	toldAt time.Time
	chain  *spool.Spool // the last spool that the replicas were kicked for
}

// DefaultSpoolLimit is the default bound of a spool, in bytes.
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
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, our own lease must expire after a crash
		o.Boot = strings.TrimSpace(string(id))
	}
}

// newSource returns the source. Its capture cuts a batch on its own somewhat later than a replica
// would flush it at its sync, so that one sync makes one segment.
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

// kick wakes every replica's worker.
func (r *Replicator) kick() {
	for _, p := range r.replicas {
		p.worker.Kick()
	}
}

// Forget ends the export of r's metrics: the database is no longer replicated.
// Until then they are exported, whether Run is running or not.
func (r *Replicator) Forget() {
	if r.o.Metrics != nil {
		r.o.Metrics.remove(r)
	}
}

// defaultOwner names this host and database; the machine id tells cloned hosts of one name apart.
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
// Options.FinalSync, releases its leases and returns nil. It cannot be cancelled a
// second time: a caller that will not wait exits.
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

// remember reads what the state directory knows about the replicas.
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

// captureRetry is the longest wait before capture is retried after an error: a poll costs
// next to nothing, and commits missed in the meantime cost a comparison.
const captureRetry = 2 * time.Second

// finish shuts down in order: last sync, workers, leases, capture.
func (r *Replicator) finish(ctx context.Context, stop func()) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.FinalSync)
	defer cancel()
	r.ending.Store(true)
	r.outstay(last)
	err := r.sync(last, (*replica).syncTo)
	if held := r.backlog.Spool(); errors.Is(err, ErrNotOpen) && held != nil {
		err = r.each(func(p *replica) error { return p.syncTo(last, held.Last()) })
	}
	if err != nil && !errors.Is(err, ErrNotOpen) {
		r.log.Warn("the final sync did not reach every replica: the rest is in the spool and will be uploaded after the "+
			"next start", "err", err)
	}
	stop() // from here on, no worker starts
	r.crew.Wait()
	for _, p := range r.replicas {
		if err := p.lease.Release(last); err != nil {
			p.log.Warn("the lease could not be released: another writer has to wait until it expires", "err", err)
		}
	}
	return r.Release()
}

// Wake makes Run look for commits at once, because the files have changed.
func (r *Replicator) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// turn captures what was committed and wakes the replicas that lack it.
func (r *Replicator) turn(ctx context.Context) (time.Duration, error) {
	if err := r.source.open(ctx, r.origin); err != nil {
		return 0, err
	}
	if chain := r.backlog.Spool(); chain != r.chain {
		r.chain = chain
		r.kick() // before the first step, which may take long: replicas can be opened in the meantime
	}
	got, err := r.source.step(ctx, false)
	if errors.Is(err, capture.ErrSpoolFull) {
		// Segments may have become releasable since the last attempt.
		err = errors.Join(err, r.backlog.Release())
	}
	if err == nil {
		err = r.backlog.LetGo()
	}
	if err != nil {
		return 0, err
	}
	// A replica that was woken waits until its sync is due: waking it again for the same
	// news is useless, but harmless once a second.
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
	txid    ltx.TXID // the last that is spooled
	pending bool     // there are commits that are not spooled yet
}

const tellAgain = time.Second

// Checkpoint checkpoints the database without losing a commit. It implements
// watchdog.Checkpointer.
func (r *Replicator) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	defer r.Wake()
	return r.source.checkpoint(ctx, mode, b)
}

// Release closes the capture and every connection to the database; the spool is
// still shipped. The owner of the files calls it before closing them. Capture begins
// again when Options.Files returns other files.
func (r *Replicator) Release() error { return r.source.close() }

// SyncNow returns when everything that was committed before the call is durable in every
// replica, which each store is asked to confirm, or with the error that prevents it.
func (r *Replicator) SyncNow(ctx context.Context) error { return r.sync(ctx, (*replica).syncProven) }

// sync captures what was committed before the call, and calls to for each replica, which waits
// until that replica has reached its TXID.
func (r *Replicator) sync(ctx context.Context, to func(*replica, context.Context, ltx.TXID) error) error {
	for {
		chain := r.backlog.Spool()
		txid, err := r.source.settled(ctx, !r.ending.Load())
		if err != nil {
			return fmt.Errorf("sync %s: %w", r.o.Name, err)
		}
		if err := r.each(func(p *replica) error { return to(p, ctx, txid) }); err != nil {
			return err
		}
		// A replica opened in the meantime may have held another writer's files: then its TXIDs
		// belong to another chain, capture began a new one behind it, and txid proves nothing.
		if r.backlog.Spool() == chain {
			return nil
		}
	}
}

// SnapshotNow takes a snapshot into every replica.
func (r *Replicator) SnapshotNow(ctx context.Context) error {
	return r.each(func(p *replica) error { return p.snapshotNow(ctx) })
}

// VerifyNow runs a restore drill of every replica and returns the failures, or ErrNotOpen
// before Run has begun. If nothing is stored yet, right after the first start, it syncs first;
// an error of that sync does not count as a failed drill.
func (r *Replicator) VerifyNow(ctx context.Context) error {
	if !r.begun.Load() {
		return fmt.Errorf("verify: %w", ErrNotOpen)
	}
	drill := func(p *replica) error { return p.drill.verify(ctx) }
	err := r.each(drill)
	if !errors.Is(err, errNothingStored) {
		return err
	}
	if err := r.sync(ctx, (*replica).syncTo); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return r.each(drill)
}

// each calls f for all replicas in parallel.
func (r *Replicator) each(f func(*replica) error) error { return worker.Each(r.replicas, f) }

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

// Captured returns the bytes in the spool, and why commits are not being captured, nil if they are.
func (r *Replicator) Captured() (spooled int64, err error) {
	if held := r.backlog.Spool(); held != nil {
		spooled = held.Bytes()
	}
	return spooled, r.source.failure()
}

// Stopped records why Run ended early, for Captured to report until Run is called again.
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

// scratchDir is for files and directories that are useless after a crash.
func (r *Replicator) scratchDir() string { return filepath.Join(r.replicaDir(), "scratch") }

// originTimeout bounds the time to read one replica's position at start; it does not
// apply to reading its page checksums afterwards.
const originTimeout = 20 * time.Second

// origin finds where to continue when the state directory is empty: at the replica that has
// come farthest. It does not wait for unreachable replicas; if one of those turns out to
// be farther, opener.open deals with that later.
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
