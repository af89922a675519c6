package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
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
}

// Bounds of one upload of merged segments.
const (
	maxBatchSegments = 128
	maxBatchBytes    = 64 << 20
)

// replica is one place that the database is shipped to. One goroutine at a time
// works for it (run); it ends when nothing is left to do and kick starts it again.
type replica struct {
	r       *Replicator
	o       ReplicaOptions
	store   store.Store
	log     *slog.Logger
	dir     string // for its state
	scratch string
	began   time.Time
	lease   *lease.Lease

	unchecked atomic.Bool // a store without conditional writes: look before writing
	tidying   atomic.Bool // its goroutine runs

	uploaded     atomic.Int64 // bytes
	failedDrills atomic.Uint64

	// What follows belongs to whoever holds work: the goroutine that ships, for
	// as long as it ships, and for moments the one that tidies up.
	work     sync.Mutex
	lastPut  time.Time
	recent   []store.LTXFile // files that compaction may still merge
	times    map[string]time.Time
	done     map[int]ltx.TXID // by level: compacted up to here
	base     ltx.TXID         // of the newest snapshot
	nextTidy time.Time        // zero: nothing to tidy up
	untidy   int              // failures in a row

	// These belong to the goroutine that tidies up.
	ledger   retention.Ledger // of what is unneeded
	retained time.Time        // when retention is to look again
	looked   time.Time        // when the newest state's files were looked for
	snapped  time.Time        // when a scheduled snapshot was last tried
	drilled  time.Time        // when a scheduled drill was
	messy    trouble          // what keeps it from being tidied up

	mu       sync.Mutex
	st       ReplicaStatus
	saved    saved
	cursor   ltx.TXID // everything up to here is durable in the replica
	known    bool     // what the replica holds was found out, and holds still: see doubt
	from     ltx.TXID // capture's position was taken from this replica
	running  bool
	urgent   bool // do not wait for SyncEvery
	failed   error
	late     trouble // of failed
	timer    *time.Timer
	wake     chan struct{}
	hurry    chan struct{} // ends a backoff
	progress chan struct{} // closed and replaced when cursor or an error moves
}

func newReplica(r *Replicator, o ReplicaOptions) *replica {
	o.SyncEvery = cmp.Or(o.SyncEvery, time.Second)
	o.SnapshotEvery = cmp.Or(o.SnapshotEvery, 24*time.Hour)
	o.Retention.Keep = cmp.Or(o.Retention.Keep, 720*time.Hour)
	o.Retention.Grace = cmp.Or(o.Retention.Grace, retention.DefaultGrace)
	if o.Requests == nil {
		o.Requests = &requests.Counts{}
	}
	p := &replica{
		r: r, o: o, store: o.Store, log: r.log.With("replica", o.Name), dir: r.replicaDir(), scratch: r.scratchDir(),
		times: map[string]time.Time{}, done: map[int]ltx.TXID{},
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), progress: make(chan struct{}),
	}
	p.began = p.now()
	p.retained, p.looked = p.began.Add(firstRetention), p.began
	p.st = ReplicaStatus{Name: o.Name, Healthy: true, Objective: o.SyncEvery}
	p.lease = lease.New(lease.Options{Store: o.Store, Owner: r.o.Owner, Boot: r.o.Boot, Self: lease.ThisProcess(), Clock: r.o.Clock, Save: p.saveNonces})
	return p
}

func (p *replica) now() time.Time { return p.r.o.Clock() }

// kick makes sure that the replica's goroutine runs and looks.
func (p *replica) kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if p.running {
		select {
		case p.wake <- struct{}{}:
		default:
		}
		return
	}
	p.r.mu.Lock()
	ctx := p.r.shipping
	if ctx.Err() == nil {
		p.running = true
		p.r.workers.Go(func() { p.run(ctx) })
	}
	p.r.mu.Unlock()
}

// longWait is from when on a wait is a timer and not a goroutine.
const longWait = 10 * time.Second

// run works until there is nothing to do for a while.
func (p *replica) run(ctx context.Context) {
	for failures := 0; ; {
		wait, err := p.turn(ctx)
		if p.record(err); err != nil && ctx.Err() == nil {
			failures++
			wait = patience(err, failures)
		} else {
			failures = 0
		}
		if p.rest(ctx, wait, failures > 0) {
			return
		}
	}
}

// rest waits; it reports true when the goroutine is to end, a timer being set
// where there is something to come back for. A failure is waited out even when
// more commits arrive; who is urgent is not kept waiting.
func (p *replica) rest(ctx context.Context, wait time.Duration, failing bool) (end bool) {
	p.mu.Lock()
	if p.urgent && !failing {
		wait = 0
	}
	if ctx.Err() != nil || !failing && !p.urgent && (wait < 0 || wait >= longWait) && len(p.wake) == 0 {
		p.running = false
		if wait >= 0 && ctx.Err() == nil {
			p.timer = time.AfterFunc(wait, p.kick)
		}
		p.mu.Unlock()
		return true
	}
	p.mu.Unlock()
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	wake := p.wake
	if failing {
		wake = nil
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	case <-p.hurry:
	}
	if failing {
		select {
		case <-p.wake:
		default:
		}
	}
	return false
}

// backoff is a full-jitter wait that grows to 15 seconds: after an outage of any
// length the replica is up to date within that.
func backoff(failures int) time.Duration {
	return 100*time.Millisecond + rand.N(min(15*time.Second, 250*time.Millisecond<<min(failures, 10)))
}

// patience is the wait after err: what only a person can cure is not asked often.
func patience(err error, failures int) time.Duration {
	for _, slow := range []error{store.ErrAuth, store.ErrMisplaced, ErrForeign, lease.ErrFenced, lease.ErrHeld} {
		if errors.Is(err, slow) {
			return min(backoff(failures)*4, 30*time.Second)
		}
	}
	return backoff(failures)
}

// turn does what is due and returns how long to wait for the next; negative is
// for ever. What keeps the replica tidy is done beside it.
func (p *replica) turn(ctx context.Context) (time.Duration, error) {
	p.work.Lock()
	defer p.work.Unlock()
	spool := p.r.spool()
	if spool == nil {
		return -1, nil // the capture's first turn kicks
	}
	if _, known := p.position(); !known {
		if err := p.open(ctx); err != nil {
			return 0, err
		}
	}
	if wait, err := p.sync(ctx); err != nil || wait > 0 {
		p.doubtAfter(err)
		return wait, err
	}
	if p.nextTidy.IsZero() || p.tidying.Load() {
		return -1, nil
	}
	if wait := p.nextTidy.Sub(p.now()); wait > 0 {
		return wait, nil
	}
	p.tidying.Store(true)
	p.r.workers.Go(func() { p.tidy(ctx) })
	return -1, nil
}

// sync ships what there is, once that is due. A positive wait says when it is.
func (p *replica) sync(ctx context.Context) (time.Duration, error) {
	p.mu.Lock()
	urgent := p.urgent
	p.mu.Unlock()
	if wait := p.lastPut.Add(p.o.SyncEvery).Sub(p.now()); wait > 0 && !urgent {
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
		p.mu.Lock()
		p.urgent = p.urgent && err != nil
		p.mu.Unlock()
		return 0, err
	}
}

// waiting says whether anything is or will shortly be in the spool for us.
func (p *replica) waiting() bool {
	cursor, _ := p.position()
	return p.base == 0 || len(p.r.spool().After(cursor)) > 0 || p.r.pending()
}

// ship uploads the next batch of segments, if there is one.
func (p *replica) ship(ctx context.Context) (more bool, err error) {
	spool := p.r.spool() // before the position: who begins another chain casts doubt on that first
	cursor, known := p.position()
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
		p.log.Info("the replica lacks what is no longer in the spool: taking a snapshot", "has", cursor, "spool_from", segments[0].MinTXID)
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
	for n < len(segments) && n < maxBatchSegments && !segments[n].Snapshot() && segments[n].PageSize == segments[0].PageSize && bytes+segments[n].Size <= maxBatchBytes {
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
	body := store.Body{Size: first.Size, SHA256: first.SHA256, Open: func() (io.ReadCloser, error) { return os.Open(first.Path) }}
	if len(batch) > 1 {
		m, err := mergeSegments(ctx, p.scratch, "ship-"+p.fileName(), batch)
		if err != nil {
			return store.LTXFile{}, err
		}
		defer m.Discard()
		body = m.Body
	}
	var err error
	f.Object, err = p.create(ctx, store.LTXKey(f.Level, f.MinTXID, f.MaxTXID), body, notes(batch, body.SHA256))
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

// create stores an object that nobody may have stored before. When somebody
// has, it is looked at: our own earlier attempt, whose reply was lost, is a
// success; anything else is another writer, and we stop.
func (p *replica) create(ctx context.Context, key string, body store.Body, metadata map[string]string) (store.Object, error) {
	opts := store.PutOptions{Create: true, Metadata: metadata}
	if p.unchecked.Load() || p.lease.Unguarded() {
		existing, err := p.compare(ctx, key, body, metadata)
		if !errors.Is(err, store.ErrNotFound) {
			return existing, err
		}
		opts.Create = false
	}
	object, err := p.store.Put(ctx, key, body, opts)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && opts.Create:
		p.log.Warn("this store refuses conditional writes: nothing but the lease keeps two writers apart; make sure that only one sqlwatch uses this prefix")
		p.unchecked.Store(true)
		return p.create(ctx, key, body, metadata)
	case errors.Is(err, store.ErrExists):
		object, err = p.compare(ctx, key, body, metadata)
	}
	if err == nil {
		p.uploaded.Add(object.Size)
	}
	return object, err
}

// compare returns the object under key if it is what we would store there.
func (p *replica) compare(ctx context.Context, key string, body store.Body, metadata map[string]string) (store.Object, error) {
	_, object, err := p.store.Get(ctx, key, 0, 0)
	if err != nil {
		return store.Object{}, err
	}
	sameBytes := body.SHA256 != "" && object.Size == body.Size && object.Metadata[store.MetaSHA256] == body.SHA256
	// Written by an earlier version, the same batch may be other bytes.
	sameState := true
	for _, k := range []string{store.MetaLineage, store.MetaChecksum, store.MetaTimestamp} {
		sameState = sameState && metadata[k] != "" && object.Metadata[k] == metadata[k]
	}
	if sameBytes || sameState {
		return object, nil
	}
	return store.Object{}, p.lease.Fence(fmt.Errorf("%w: %s holds other bytes than ours: this writer has stopped; both histories can be restored; give each writer a prefix of its own and restart", lease.ErrFenced, key))
}

// stored notes that f, which ends with s, is durable in the replica.
func (p *replica) stored(f store.LTXFile, s spool.Segment) {
	p.times[f.Object.Key] = s.Timestamp
	if f.Snapshot() {
		p.base = f.MaxTXID
	} else {
		p.remember(f)
		end := p.when(f).Truncate(compactionIntervals[0]).Add(compactionIntervals[0])
		p.nextTidy = sooner(p.nextTidy, end.Add(p.slack()))
	}
	p.advance(f, s.Timestamp)
}

// advance moves the cursor and tells who waits for it.
func (p *replica) advance(f store.LTXFile, at time.Time) {
	p.mu.Lock()
	p.cursor = max(p.cursor, f.MaxTXID)
	p.st.StoredBytes += f.Object.Size
	if f.Snapshot() {
		p.st.LastSnapshot = p.past(at, f)
		if p.st.OldestRestorePoint.IsZero() {
			p.st.OldestRestorePoint = at
		}
	}
	p.tell()
	p.mu.Unlock()
	p.r.forget()
}

// tell wakes who waits for the cursor, under mu.
func (p *replica) tell() {
	close(p.progress)
	p.progress = make(chan struct{})
}

// syncTo returns when the replica has txid, or with the first error met.
func (p *replica) syncTo(ctx context.Context, txid ltx.TXID) error {
	select {
	case p.hurry <- struct{}{}: // who asks may know that the store is back
	default:
	}
	for {
		p.mu.Lock()
		done, progress, failed := p.known && p.cursor >= txid, p.progress, p.failed
		p.urgent = p.urgent || !done
		p.mu.Unlock()
		if done {
			return nil
		}
		p.kick()
		select {
		case <-progress:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sync to %s: %w", p.o.Name, ctx.Err()), failed)
		}
		p.mu.Lock()
		failed = p.failed
		p.mu.Unlock()
		if errors.Is(failed, lease.ErrFenced) || errors.Is(failed, ErrForeign) || errors.Is(failed, store.ErrMisplaced) || errors.Is(failed, store.ErrAuth) {
			return fmt.Errorf("sync to %s: %w", p.o.Name, failed)
		}
	}
}

func (p *replica) fileName() string { return strings.ReplaceAll(p.o.Name, "/", "_") }
