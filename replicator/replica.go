package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/compact"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// ReplicaOptions say where one replica is and how it is kept. Zero values mean the
// defaults.
type ReplicaOptions struct {
	Name  string // type and name, as "s3.main"
	Place string // where the replica is; another place is another replica
	Store store.Store

	SyncEvery     time.Duration // the longest that a commit waits for its upload, and the time between PUTs; 0: 1 s
	SnapshotEvery time.Duration // 0: 24 h
	// the greatest age of the last full copy; 0: SnapshotEvery, or 30 d if that is 0 too
	FullEvery   time.Duration
	VerifyEvery time.Duration // between restore drills; 0: only on demand
	Retention   RetentionOptions
	Adopt       bool // continue a history that another program began

	Requests *requests.Counts // of requests to Store, for metrics and costs; may be nil
	Prices   *requests.Prices // nil: unknown
}

// RetentionOptions say what a replica keeps.
type RetentionOptions = retention.Options

func (o *ReplicaOptions) setDefaults() {
	o.SyncEvery = cmp.Or(o.SyncEvery, time.Second)
	o.FullEvery = cmp.Or(o.FullEvery, o.SnapshotEvery, 30*24*time.Hour)
	o.SnapshotEvery = cmp.Or(o.SnapshotEvery, 24*time.Hour)
	o.Retention.Keep = cmp.Or(o.Retention.Keep, 720*time.Hour)
	o.Retention.Grace = cmp.Or(o.Retention.Grace, retention.DefaultGrace)
	if o.Requests == nil {
		o.Requests = &requests.Counts{}
	}
}

// replica is one place that the database is shipped to. A turn of its worker is, in
// this order:
//
//  1. opener, only if unknown: whose history does the replica hold, and may ours continue it?
//  2. source: capture what was committed since, into the spool
//  3. shipper: upload the waiting segments in batches, or a snapshot if the spool lacks some
//  4. progress: move the cursor and wake those who wait for it; backlog releases segments
//  5. lease: renew it while there is nothing to write
//  6. upkeep: start what is due, each lane in its own goroutine: checks, compaction and
//     retention in one, snapshots and drills in the other
//
// Each part calls only those before it. None knows the replica or the Replicator: the worker
// and the lanes only run the functions they are given.
//
// Lock order: work before all others, upkeep's before the worker's. Of the replica's locks only
// work (uploads) and the lease's (its own requests) are held across requests to the store.
type replica struct {
	o      ReplicaOptions
	log    *slog.Logger
	source *source

	progress  *progress.Progress
	lease     *lease.Lease
	saved     *custody.StateFile
	uploader  *upload.Uploader
	compactor *compact.Compactor
	retainer  *retention.Retainer
	opener    *opener
	snapshots *snapshotter
	shipper   *shipper
	mender    *mender
	drill     *driller
	upkeep    *worker.Lanes
	worker    *worker.Worker

	// work serializes changes to what is uploaded next: the worker holds it during a turn,
	// a repair for a moment. It guards shipper.lastPut.
	work   sync.Mutex
	demand chan struct{} // holds a token while a snapshot on demand is under way; taken before work
}

// localBytes bounds the uploaded files that stay on this machine so that merging need not fetch them.
const localBytes = 64 << 20

// surroundings are what all replicas of a database share.
type surroundings struct {
	name, owner, boot string
	dir, scratch      string // for state, and for files that are useless after a crash
	log               *slog.Logger
	clock             func() time.Time
	custody           *custody.Custody
	source            *source
	start             func(func(context.Context)) bool // starts a goroutine; see worker.Crew
}

func newReplica(d surroundings, o ReplicaOptions) *replica {
	p := &replica{o: o, log: d.log.With("replica", o.Name), source: d.source, demand: make(chan struct{}, 1)}
	p.saved = custody.NewStateFile(d.dir, o.Name)
	p.progress = progress.New(p.log, d.clock, o.Name, o.SyncEvery)
	p.worker = worker.New(worker.Options{
		Turn: p.turn, Record: p.progress.Record, Begin: d.start, Patience: progress.Patience, Faulted: d.source.o.Faulted,
	})
	p.lease = lease.New(lease.Options{
		Store: o.Store, Owner: d.owner, Boot: d.boot, Self: lease.ThisProcess(),
		File: func() string { return d.source.original.Get().File }, Clock: d.clock, Save: func(nonces ...string) error {
			if txid, known := p.progress.Position(); known {
				return p.saved.SaveNonces(&custody.Held{Place: o.Place, TXID: txid}, nonces...)
			}
			return p.saved.SaveNonces(nil, nonces...)
		},
		Named: func(ctx context.Context) (string, error) { return lineage.NameOf(ctx, o.Store) },
	})
	p.uploader = upload.New(o.Store, p.lease, p.saved, d.scratch, p.log, d.clock)
	p.compactor = compact.New(compact.Options{
		Store: o.Store, Create: p.uploader.CreateMerged, ReadBack: p.saved.ReadBack, Hold: p.lease.Hold,
		Scratch: d.scratch,
		Slack:   p.slack(), Turn: worker.TurnOf(d.name, o.Name), Name: custody.FileName(o.Name),
		Local: min(localBytes, d.source.backlog.Limit/16), Clock: d.clock, Logger: p.log,
	})
	p.opener = &opener{
		name: o.Name, log: p.log, store: o.Store, lease: p.lease, custody: d.custody, source: d.source,
		progress: p.progress, compactor: p.compactor, uploader: p.uploader,
		held:    func() ltx.TXID { return p.saved.Emptied(o.Place) },
		lost:    func() ltx.TXID { txid, _ := p.saved.LostAt(o.Place); return txid },
		checked: func() time.Time { return p.saved.CheckedAt(o.Place) },
	}
	p.opener.claim = custody.NewClaimant(custody.ClaimantOptions{
		Replica: o.Name, Store: o.Store, Lease: p.lease, Custody: d.custody, Saved: p.saved,
		Original: d.source.original, Owner: d.owner, Boot: d.boot, Adopt: o.Adopt, Keep: o.Retention.Keep,
		Spool: d.source.backlog.Spool, Compare: d.source.compare, Judged: p.progress.Judged,
		Claimed: p.progress.Claimed, Logger: p.log, Clock: d.clock,
	})
	begins := &beginning{store: o.Store, progress: p.progress, backlog: d.source.backlog}
	p.snapshots = &snapshotter{
		name: o.Name, log: p.log, store: o.Store, scratch: d.scratch, every: o.SnapshotEvery, full: o.FullEvery,
		source: d.source, progress: p.progress, uploader: p.uploader, lease: p.lease,
		begins: begins, checked: func(at time.Time) error { return p.saved.NoteChecked(o.Place, at) },
	}
	p.newUpkeep(d)
	p.shipper = &shipper{
		name: o.Name, log: p.log, scratch: d.scratch, every: o.SyncEvery, slack: p.slack(), source: d.source,
		progress: p.progress, uploader: p.uploader, lease: p.lease, snapshots: p.snapshots, compactor: p.compactor,
		begins: begins, worker: p.worker, upkeep: p.upkeep,
	}
	return p
}

// newUpkeep makes the parts that run beside the uploads.
func (p *replica) newUpkeep(d surroundings) {
	every := looksEvery(p.o.Store)
	p.mender = &mender{
		name: p.o.Name, log: p.log, store: p.o.Store, every: every, source: d.source, progress: p.progress, opener: p.opener,
		work: &p.work, worker: p.worker, planned: p.progress.Began, lost: p.lost,
		// spread over the interval, so that not all replicas are checked at once
		looked: p.progress.Began.Add(-time.Duration(worker.TurnOf(d.name, p.o.Name) * float64(every))),
	}
	p.drill = &driller{
		name: p.o.Name, log: p.log, store: p.o.Store, scratch: d.scratch, every: p.o.VerifyEvery, progress: p.progress,
		saved: p.saved, mender: p.mender,
	}
	p.retainer = retention.NewRetainer(retention.RetainerOptions{
		Options: p.o.Retention, Store: p.o.Store, Hold: p.uploader.HoldChecked, Found: p.progress.Looked,
		Protected: func() map[string]bool { return p.saved.Get().VerifiedKeys() },
		Useless:   func() []string { _, useless := p.saved.LostAt(p.o.Place); return useless },
		Spared:    func(txid ltx.TXID, now time.Time) bool { return p.progress.Lineage().Spared(txid, now) },
		Deleted:   p.compactor.Forget, Logger: p.log, Clock: d.clock,
	})
	p.upkeep = worker.NewLanes(worker.LanesOptions{
		Tasks: [][]worker.Task{
			shortLane: {p.mender.lookDue, p.compactDue, p.retainDue},
			longLane:  {p.snapshots.due, p.drill.due},
		},
		Start: d.start, Pause: progress.Pause, Kind: progress.ReasonOf, Logger: p.log, Clock: d.clock,
		Faulted: d.source.o.Faulted,
		Failed:  func(err error) { d.source.backlog.DoubtAfter(p.progress, err) },
		Done: func(kind string) {
			p.progress.Update(func(s *ReplicaStatus) { s.MaintenanceErr = kind })
			p.worker.Kick()
		},
	})
}

// The lanes of the work beside the uploads.
const (
	shortLane = iota
	longLane
)

// slack is how long after the end of a compaction window its last commits may still be uploaded.
func (p *replica) slack() time.Duration { return p.o.SyncEvery + time.Second }

// turn does what is due and returns how long to wait for the next turn; negative is
// forever. It only starts maintenance, which runs in goroutines of its own.
func (p *replica) turn(ctx context.Context) (time.Duration, error) {
	p.work.Lock()
	defer p.work.Unlock()
	if p.source.backlog.Spool() == nil {
		return -1, nil // Replicator.turn kicks once capture is open
	}
	if err := p.open(ctx); err != nil {
		return 0, err
	}
	if wait, err := p.shipper.sync(ctx); err != nil || wait > 0 {
		p.source.backlog.DoubtAfter(p.progress, err)
		return wait, err
	}
	idle, err := p.lease.Idle(ctx)
	if err != nil {
		p.source.backlog.DoubtAfter(p.progress, err)
		return 0, err
	}
	wait := time.Duration(-1)
	if !idle.IsZero() {
		wait = max(0, idle.Sub(p.progress.Clock()))
	}
	if due := p.upkeep.Begin(); due >= 0 && (wait < 0 || due < wait) {
		wait = due
	}
	return wait, nil
}

// open opens the replica if it is not open.
func (p *replica) open(ctx context.Context) error {
	if _, known := p.progress.Position(); known {
		return nil
	}
	if err := p.opener.open(ctx); err != nil {
		return err
	}
	soon := p.progress.Clock().Add(p.slack())
	p.upkeep.Due(shortLane, soon)
	p.upkeep.Due(longLane, soon)
	return nil
}

// compactDue merges every window that is over. If an input file is lost, a snapshot follows,
// so that the newest state and everything after it stay restorable.
func (p *replica) compactDue(ctx context.Context) (time.Time, error) {
	report, err := p.compactor.Run(ctx)
	p.progress.Update(func(s *ReplicaStatus) {
		s.StoredBytes += report.Bytes
		s.LostFiles += len(report.Lost)
	})
	end := ltx.TXID(0)
	for _, f := range report.Lost {
		end = max(end, f.MaxTXID)
	}
	if len(report.Useless) > 0 {
		err = errors.Join(err, p.lost(end, report.Useless...))
	}
	return report.Due, err
}

// lost records that a file up to txid is lost (see progress.Progress.Lost; 0: none), and which files are of no use.
// Both hold after a restart too.
func (p *replica) lost(txid ltx.TXID, useless ...string) error {
	return p.saved.NoteLost(p.o.Place, p.progress.Lost(txid), useless...)
}

// retainDue deletes files that retention no longer keeps.
func (p *replica) retainDue(ctx context.Context) (time.Time, error) {
	if cursor, _ := p.progress.Position(); cursor == 0 {
		return time.Time{}, nil
	}
	due, err := p.retainer.Due(ctx)
	if err == nil {
		err = worker.Since(p.retainer.Refused())
	}
	return due, err
}

// snapshotNow takes a snapshot on demand, unless nothing was committed since the last one and that is still there.
// Uploads of new commits continue beside it, however long the snapshot takes or waits for
// its turn.
func (p *replica) snapshotNow(ctx context.Context) error {
	select {
	case p.demand <- struct{}{}:
		defer func() { <-p.demand }()
	case <-ctx.Done():
		return fmt.Errorf("snapshot to %s: another one is under way: %w", p.o.Name, ctx.Err())
	}
	if _, err := p.source.settled(ctx, true); err != nil {
		return fmt.Errorf("snapshot to %s: %w", p.o.Name, err)
	}
	if there, err := p.readyToSnapshot(ctx); there || err != nil {
		return err
	}
	if err := p.shipper.snapshot(ctx); err != nil {
		p.source.backlog.DoubtAfter(p.progress, err)
		p.progress.Record(err)
		return err
	}
	p.worker.Kick() // the next turn records success, not this one: uploads beside it may have failed
	return nil
}

// readyToSnapshot captures what was committed, and reports whether the replica has a snapshot of it already, which the
// store is asked to confirm: it may have been removed since.
func (p *replica) readyToSnapshot(ctx context.Context) (there bool, err error) {
	p.work.Lock()
	defer p.work.Unlock()
	if p.source.backlog.Spool() == nil {
		return false, fmt.Errorf("%s: %w", p.o.Name, p.source.closed())
	}
	if _, known := p.progress.Position(); !known {
		err := p.open(ctx)
		if p.progress.Record(err); err != nil {
			return false, err
		}
	}
	if _, err := p.source.step(ctx, true); err != nil {
		return false, fmt.Errorf("snapshot to %s: %w", p.o.Name, err)
	}
	if base := p.progress.Snapshot(); base == 0 || base != p.source.backlog.Spool().Last() {
		return false, nil
	}
	return p.mender.there(ctx)
}

// syncTo returns once the replica has txid. It fails when ctx ends, or on an error that only a person can cure.
func (p *replica) syncTo(ctx context.Context, txid ltx.TXID) error {
	p.worker.Hasten()
	for {
		done, moved, failed := p.progress.Awaited(txid)
		if done {
			return nil
		}
		p.worker.SetUrgent(true)
		p.worker.Kick()
		select {
		case <-moved:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sync to %s: %w", p.o.Name, ctx.Err()), failed)
		}
		if failed = p.progress.Failure(); progress.Hopeless(failed) {
			return fmt.Errorf("sync to %s: %w", p.o.Name, failed)
		}
	}
}

// mendings is how often syncProven has the newest state stored again before it gives up.
const mendings = 3

// syncProven is syncTo for callers that rely on the result: files stored long ago may have been
// removed since, so it asks the store for the first and the last file of the newest state.
func (p *replica) syncProven(ctx context.Context, txid ltx.TXID) error {
	for mended, failures := 0, 0; ; {
		if err := p.syncTo(ctx, txid); err != nil {
			return err
		}
		there, err := p.mender.there(ctx)
		anew := false
		if err == nil && !there {
			anew, err = p.mender.plan(ctx)
		}
		// A concurrent check may have found the last file gone and moved the cursor back: then
		// the files that we just saw belong to an older state.
		if done, _, _ := p.progress.Awaited(txid); err == nil && done {
			return nil
		}
		if err == nil {
			continue
		}
		if anew && mended < mendings {
			mended++
			continue
		}
		if failures++; mended == mendings || progress.Hopeless(err) {
			return fmt.Errorf("sync to %s: %w", p.o.Name, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sync to %s: %w", p.o.Name, ctx.Err()), err)
		case <-time.After(worker.Backoff(failures)):
		}
	}
}

// status returns what is known now, without a request.
func (p *replica) status() ReplicaStatus {
	s, cursor, known := p.progress.Status()
	s.TXID, s.Guard = cursor, p.lease.Guard()
	if !known {
		cursor = 0
	} else if at := p.source.backlog.CaughtUp(cursor); !at.IsZero() {
		s.CaughtUp = at
	}
	now, began := p.progress.Clock(), p.progress.Began
	if p.o.Prices != nil {
		if dollars, known := p.o.Prices.Monthly(p.o.Requests, now.Sub(began), s.StoredBytes); known {
			s.MonthlyUSD = &dollars
		}
	}
	since := s.CaughtUp
	unknown := since.IsZero()
	if unknown {
		since = began // nothing is known about the time before the start: the lag is at least this
	}
	spool := p.source.backlog.Spool()
	if spool == nil {
		return s
	}
	for _, segment := range spool.After(cursor) {
		if unknown && segment.Timestamp.Before(since) {
			since = segment.Timestamp // captured before the start, and perhaps stored nowhere
		}
		s.PendingBytes += segment.Size
	}
	if !known || spool.Last() > cursor || p.source.pending() || p.source.stuck() {
		s.LagSeconds = max(0, p.progress.Clock().Sub(since).Seconds())
	}
	return s
}
