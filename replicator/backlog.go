package replicator

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

// backlog is what was captured and may not be in every replica yet: the spool's
// segments, since when each is known, and how far the replicas have come.
type backlog struct {
	limit    int64 // of the spool
	clock    func() time.Time
	replicas []*progress // complete before anything is captured
	segments atomic.Pointer[spool.Spool]

	mu      sync.Mutex // guards what follows; held over nothing, no other lock is taken under it
	marks   []mark     // ascending
	letGoAt time.Time  // when segments were last released
	full    bool       // capture stopped, until half of the limit is free
}

// mark says that every commit before at has a TXID of at most txid.
type mark struct {
	txid ltx.TXID
	at   time.Time
}

// spool returns the segments that wait, nil before the capture was first
// opened. It waits for nobody: Status asks at scrape.
func (b *backlog) spool() *spool.Spool { return b.segments.Load() }

// begins returns the TXID of the first state that capture has, or will have.
func (b *backlog) begins() ltx.TXID {
	spool := b.spool()
	if held := spool.List(); len(held) > 0 {
		return held[0].MaxTXID
	}
	return spool.Last() + 1
}

// mark notes that every commit before at has a TXID of at most txid.
func (b *backlog) mark(txid ltx.TXID, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.marks); n > 0 && b.marks[n-1].txid == txid {
		b.marks[n-1].at = at
	} else if n == 0 || b.marks[n-1].txid < txid {
		b.marks = append(b.marks, mark{txid, at})
	}
}

// caughtUp is the latest instant before which every commit is in TXIDs up to txid.
func (b *backlog) caughtUp(txid ltx.TXID) time.Time {
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
func (b *backlog) forget() {
	least := ltx.TXID(0)
	for i, p := range b.replicas {
		if cursor, _ := p.position(); i == 0 || cursor < least {
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

// advance moves a replica's cursor over f, which is of the moment at.
func (b *backlog) advance(p *progress, f store.LTXFile, at time.Time) {
	p.advance(f, at, catalog.Past(b.clock(), at, f))
	b.forget()
}

// setFull says whether capture has stopped because there is no room.
func (b *backlog) setFull(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

// To let go of segments takes several fsyncs, whatever their number; to keep them a
// while costs room only.
const (
	letGoEvery = 10 * time.Second
	letGoBytes = 8 << 20
)

// letGo releases segments once that is worth it.
func (b *backlog) letGo() error {
	held, now := b.spool().Bytes(), b.clock()
	b.mu.Lock()
	due := held > 0 && (now.Sub(b.letGoAt) >= letGoEvery || held >= min(letGoBytes, b.limit/8))
	if due {
		b.letGoAt = now
	}
	b.mu.Unlock()
	if !due {
		return nil
	}
	return b.release()
}

// release lets go of what every replica has. A replica that fails is not
// waited for when the spool runs full and another one does not: it gets a
// snapshot when it comes back.
func (b *backlog) release() error {
	spool := b.spool()
	b.mu.Lock()
	crowded := b.full || spool.Bytes() > b.limit/4*3
	b.mu.Unlock()
	upTo, some := ltx.TXID(0), false
	for _, p := range b.replicas {
		cursor, _ := p.position()
		if crowded && !p.healthy() {
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

// reconsider lets replicas be looked at anew where another chain was begun, or where
// one is ahead of what was captured: the state directory was lost or is an old one,
// and what comes need not join what the replica holds.
func (b *backlog) reconsider(another bool, last ltx.TXID) {
	for _, p := range b.replicas {
		if cursor, _ := p.position(); another || cursor > last {
			another = true
			p.doubt(b.caughtUp)
		}
	}
	if another {
		b.mu.Lock()
		b.marks = nil
		b.mu.Unlock()
	}
}

// doubtAfter makes the next turn look at the replica anew where err says that it is not
// what it was.
func (b *backlog) doubtAfter(p *progress, err error) {
	for _, anew := range []error{lease.ErrMoved, lease.ErrFenced, store.ErrMisplaced} {
		if errors.Is(err, anew) {
			p.doubt(b.caughtUp)
		}
	}
}
