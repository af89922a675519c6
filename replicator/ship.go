package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/compact"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// ReplicaOptions say where one replica is and how it is kept. Zero values take
// the defaults.
type ReplicaOptions struct {
	Name  string // type and name, as "s3.main"
	Store store.Store

	SyncEvery     time.Duration // the longest that a commit waits for its upload to begin, and the rate of PUTs; 0: 1 s
	SnapshotEvery time.Duration // 0: 24 h
	VerifyEvery   time.Duration // restore drills; 0: none but by hand
	Retention     RetentionOptions
	Adopt         bool // continue a history that another program began

	Requests *requests.Counts // what Store was asked, for metrics and costs; may be nil
	Prices   *requests.Prices // nil: not known
}

// ReplicaStatus is what is known about one replica without asking it.
type ReplicaStatus struct {
	Name               string        `json:"name"`
	Healthy            bool          `json:"healthy"` // the last attempt at anything succeeded
	Err                string        `json:"error,omitempty"`
	TXID               ltx.TXID      `json:"txid"`
	CaughtUp           time.Time     `json:"caught_up"`
	LagSeconds         float64       `json:"lag_seconds"`
	PendingBytes       int64         `json:"pending_bytes"`
	Objective          time.Duration `json:"objective_ns"`
	StoredBytes        int64         `json:"stored_bytes"`
	LastSnapshot       time.Time     `json:"last_snapshot"`
	OldestRestorePoint time.Time     `json:"oldest_restore_point"`
	LastVerified       time.Time     `json:"last_verified"`
	VerifyDuration     time.Duration `json:"verify_duration_ns"`
	MonthlyUSD         *float64      `json:"monthly_usd,omitempty"` // see requests.Prices.Monthly; nil: not known

	Reason       string    `json:"reason,omitempty"` // of Err, one word
	FailingSince time.Time `json:"failing_since,omitzero"`
	DrillErr     string    `json:"drill_error,omitempty"` // why the last drill failed

	Guard   lease.Guard     `json:"guard,omitempty"`   // what the store offers against a second writer
	Custody lineage.Verdict `json:"custody,omitempty"` // why it is not written to, or that it is
	Lineage string          `json:"lineage,omitempty"` // that is written to
	// gone or unreadable since the start: the past has gaps
	LostFiles int `json:"lost_files,omitempty"`
	// the kind of what keeps compaction, retention, snapshots or drills from going on
	MaintenanceErr string `json:"maintenance_error,omitempty"`
}

// Bounds of one upload of merged segments.
const (
	maxBatchSegments = 128
	maxBatchBytes    = 64 << 20
)

// replica is one place that the database is shipped to. Its parts own what they are
// named for: worker the goroutine that ships, progress what is told, uploader what is
// stored, compactor the files that may be merged, saved the state directory.
//
// Locks: work before those of the parts, which are taken one at a time and held over no
// request; Replicator's own come after. The lease has its own, held over its requests.
type replica struct {
	r       *Replicator
	o       ReplicaOptions
	store   store.Store
	log     *slog.Logger
	scratch string
	began   time.Time

	worker    *worker.Worker
	progress  *progress
	uploader  *upload.Uploader
	compactor *compact.Compactor
	lease     *lease.Lease
	saved     *custody.StateFile
	lanes     []*lane // the short first

	failedDrills atomic.Uint64

	from atomic.Uint64 // capture's position was taken from this replica, at this TXID

	// held by the goroutine that ships, for as long as it ships, and for moments by maintenance; guards the next two and
	// the lanes
	work    sync.Mutex
	lastPut time.Time
	base    ltx.TXID // of the newest snapshot

	ledger   retention.Ledger // of what is unneeded; with the next two, the short lane's
	retained time.Time        // when retention is to look again
	looked   time.Time        // when the newest state's files were looked for
	snapped  time.Time        // when a scheduled snapshot was last tried; with the next, the long lane's
	drilled  time.Time        // when a scheduled drill was
}

func newReplica(r *Replicator, o ReplicaOptions) *replica {
	o.SyncEvery = cmp.Or(o.SyncEvery, time.Second)
	o.SnapshotEvery = cmp.Or(o.SnapshotEvery, 24*time.Hour)
	o.Retention.Keep = cmp.Or(o.Retention.Keep, 720*time.Hour)
	o.Retention.Grace = cmp.Or(o.Retention.Grace, retention.DefaultGrace)
	if o.Requests == nil {
		o.Requests = &requests.Counts{}
	}
	p := &replica{r: r, o: o, store: o.Store, log: r.log.With("replica", o.Name), scratch: r.scratchDir()}
	p.began = p.now()
	p.retained, p.looked = p.began.Add(firstRetention), p.began
	p.saved = custody.NewStateFile(r.replicaDir(), o.Name)
	p.progress = &progress{log: p.log, clock: r.o.Clock, moved: make(chan struct{})}
	p.progress.st = ReplicaStatus{Name: o.Name, Healthy: true, Objective: o.SyncEvery}
	p.worker = worker.New(worker.Options{Turn: p.turn, Record: p.progress.record, Begin: r.startWorker,
		Patience: patience})
	p.lease = lease.New(lease.Options{
		Store: o.Store, Owner: r.o.Owner, Boot: r.o.Boot, Self: lease.ThisProcess(),
		File: func() string { return r.identity().file }, Clock: r.o.Clock, Save: p.saved.SaveNonces,
	})
	p.uploader = upload.New(o.Store, p.lease)
	p.compactor = compact.New(compact.Options{
		Store: o.Store, Create: p.uploader.Create, Hold: p.lease.Hold, Scratch: p.scratch,
		Slack: p.slack(), Turn: turnOf(r.o.Name, o.Name), Clock: r.o.Clock, Logger: p.log,
	})
	type task = func(context.Context) (time.Time, error)
	p.lanes = []*lane{{tasks: []task{p.lookDue, p.compactDue, p.retainDue}}, {tasks: []task{p.snapshotDue, p.drillDue}}}
	return p
}

func (p *replica) now() time.Time { return p.r.o.Clock() }

// turn does what is due and returns how long to wait for the next; negative is
// for ever. Maintenance is done beside it.
func (p *replica) turn(ctx context.Context) (time.Duration, error) {
	p.work.Lock()
	defer p.work.Unlock()
	spool := p.r.spool()
	if spool == nil {
		return -1, nil // the capture's first turn kicks
	}
	if _, known := p.progress.position(); !known {
		if err := p.open(ctx); err != nil {
			return 0, err
		}
	}
	if wait, err := p.sync(ctx); err != nil || wait > 0 {
		p.doubtAfter(err)
		return wait, err
	}
	idle, err := p.lease.Idle(ctx)
	if err != nil {
		p.doubtAfter(err)
		return 0, err
	}
	wait := time.Duration(-1)
	if !idle.IsZero() {
		wait = max(0, idle.Sub(p.now()))
	}
	for _, l := range p.lanes {
		if due := p.begin(ctx, l); due >= 0 && (wait < 0 || due < wait) {
			wait = due
		}
	}
	return wait, nil
}

// sync ships what there is, once that is due. A positive wait says when it is.
func (p *replica) sync(ctx context.Context) (time.Duration, error) {
	if wait := p.lastPut.Add(p.o.SyncEvery).Sub(p.now()); wait > 0 && !p.worker.Urgent() {
		if p.waiting() {
			return wait, nil
		}
		return 0, nil
	}
	if _, err := p.r.step(ctx, true); err != nil && ctx.Err() == nil {
		// Capture reports its own trouble; what is in the spool can go out.
		p.log.Debug("sync goes on with what is spooled", "err", err)
	}
	for {
		more, err := p.ship(ctx)
		if err == nil && more && ctx.Err() == nil {
			continue
		}
		if err == nil {
			p.worker.SetUrgent(false)
		}
		return 0, err
	}
}

// waiting reports whether anything is or will shortly be in the spool for us.
func (p *replica) waiting() bool {
	cursor, _ := p.progress.position()
	return p.base == 0 || len(p.r.spool().After(cursor)) > 0 || p.r.pending()
}

// ship uploads the next batch of segments, if there is one.
func (p *replica) ship(ctx context.Context) (more bool, err error) {
	spool := p.r.spool() // before the position: who begins another chain casts doubt on that first
	cursor, known := p.progress.position()
	if !known {
		return false, nil // whoever doubts calls for a turn
	}
	newest := spool.Last() // before the look into the spool: what is missing there is gone then, not still to come
	segments := spool.After(cursor)
	switch {
	case len(segments) > 0:
	case p.base == 0 && newest > 0:
		return false, p.snapshot(ctx) // nothing to restore from yet
	case cursor < newest:
		p.log.Info("what the replica lacks is no longer in the spool: taking a snapshot", "has", cursor, "newest", newest)
		return true, p.snapshot(ctx)
	default:
		return false, nil
	}
	if p.base == 0 && !segments[0].Snapshot() || !segments[0].Snapshot() && segments[0].MinTXID != cursor+1 {
		p.log.Info("the replica lacks what is no longer in the spool: taking a snapshot", "has", cursor, "spool_from",
			segments[0].MinTXID)
		return true, p.snapshot(ctx)
	}
	if err := p.lease.Hold(ctx); err != nil {
		return false, err
	}
	batch := nextBatch(segments)
	p.lastPut = p.now()
	object, err := p.upload(ctx, batch)
	if err == nil {
		p.stored(object, batch[len(batch)-1])
		return true, p.r.letGo()
	}
	p.lastPut = time.Time{} // nothing was put: the next turn tries at once, and does not call this health
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrMisplaced) {
		return false, err
	}
	if again := spool.After(cursor); len(again) > 0 && again[0].Path == batch[0].Path {
		p.log.Error("a segment is gone from the spool: taking a snapshot", "segment", batch[0].Path)
		return true, p.snapshot(ctx)
	}
	return true, nil // released meanwhile, because we were too far behind: the next look decides
}

// nextBatch cuts the segments that become one object: contiguous, of one page
// size, bounded. A snapshot is a batch of its own.
func nextBatch(segments []spool.Segment) []spool.Segment {
	n, bytes := 1, segments[0].Size
	if segments[0].Snapshot() {
		return segments[:1]
	}
	for n < len(segments) && n < maxBatchSegments && !segments[n].Snapshot() &&
		segments[n].PageSize == segments[0].PageSize && bytes+segments[n].Size <= maxBatchBytes {
		bytes += segments[n].Size
		n++
	}
	return segments[:n]
}

// upload stores a batch as one object of level 0, or as a snapshot.
func (p *replica) upload(ctx context.Context, batch []spool.Segment) (store.LTXFile, error) {
	first, last := batch[0], batch[len(batch)-1]
	f := store.LTXFile{MinTXID: first.MinTXID, MaxTXID: last.MaxTXID}
	if first.Snapshot() {
		f.Level = store.SnapshotLevel
	}
	body := store.Body{Size: first.Size, SHA256: first.SHA256, Open: func() (io.ReadCloser, error) {
		return os.Open(first.Path)
	}}
	if len(batch) > 1 {
		m, err := mergeSegments(ctx, p.scratch, "ship-"+custody.FileName(p.o.Name), batch)
		if err != nil {
			return store.LTXFile{}, err
		}
		defer m.Discard()
		body = m.Body
	}
	var err error
	f.Object, err = p.uploader.Create(ctx, store.LTXKey(f.Level, f.MinTXID, f.MaxTXID), body, notes(batch, body.SHA256))
	return f, err
}

func mergeSegments(ctx context.Context, dir, name string, batch []spool.Segment) (*merge.Merged, error) {
	inputs := make([]io.Reader, len(batch))
	for i, s := range batch {
		f, err := os.Open(s.Path)
		if err != nil {
			return nil, fmt.Errorf("merge segments: %w", err)
		}
		defer f.Close()
		inputs[i] = f
	}
	return merge.Files(ctx, dir, name, inputs)
}

// notes are the metadata of a batch: of the state after it.
func notes(batch []spool.Segment, sha256 string) map[string]string {
	last := batch[len(batch)-1]
	m := map[string]string{
		store.MetaTimestamp: last.Timestamp.UTC().Format(time.RFC3339Nano),
		store.MetaChecksum:  last.Checksum.String(),
		store.MetaLineage:   last.Lineage,
		store.MetaSHA256:    sha256,
	}
	moment.Merged(batch[0].Stamp(), last.Stamp()).Put(m)
	for _, s := range batch {
		if s.Reason != "" {
			m[store.MetaReason] = s.Reason
		}
	}
	return m
}

// stored notes that f, which ends with s, is durable in the replica.
func (p *replica) stored(f store.LTXFile, s spool.Segment) {
	if f.Snapshot() {
		p.base = f.MaxTXID
	} else {
		p.lanes[0].next = sooner(p.lanes[0].next, p.compactor.Add(f, s.Timestamp))
	}
	p.lanes[1].next = sooner(p.lanes[1].next, p.now().Add(p.slack()))
	p.advance(f, s.Timestamp)
}

// advance moves the cursor and tells who waits for it.
func (p *replica) advance(f store.LTXFile, at time.Time) {
	p.progress.advance(f, at, catalog.Past(p.now(), at, f))
	p.r.forget()
}

// syncTo returns when the replica has txid, or with the first error met.
func (p *replica) syncTo(ctx context.Context, txid ltx.TXID) error {
	p.worker.Hasten()
	for {
		done, moved, failed := p.progress.awaited(txid)
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
		failed = p.progress.failure()
		for _, hopeless := range []error{lease.ErrFenced, custody.ErrForeign, store.ErrMisplaced, store.ErrAuth} {
			if errors.Is(failed, hopeless) {
				return fmt.Errorf("sync to %s: %w", p.o.Name, failed)
			}
		}
	}
}

// status composes what is known now.
func (p *replica) status() ReplicaStatus {
	s, cursor, known := p.progress.status()
	s.TXID, s.Guard = cursor, p.lease.Guard()
	if !known {
		cursor = 0
	} else if at := p.r.caughtUp(cursor); !at.IsZero() {
		s.CaughtUp = at
	}
	if p.o.Prices != nil {
		if dollars, known := p.o.Prices.Monthly(p.o.Requests, p.now().Sub(p.began), s.StoredBytes); known {
			s.MonthlyUSD = &dollars
		}
	}
	since := s.CaughtUp
	if since.IsZero() {
		since = p.began // nothing is known of before: the lag is at least this
	}
	spool := p.r.spool()
	if spool == nil {
		return s
	}
	for _, segment := range spool.After(cursor) {
		s.PendingBytes += segment.Size
	}
	if !known || spool.Last() > cursor || p.r.pending() || p.r.stuck() {
		s.LagSeconds = max(0, p.now().Sub(since).Seconds())
	}
	return s
}
