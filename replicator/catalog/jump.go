package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// ChainStep is the step of the TXIDs at which new chains begin: a writer that could not prove that
// it continues what the replica holds leaps to a multiple of it behind the end. If the chain's first
// snapshot tells what it follows (store.MetaAfter), the TXIDs between are known not to be missing.
// Snapshots of earlier versions do not tell; then that is known only if its TXID is the multiple.
const ChainStep ltx.TXID = 1 << 20

// chainBehind returns the first snapshot behind txid and, if that tells it, the TXID up to which
// the replica had files when it began its chain. told is also false if txid has no snapshot before
// it, or one behind that TXID, since then files that build on it may be missing.
func (p *planner) chainBehind(ctx context.Context, txid ltx.TXID) (first store.LTXFile, after ltx.TXID, told bool,
	err error) {
	for _, first = range p.snaps {
		if first.MaxTXID <= txid {
			continue
		}
		after, told, err = p.follows(ctx, first)
		base := p.base(txid)
		return first, after, told && base != nil && base.MaxTXID <= after, err
	}
	return store.LTXFile{}, 0, false, nil
}

// unstored turns a gap before txid into a *RangeError if nothing is lost there: another chain
// begins behind it, and its first states were never stored, or without a snapshot to build on.
func (p *planner) unstored(ctx context.Context, txid ltx.TXID, err error) error {
	var gap *GapError
	if !errors.As(err, &gap) {
		return err
	}
	first, after, told, lookErr := p.chainBehind(ctx, txid)
	if lookErr != nil {
		return lookErr
	}
	if !told || after > gap.Reached {
		return err
	}
	return &RangeError{Target: Target{TXID: txid}, First: RestorePoint{TXID: gap.Reached},
		Last: RestorePoint{TXID: first.MaxTXID}, Inside: true, Never: true}
}

// reach plans the state txid, the end of a file. If that cannot be built, because the snapshot
// that begins its chain has a later TXID, reach plans the last state of the previous chain.
func (p *planner) reach(ctx context.Context, txid ltx.TXID) (*Plan, error) {
	plan, err := p.plan(ctx, Target{TXID: txid})
	var between *RangeError
	if errors.As(err, &between) && between.Never {
		return p.plan(ctx, Target{TXID: between.First.TXID})
	}
	return plan, err
}

// last returns a file that ends at the highest TXID below before, without a key if there is
// none. Whether that TXID can be restored does not matter.
func (p *planner) last(ctx context.Context, before ltx.TXID) (last store.LTXFile, err error) {
	end, _, err := p.latest(ctx, span{to: before, clock: func(context.Context, store.LTXFile) (time.Time, error) {
		return time.Time{}, nil // the time does not matter
	}})
	if err != nil || end == 0 {
		return last, err
	}
	for _, s := range p.snaps {
		if s.MaxTXID == end {
			return s, nil
		}
	}
	for _, level := range p.levels {
		w, err := p.around(ctx, level, end)
		if err != nil {
			return last, err
		}
		for _, f := range w.files {
			if f.MaxTXID == end {
				return f, nil
			}
		}
	}
	return last, nil
}
