package replicator

import (
	"context"
	"errors"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// position returns the cursor. While it is not known it is 0: of the chain that
// capture is on, the replica may have nothing.
func (p *replica) position() (cursor ltx.TXID, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		return 0, false
	}
	return p.cursor, true
}

// healthy says whether the last attempt at anything succeeded.
func (p *replica) healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed == nil && p.known
}

// doubt makes the next turn find out anew what the replica holds.
func (p *replica) doubt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		p.known, p.st.CaughtUp = false, p.r.caughtUp(p.cursor)
	}
}

// doubtAfter does so where err says that the replica is not what it was.
func (p *replica) doubtAfter(err error) {
	if errors.Is(err, lease.ErrMoved) || errors.Is(err, store.ErrMisplaced) {
		p.doubt()
	}
}

// behind says whether the replica lacks anything up to txid, or may.
func (p *replica) behind(txid ltx.TXID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.known || p.cursor < txid
}

// record publishes how the last turn went, and logs when that changes.
func (p *replica) record(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err
	p.st.Healthy, p.st.Err = err == nil, ""
	if err != nil {
		p.st.Err = err.Error()
		p.tell()
	}
	switch {
	case err == nil && p.late.over():
		p.log.Info("the replica works again")
	case errors.Is(err, lease.ErrHeld):
		if p.late.met("held", p.now()) {
			p.log.Warn("the replica is not written to yet; commits are kept in the spool", "err", err)
		}
	case err != nil && p.late.met(store.FailureReason(err), p.now()):
		p.log.Error("the replica cannot be brought up to date; commits are kept in the spool and the attempt is repeated", "err", err)
	}
}

// update changes the published status.
func (p *replica) update(f func(*ReplicaStatus)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.st)
}

// status composes what is known now.
func (p *replica) status() ReplicaStatus {
	p.mu.Lock()
	s, cursor, known := p.st, p.cursor, p.known
	p.mu.Unlock()
	s.TXID = cursor
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
