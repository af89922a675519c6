package progress

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Backlog is what was captured and may not be in every replica yet: the spool's
// segments, since when each is known, and how far the replicas have come.
type Backlog struct {
	Limit    int64 // of the spool
	clock    func() time.Time
	replicas []*Progress // complete before anything is captured
	segments atomic.Pointer[spool.Spool]

	mu      sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	marks   []mark     // ascending
	letGoAt time.Time  // when segments were last released
	full    bool       // capture stopped, until half of the limit is free
}

// NewBacklog returns one of a spool with a limit, in bytes, that nothing was captured into.
func NewBacklog(limit int64, clock func() time.Time) *Backlog {
	return &Backlog{Limit: limit, clock: clock}
}

// Serve adds a replica. All are known before anything is captured.
func (b *Backlog) Serve(p *Progress) { b.replicas = append(b.replicas, p) }

// Captured says into which spool is captured from now on.
func (b *Backlog) Captured(s *spool.Spool) { b.segments.Store(s) }

// mark says that every commit before at has a TXID of at most txid.
type mark struct {
	txid ltx.TXID
	at   time.Time
}

// Spool returns the segments that wait, nil before the capture was first
// opened. It waits for nobody: Status asks at scrape.
func (b *Backlog) Spool() *spool.Spool { return b.segments.Load() }

// Begins returns the TXID of the first state that capture has, or will have.
func (b *Backlog) Begins() ltx.TXID {
	spool := b.Spool()
	if held := spool.List(); len(held) > 0 {
		return held[0].MaxTXID
	}
	return spool.Last() + 1
}

// Mark notes that every commit before at has a TXID of at most txid.
func (b *Backlog) Mark(txid ltx.TXID, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.marks); n > 0 && b.marks[n-1].txid == txid {
		b.marks[n-1].at = at
	} else if n == 0 || b.marks[n-1].txid < txid {
		b.marks = append(b.marks, mark{txid, at})
	}
}

// CaughtUp is the latest instant before which every commit is in TXIDs up to txid.
func (b *Backlog) CaughtUp(txid ltx.TXID) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var at time.Time
	for _, m := range b.marks {
		if m.txid <= txid {
			at = m.at
		}
	}
	return at
}

// forget drops marks that no replica needs any more.
func (b *Backlog) forget() {
	least := ltx.TXID(0)
	for i, p := range b.replicas {
		if cursor, _ := p.Position(); i == 0 || cursor < least {
			least = cursor
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.marks) > 1 && b.marks[1].txid <= least {
		b.marks = b.marks[1:]
	}
	if len(b.marks) > 4096 { // a long outage: the oldest marks give a freshness that is too old, never too new
		b.marks = slices.Delete(b.marks, 1, len(b.marks)/2)
	}
}

// Advance moves a replica's cursor over f, which is of the moment at. It stays in front of
// a snapshot while the spool has what follows it: those states are to be restorable too.
func (b *Backlog) Advance(p *Progress, f store.LTXFile, at time.Time) {
	cursor, _ := p.Position()
	p.Advance(f, at, catalog.Past(b.clock(), at, f), f.Snapshot() && f.MaxTXID != cursor+1 && b.follows(cursor))
	b.forget()
}

// Pass moves a replica's cursor to its newest snapshot, once the spool has no more what
// was to go out before that. It reports whether it did.
func (b *Backlog) Pass(p *Progress) bool {
	cursor, known := p.Position()
	base := p.Snapshot()
	if !known || base <= cursor || b.follows(cursor) {
		return false
	}
	p.pass(base)
	b.forget()
	return true
}

// Abandon moves a replica's cursor to its newest snapshot, although the spool lists what was
// to go out before that: a file of it is gone. Without this each turn would find it gone
// again, and take another snapshot.
func (b *Backlog) Abandon(p *Progress) error {
	p.pass(p.Snapshot())
	b.forget()
	return b.Release()
}

// follows reports whether the spool has the segment that joins cursor.
func (b *Backlog) follows(cursor ltx.TXID) bool {
	next := b.Spool().After(cursor)
	return len(next) > 0 && next[0].MaxTXID == cursor+1
}

// Shipped returns how far a replica has come that was found with the tip t, of the chain
// that capture is on. Where the tip is a snapshot, segments before it may not be there yet.
func (b *Backlog) Shipped(t catalog.Tip) ltx.TXID {
	reach := ltx.TXID(0)
	for level, end := range t.Levels {
		if level < store.SnapshotLevel {
			reach = max(reach, end)
		}
	}
	for _, s := range b.Spool().List() {
		whole := s.Snapshot() && (s.MaxTXID == t.Base || s.MaxTXID == t.Oldest.MaxTXID)
		if t.After > 0 && s.MaxTXID > t.After && !s.Snapshot() {
			continue // between the tip and the chain before: it would rest on nothing
		}
		if s.MaxTXID > reach && s.MaxTXID <= t.TXID && !whole {
			return s.MaxTXID - 1
		}
	}
	return t.TXID
}

// SetFull reports whether capture has stopped because there is no room.
func (b *Backlog) SetFull(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

// To release segments takes several fsyncs, whatever their number; to keep them a
// while costs room only.
const (
	letGoEvery = 10 * time.Second
	letGoBytes = 8 << 20
)

// LetGo releases segments once that is worth it.
func (b *Backlog) LetGo() error {
	held, now := b.Spool().Bytes(), b.clock()
	b.mu.Lock()
	due := held > 0 && (now.Sub(b.letGoAt) >= letGoEvery || held >= min(letGoBytes, b.Limit/8))
	if due {
		b.letGoAt = now
	}
	b.mu.Unlock()
	if !due {
		return nil
	}
	return b.Release()
}

// Release releases what every replica has. A replica that fails is not
// waited for when the spool runs full and another one does not: it gets a
// Snapshot when it comes back.
func (b *Backlog) Release() error {
	spool := b.Spool()
	b.mu.Lock()
	crowded := b.full || spool.Bytes() > b.Limit/4*3
	b.mu.Unlock()
	upTo, some := ltx.TXID(0), false
	for _, p := range b.replicas {
		cursor, _ := p.Position()
		if crowded && !p.Healthy() {
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

// Reconsider lets replicas be examined again where another chain was begun, or where
// one is ahead of what was captured: the state directory was lost or is an old one,
// and what comes need not join what the replica holds.
func (b *Backlog) Reconsider(another bool, last ltx.TXID) {
	for _, p := range b.replicas {
		if cursor, _ := p.Position(); another || cursor > last {
			another = true
			p.Doubt(b.CaughtUp)
		}
	}
	if another {
		b.mu.Lock()
		b.marks = nil
		b.mu.Unlock()
	}
}

// DoubtAfter makes the next turn examine the replica again where err says that it is not
// what it was.
func (b *Backlog) DoubtAfter(p *Progress, err error) {
	for _, anew := range []error{lease.ErrMoved, lease.ErrFenced, store.ErrMisplaced} {
		if errors.Is(err, anew) {
			p.Doubt(b.CaughtUp)
		}
	}
}
