// Package progress tracks how far each replica has come: Backlog is the captured segments with
// the times they cover, Progress is one replica's cursor and status.
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

// Progress is a replica's cursor and status. A sync waits for the cursor; Status reports
// both.
type Progress struct {
	log   *slog.Logger
	Clock func() time.Time
	Began time.Time // when this Progress was made

	mu     sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	st     Status
	cursor ltx.TXID  // everything up to here is durable in the replica
	known  bool      // the replica was examined, and nothing has cast doubt on that: see Doubt
	base   ltx.TXID  // of the newest snapshot; 0: one is needed
	lost   ltx.TXID  // the end of the last file known to be lost that no snapshot has made good yet; 0: none
	missed bool      // something of the newest state was found missing, and no snapshot is known that makes it good
	full   time.Time // when the newest snapshot was taken
	ends   Ends
	line   lineage.Lineage
	failed error
	late   worker.Trouble // limits how often failed is logged
	moved  chan struct{}  // closed and replaced when the cursor moves or an error is recorded
}

func New(log *slog.Logger, clock func() time.Time, name string, objective time.Duration) *Progress {
	return &Progress{
		log: log, Clock: clock, Began: clock(), moved: make(chan struct{}),
		st: Status{Name: name, Healthy: true, Objective: objective},
	}
}

// Position returns the cursor. While it is unknown it is 0: the replica may have nothing of
// capture's current chain.
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

// Ends are the keys of the first and the last file of the newest state: a snapshot, and the
// file that reaches the cursor. They may be the same file.
type Ends struct{ First, Last string } // "" if unknown

// Ends returns the first and the last file that the newest state of the replica should consist of.
func (p *Progress) Ends() Ends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends
}

// SetEnds replaces known, as read before a plan was made, by the ends of that plan.
func (p *Progress) SetEnds(known, now Ends) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ends == known { // nothing was stored in the meantime
		p.ends = now
	}
}

// ForEver is larger than any snapshot's TXID.
const ForEver = ^ltx.TXID(0)

// FullAt returns when the newest snapshot was taken.
func (p *Progress) FullAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// Snapshots records when the oldest and the newest snapshot were taken.
func (p *Progress) Snapshots(oldest, newest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.OldestRestorePoint, p.st.LastSnapshot, p.full = oldest, newest, newest
}

// Lost records that a file up to txid is lost: snapshots below txid cannot be built on any more,
// those that are found or stored later neither. It returns the end of the last lost file that no
// snapshot has made good, for Recall after a restart.
func (p *Progress) Lost(txid ltx.TXID) ltx.TXID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if txid > p.base {
		p.lost = max(p.lost, min(txid, max(p.cursor, p.base)))
		p.base = 0
	}
	return p.lost
}

// Recall is called before Found with what Lost has returned, perhaps long ago: Found sees whether that was made good.
func (p *Progress) Recall(lost ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = max(p.lost, lost)
}

// build makes the snapshot of txid the one to build on, unless a file behind it is lost. The caller holds mu.
func (p *Progress) build(txid ltx.TXID) {
	if txid < p.lost {
		return
	}
	p.base, p.lost, p.missed = max(p.base, txid), 0, p.missed && txid == 0
}

// Miss counts that something of the newest state is not there, once until it is made good: the replica is looked at
// again and again meanwhile.
func (p *Progress) Miss() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.missed {
		p.st.LostFiles++
	}
	p.missed = true
}

// Found records that the replica was found with the tip t, and sets the cursor to shipped.
func (p *Progress) Found(t catalog.Tip, shipped ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor, p.base, p.known = shipped, 0, true
	p.lost = min(p.lost, t.TXID) // files behind the tip are no part of what is there
	p.build(t.Base)
	p.ends = Ends{t.Newest.Object.Key, t.Last}
	p.tell() // a sync may be waiting, and the replica may have everything already
}

// Doubt makes the next turn examine again what the replica holds.
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

// Judged records the verdict about the replica, and the lineage found there.
func (p *Progress) Judged(v lineage.Verdict, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st.Custody, p.st.Lineage = v, id
}

// Looked records what retention found in a listing of the whole replica.
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

// Claimed records the lineage that we write to the replica.
func (p *Progress) Claimed(l lineage.Lineage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line, p.st.Lineage = l, l.ID
}

// Lineage returns the lineage that we write to the replica.
func (p *Progress) Lineage() lineage.Lineage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line
}

// Advance records that f is durable, moves the cursor over it unless stay is set, and wakes
// waiters. at is the time of f's newest state, past the same time but never in the future.
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
		p.build(f.MaxTXID)
		p.st.LastSnapshot, p.full = past, past
		if p.st.OldestRestorePoint.IsZero() {
			p.st.OldestRestorePoint = at
		}
	}
	p.tell()
}

// pass moves the cursor forward to txid, a snapshot's.
func (p *Progress) pass(txid ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cursor = max(p.cursor, txid)
	p.tell()
}

// tell wakes all waiters; the caller holds mu.
func (p *Progress) tell() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// Awaited reports whether the replica has txid and a snapshot to build it on. It also returns a
// channel that is closed at the next change, and the last error.
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

// Record publishes the result of the last turn, and logs changes of it.
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
	case errors.Is(err, lease.ErrConfirming): // over in a moment: not worth a line
	case errors.Is(err, lease.ErrHeld):
		if p.late.Met("held", p.Clock()) {
			p.log.Warn("the replica is not written to yet; commits are kept in the spool", "err", err)
		}
	case err != nil && p.late.Met(ReasonOf(err), p.Clock()):
		p.log.Error("the replica cannot be brought up to date; commits are kept in the spool and the attempt is repeated",
			"err", err)
	}
}

// ReasonOf names the kind of a failure in one word; only a change of kind is logged.
func ReasonOf(err error) string {
	var claim *custody.ClaimError
	var apart *retention.ClockError
	switch {
	case errors.As(err, &apart):
		return "clock"
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
