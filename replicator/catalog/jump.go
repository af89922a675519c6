package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// ChainStep divides the first TXID of every chain whose writer could not prove what the
// replica holds, but the first: it begins behind that, there. Where its first snapshot
// tells what it follows (store.MetaAfter), the TXIDs between are known not to be missing;
// of one that does not, as of earlier versions, only where it is of that very TXID.
const ChainStep ltx.TXID = 1 << 20

// chainBehind returns the first snapshot behind txid, and, where that tells it, up to which TXID
// the replica had files when it began a chain. Told is also false where a whole
// database was stored behind that one later, on which others may rest.
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

// unstored explains a gap before txid which is none, because another chain begins there:
// nothing of it was ever stored, or nothing to rest on.
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

// reach plans the state txid, the end of a file; where that has nothing to rest on, since
// the snapshot that begins its chain is of a later TXID, the last state of the chain before.
func (p *planner) reach(ctx context.Context, txid ltx.TXID) (*Plan, error) {
	plan, err := p.plan(ctx, Target{TXID: txid})
	var between *RangeError
	if errors.As(err, &between) && between.Never {
		return p.plan(ctx, Target{TXID: between.First.TXID})
	}
	return plan, err
}

// last returns a file that ends at the highest TXID before `before`; one without a key
// where there is none. Whether it can be restored does not matter.
func (p *planner) last(ctx context.Context, before ltx.TXID) (last store.LTXFile, err error) {
	end, _, err := p.latest(ctx, span{to: before, clock: func(context.Context, store.LTXFile) (time.Time, error) {
		return time.Time{}, nil // whenever it was
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
