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

// Backlog is what was captured and may not be in every replica yet: the spool's segments,
// the times that they cover, and how far each replica has come.
type Backlog struct {
	Limit    int64 // of the spool, in bytes
	clock    func() time.Time
	replicas []*Progress // all are added before anything is captured
	segments atomic.Pointer[spool.Spool]

	mu      sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	marks   []mark     // ascending
	letGoAt time.Time  // when segments were last released
	full    bool       // capture has stopped because the spool is full
}

// NewBacklog returns an empty backlog; limit is the spool's, in bytes.
func NewBacklog(limit int64, clock func() time.Time) *Backlog {
	return &Backlog{Limit: limit, clock: clock}
}

// Serve adds a replica. Call it before anything is captured.
func (b *Backlog) Serve(p *Progress) { b.replicas = append(b.replicas, p) }

// Captured sets the spool that capture writes to from now on.
func (b *Backlog) Captured(s *spool.Spool) { b.segments.Store(s) }

// mark says that every commit before at has a TXID of at most txid.
type mark struct {
	txid ltx.TXID
	at   time.Time
}

// Spool returns the spool, nil before the capture was first opened. It takes no lock, because
// status is read at scrape.
func (b *Backlog) Spool() *spool.Spool { return b.segments.Load() }

// Begins returns the TXID of the first state in the spool, or of the next one if it is empty.
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

// CaughtUp returns the latest known instant before which every commit has a TXID of at most txid.
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
	if len(b.marks) > 4096 { // a long outage: without these marks CaughtUp is too old, never too new
		b.marks = slices.Delete(b.marks, 1, len(b.marks)/2)
	}
}

// Advance records that f, whose newest state is of the time at, is durable in a replica, and moves
// the cursor over it. If f is a snapshot beyond segments that the spool still has, the cursor
// stays, so that those are shipped too: their states are to be restorable.
func (b *Backlog) Advance(p *Progress, f store.LTXFile, at time.Time) {
	cursor, _ := p.Position()
	p.Advance(f, at, catalog.Past(b.clock(), at, f), f.Snapshot() && f.MaxTXID != cursor+1 && b.follows(cursor))
	b.forget()
}

// Pass moves a replica's cursor to its newest snapshot if the spool no longer has the segment
// that joins the cursor. It reports whether it did.
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

// Abandon moves a replica's cursor to its newest snapshot although the spool lists segments
// before that: the file of one is gone. Otherwise each turn would find it gone again and take
// another snapshot.
func (b *Backlog) Abandon(p *Progress) error {
	p.pass(p.Snapshot())
	b.forget()
	return b.Release()
}

// follows reports whether the spool has the segment that comes right after cursor.
func (b *Backlog) follows(cursor ltx.TXID) bool {
	next := b.Spool().After(cursor)
	return len(next) > 0 && next[0].MaxTXID == cursor+1
}

// Shipped returns the cursor of a replica that was found with the tip t of capture's own chain.
// If the tip is a snapshot, the replica may still lack segments before it.
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
			continue // between the previous chain and the snapshot that begins this one: nothing to build it on
		}
		if s.MaxTXID > reach && s.MaxTXID <= t.TXID && !whole {
			return s.MaxTXID - 1
		}
	}
	return t.TXID
}

// SetFull records whether capture has stopped because the spool is full.
func (b *Backlog) SetFull(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

// Releasing segments takes several fsyncs, however many they are; keeping them a while
// only costs room.
const (
	letGoEvery = 10 * time.Second
	letGoBytes = 8 << 20
)

// LetGo calls Release if enough time has passed or enough bytes are held since the last release.
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

// Release releases the segments that every replica has. When the spool runs full, it does not
// wait for a failing replica if another one is healthy: the failing one gets a snapshot when
// it comes back.
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

// Reconsider makes all replicas be examined again if another chain was begun, or if one of
// them is ahead of capture: the state directory was lost or is an old copy, and the next
// file need not join what the replicas hold.
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

// DoubtAfter makes the next turn examine the replica again if err says that its lease or its
// place has changed.
func (b *Backlog) DoubtAfter(p *Progress, err error) {
	for _, anew := range []error{lease.ErrMoved, lease.ErrFenced, store.ErrMisplaced} {
		if errors.Is(err, anew) {
			p.Doubt(b.CaughtUp)
		}
	}
}
