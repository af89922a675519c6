package replicator

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// recoverable returns the TXID that the replica reaches and its time, and whether
// capture, whose own state is lost, may go on from the state there: whether it is ours.
func (p *replica) recoverable(ctx context.Context) (tip catalog.Tip, ours bool, err error) {
	s, err := p.look(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		return catalog.Tip{}, false, nil // for open to make, or to complain about
	}
	if err != nil {
		return catalog.Tip{}, false, err
	}
	return s.tip, lineage.Judge(p.evidence(s)) == lineage.Continue && s.continuous(), nil
}

// open finds out where the replica stands and whether its history is ours to
// continue. Where nothing proves that the next file may join the last, capture starts a
// new chain behind it.
func (p *replica) open(ctx context.Context) error {
	s, err := p.look(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		// Nothing is there. The first write makes a directory, where it may.
		if err = p.lease.Hold(ctx); err == nil {
			s, err = p.look(ctx)
		}
	}
	if err != nil {
		return err
	}
	v, err := p.judge(ctx, s)
	if err != nil {
		return err
	}
	if !s.continuous() || v == lineage.Succeed || !p.lease.Vacant() {
		// What is there is only final once the lease is ours.
		if err := p.lease.Hold(ctx); err != nil {
			return err
		}
		before := s.lease
		if s, err = p.look(ctx); err != nil {
			return err
		}
		if s.lease = before; s.taken || s.line.Found {
			if v, err = p.judge(ctx, s); err != nil {
				return err
			}
		}
	}
	if err := p.name(ctx, s, v); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.join(ctx, s, v); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.lease.Settle(); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.compactor.Load(ctx, s.tip.Levels); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.findSnapshots(ctx, s.tip); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	p.base = s.tip.Base
	for _, l := range p.lanes {
		l.next = p.now().Add(p.slack())
	}
	p.r.clearNote(p.log)
	p.progress.found(s.tip.TXID)
	return nil
}

// join makes what is shipped next fit behind the replica's tip.
func (p *replica) join(ctx context.Context, s sight, v lineage.Verdict) error {
	t, last := s.tip, p.r.spool().Last()
	joins := v != lineage.Succeed && s.continuous() && p.agrees(t)
	switch {
	case t.TXID == 0, joins && t.TXID <= last:
		return nil
	case joins:
		return p.r.rebase(ctx, t.TXID, t.At)
	case p.r.begins() > leapOver(t.TXID):
		return nil // a chain of ours that begins behind, with a snapshot
	}
	return p.r.rebase(ctx, leapOver(max(t.TXID, last)), t.At)
}

// agrees reports whether what we ship next may join the replica's tip: whether that is
// the state that we know by its TXID.
func (p *replica) agrees(t catalog.Tip) bool {
	from := ltx.TXID(p.from.Load())
	held := p.r.spool().List()
	sum, known := p.r.spool().ChecksumAt(t.TXID)
	switch {
	case t.TXID == 0, t.TXID == from, p.r.spool().Position().Pages == 0:
		return true // there is nothing to join, or the whole database is next
	case known:
		return t.Checksum == sum.String()
	case len(held) == 0 || held[0].MinTXID != t.TXID+1:
		return true // nothing of ours follows it: a snapshot is next
	}
	return t.Lineage == held[0].Lineage // let go of as shipped to here, unless the numbers only happen to meet
}

// findSnapshots learns the times of the oldest and the newest snapshot.
func (p *replica) findSnapshots(ctx context.Context, t catalog.Tip) error {
	if t.Newest.Object.Key == "" {
		return nil
	}
	oldest, err := catalog.TimeOf(ctx, p.store, t.Oldest)
	if err != nil {
		return err
	}
	newest, err := catalog.TimeOf(ctx, p.store, t.Newest)
	if err != nil {
		return err
	}
	newest = catalog.Past(p.now(), newest, t.Newest)
	p.progress.update(func(s *ReplicaStatus) { s.OldestRestorePoint, s.LastSnapshot = oldest, newest })
	return nil
}
