// Package progress is what was captured and how far each replica has come with it: the
// backlog is the spool with its marks, a Progress is one replica's cursor and status.
package progress

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

// Progress is how far a replica has come and how it fares: what Status tells and what
// a sync waits for.
type Progress struct {
	log   *slog.Logger
	Clock func() time.Time
	Began time.Time // nothing is known of before

	mu     sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	st     Status
	cursor ltx.TXID  // everything up to here is durable in the replica
	known  bool      // what the replica holds was found out, and holds still: see doubt
	base   ltx.TXID  // of the newest snapshot; 0: one is needed
	full   time.Time // when that was taken
	ends   Ends
	line   lineage.Lineage
	failed error
	late   worker.Trouble // of failed
	moved  chan struct{}  // closed and replaced when cursor or an error moves
}

func New(log *slog.Logger, clock func() time.Time, name string, objective time.Duration) *Progress {
	return &Progress{
		log: log, Clock: clock, Began: clock(), moved: make(chan struct{}),
		st: Status{Name: name, Healthy: true, Objective: objective},
	}
}

// Position returns the cursor. While it is not known it is 0: of the chain that
// capture is on, the replica may have nothing.
func (p *Progress) Position() (cursor ltx.TXID, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		return 0, false
	}
	return p.cursor, true
}

// Healthy reports whether the last attempt at anything succeeded.
func (p *Progress) Healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed == nil && p.known
}

// Behind reports whether the replica lacks anything up to txid, or may.
func (p *Progress) Behind(txid ltx.TXID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.known || p.cursor < txid
}

// Snapshot returns the TXID of the newest snapshot, 0 where one is needed.
func (p *Progress) Snapshot() ltx.TXID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base
}

// Ends are the first and the last file of what makes the newest state, as far as is
// known: a snapshot, and what reaches the cursor. They may be one.
type Ends struct{ First, Last string } // keys, "" where not known

// Ends returns the ends of what the replica is to hold.
func (p *Progress) Ends() Ends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends
}

// SetEnds notes that others stand in for the ends that were known.
func (p *Progress) SetEnds(known, now Ends) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ends == known { // nothing was stored in the meantime
		p.ends = now
	}
}

// ForEver is no snapshot's TXID: all are of less.
const ForEver = ^ltx.TXID(0)

// FullAt returns when the newest snapshot was taken.
func (p *Progress) FullAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// Snapshots notes when the oldest and the newest snapshot were taken.
func (p *Progress) Snapshots(oldest, newest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.OldestRestorePoint, p.st.LastSnapshot, p.full = oldest, newest, newest
}

// Lost notes that nothing can be built on snapshots of less than txid.
func (p *Progress) Lost(txid ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if txid > p.base {
		p.base = 0
	}
}

// Found sets the cursor to what the replica was found to hold, up to the TXID shipped.
func (p *Progress) Found(t catalog.Tip, shipped ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor, p.base, p.known = shipped, t.Base, true
	p.ends = Ends{t.Newest.Object.Key, t.Last}
	p.tell() // a sync may have been asked for before: perhaps nothing is left to store
}

// Doubt makes the next turn determine again what the replica holds.
func (p *Progress) Doubt(caughtUp func(ltx.TXID) time.Time) {
	cursor, known := p.Position()
	if !known {
		return
	}
	at := caughtUp(cursor)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.st.CaughtUp = false, at
}

// Judged notes whether the replica may be written to, and of which lineage it is.
func (p *Progress) Judged(v lineage.Verdict, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.Custody, p.st.Lineage = v, id
}

// Looked notes what the replica was found to hold in all.
func (p *Progress) Looked(f retention.Found) {
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

// Claimed notes the lineage that is written to.
func (p *Progress) Claimed(l lineage.Lineage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line, p.st.Lineage = l, l.ID
}

// Lineage returns the lineage that is written to.
func (p *Progress) Lineage() lineage.Lineage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line
}

// Advance moves the cursor over f, which is of the moment at, unless it is to stay, and tells
// who waits for it.
func (p *Progress) Advance(f store.LTXFile, at, past time.Time, stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !stay {
		p.cursor = max(p.cursor, f.MaxTXID)
	}
	p.st.StoredBytes += f.Object.Size
	if f.MaxTXID >= p.cursor {
		p.ends.Last = f.Object.Key
	}
	if f.Snapshot() {
		p.ends.First = f.Object.Key
		p.base = max(p.base, f.MaxTXID)
		p.st.LastSnapshot, p.full = past, past
		if p.st.OldestRestorePoint.IsZero() {
			p.st.OldestRestorePoint = at
		}
	}
	p.tell()
}

// pass moves the cursor to a snapshot of txid.
func (p *Progress) pass(txid ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor = max(p.cursor, txid)
	p.tell()
}

// tell wakes who waits, under mu.
func (p *Progress) tell() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// Awaited returns whether txid is there with a snapshot to build it on, what ends the wait
// for more, and the last error.
func (p *Progress) Awaited(txid ltx.TXID) (done bool, moved <-chan struct{}, failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known && p.cursor >= txid && (p.base != 0 || txid == 0), p.moved, p.failed
}

// Failure returns the last error, nil after a success.
func (p *Progress) Failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Record publishes how the last turn went, and logs when that changes.
func (p *Progress) Record(err error) {
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
		p.st.Err, p.st.Reason = err.Error(), ReasonOf(err)
		if p.st.FailingSince.IsZero() {
			p.st.FailingSince = p.Clock()
		}
		p.tell()
	}
	switch {
	case err == nil && p.late.Over():
		p.log.Info("the replica works again")
	case errors.Is(err, lease.ErrConfirming): // for a few seconds
	case errors.Is(err, lease.ErrHeld):
		if p.late.Met("held", p.Clock()) {
			p.log.Warn("the replica is not written to yet; commits are kept in the spool", "err", err)
		}
	case err != nil && p.late.Met(ReasonOf(err), p.Clock()):
		p.log.Error("the replica cannot be brought up to date; commits are kept in the spool and the attempt is repeated",
			"err", err)
	}
}

// ReasonOf names the kind of a failure, so that another kind is logged as well.
func ReasonOf(err error) string {
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

// Update changes the published status.
func (p *Progress) Update(f func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.st)
}

// Status returns what was published last.
func (p *Progress) Status() (s Status, cursor ltx.TXID, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st, p.cursor, p.known
}
