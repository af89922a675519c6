package replicator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/retention"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// progress is how far a replica has come and how it fares: what Status tells and what
// a sync waits for.
type progress struct {
	log   *slog.Logger
	clock func() time.Time
	began time.Time // nothing is known of before

	mu     sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	st     ReplicaStatus
	cursor ltx.TXID  // everything up to here is durable in the replica
	known  bool      // what the replica holds was found out, and holds still: see doubt
	base   ltx.TXID  // of the newest snapshot; 0: one is needed
	full   time.Time // when that was taken
	line   lineage.Lineage
	failed error
	late   worker.Trouble // of failed
	moved  chan struct{}  // closed and replaced when cursor or an error moves
}

func newProgress(log *slog.Logger, clock func() time.Time, o ReplicaOptions) *progress {
	return &progress{
		log: log, clock: clock, began: clock(), moved: make(chan struct{}),
		st: ReplicaStatus{Name: o.Name, Healthy: true, Objective: o.SyncEvery},
	}
}

// position returns the cursor. While it is not known it is 0: of the chain that
// capture is on, the replica may have nothing.
func (p *progress) position() (cursor ltx.TXID, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		return 0, false
	}
	return p.cursor, true
}

// healthy reports whether the last attempt at anything succeeded.
func (p *progress) healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed == nil && p.known
}

// behind reports whether the replica lacks anything up to txid, or may.
func (p *progress) behind(txid ltx.TXID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.known || p.cursor < txid
}

// snapshot returns the TXID of the newest snapshot, 0 where one is needed.
func (p *progress) snapshot() ltx.TXID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base
}

// forEver is no snapshot's TXID: all are of less.
const forEver = ^ltx.TXID(0)

// fullAt returns when the newest snapshot was taken.
func (p *progress) fullAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// snapshots notes when the oldest and the newest snapshot were taken.
func (p *progress) snapshots(oldest, newest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.OldestRestorePoint, p.st.LastSnapshot, p.full = oldest, newest, newest
}

// lost notes that nothing can be built on snapshots of less than txid.
func (p *progress) lost(txid ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if txid > p.base {
		p.base = 0
	}
}

// found sets the cursor to what the replica was found to hold.
func (p *progress) found(t catalog.Tip) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor, p.base, p.known = t.TXID, t.Base, true
	p.tell() // a sync may have been asked for before: perhaps nothing is left to store
}

// doubt makes the next turn find out anew what the replica holds.
func (p *progress) doubt(caughtUp func(ltx.TXID) time.Time) {
	cursor, known := p.position()
	if !known {
		return
	}
	at := caughtUp(cursor)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.st.CaughtUp = false, at
}

// judged notes whether the replica may be written to, and of which lineage it is.
func (p *progress) judged(v lineage.Verdict, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.Custody, p.st.Lineage = v, id
}

// looked notes what the replica was found to hold in all.
func (p *progress) looked(f retention.Found) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.StoredBytes, p.st.OldestRestorePoint = f.Bytes, f.Oldest
	if f.Newest.After(p.full) {
		p.full = f.Newest
	}
	if f.Newest.After(p.st.LastSnapshot) {
		p.st.LastSnapshot = f.Newest
	}
}

// claimed notes the lineage that is written to.
func (p *progress) claimed(l lineage.Lineage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line, p.st.Lineage = l, l.ID
}

// lineage returns the lineage that is written to.
func (p *progress) lineage() lineage.Lineage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line
}

// advance moves the cursor over f, which is of the moment at, and tells who waits for it.
func (p *progress) advance(f store.LTXFile, at, past time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor = max(p.cursor, f.MaxTXID)
	p.st.StoredBytes += f.Object.Size
	if f.Snapshot() {
		p.base = max(p.base, f.MaxTXID)
		p.st.LastSnapshot, p.full = past, past
		if p.st.OldestRestorePoint.IsZero() {
			p.st.OldestRestorePoint = at
		}
	}
	p.tell()
}

// tell wakes who waits, under mu.
func (p *progress) tell() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// awaited returns whether txid is there, what ends the wait for more, and the last error.
func (p *progress) awaited(txid ltx.TXID) (done bool, moved <-chan struct{}, failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known && p.cursor >= txid, p.moved, p.failed
}

// failure returns the last error, nil after a success.
func (p *progress) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// record publishes how the last turn went, and logs when that changes.
func (p *progress) record(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err
	p.st.Healthy, p.st.Err, p.st.Reason = err == nil, "", ""
	if err == nil {
		p.st.FailingSince = time.Time{}
	} else {
		p.st.Err, p.st.Reason = err.Error(), reasonOf(err)
		if p.st.FailingSince.IsZero() {
			p.st.FailingSince = p.clock()
		}
		p.tell()
	}
	switch {
	case err == nil && p.late.Over():
		p.log.Info("the replica works again")
	case errors.Is(err, lease.ErrConfirming): // for a few seconds
	case errors.Is(err, lease.ErrHeld):
		if p.late.Met("held", p.clock()) {
			p.log.Warn("the replica is not written to yet; commits are kept in the spool", "err", err)
		}
	case err != nil && p.late.Met(reasonOf(err), p.clock()):
		p.log.Error("the replica cannot be brought up to date; commits are kept in the spool and the attempt is repeated",
			"err", err)
	}
}

// reasonOf names the kind of a failure, so that another kind is logged as well.
func reasonOf(err error) string {
	var claim *custody.ClaimError
	switch {
	case errors.As(err, &claim) && claim.Verdict != lineage.Diverged:
		return "foreign"
	case errors.Is(err, lease.ErrFenced):
		return "fenced"
	case errors.Is(err, lease.ErrHeld):
		return "held"
	case errors.Is(err, lease.ErrMoved):
		return "looking_anew"
	}
	return store.FailureReason(err)
}

// update changes the published status.
func (p *progress) update(f func(*ReplicaStatus)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.st)
}

// status returns what was published last.
func (p *progress) status() (s ReplicaStatus, cursor ltx.TXID, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st, p.cursor, p.known
}
