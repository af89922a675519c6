package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Batch is a restore point and how it was taken.
type Batch struct {
	TXID      ltx.TXID
	Timestamp time.Time // rises with the TXID
	Taken     moment.Stamp
}

// Point returns the batch as a restore point, with the time that the clock showed if known.
func (b Batch) Point() RestorePoint { return RestorePoint{b.TXID, shown(b.Timestamp, b.Taken)} }

// near is how close to the moment asked for clock readings must be to count as equal: of
// several, the later batch is chosen.
const near = 3 * time.Second

// planMoment plans the state of a moment: that of the newest batch taken at or before it.
//
// It searches timestamps, which rise with the TXID. They are the clock's readings except in
// stretches where the clock was set back; the newest batch lists these. For a moment in such a
// stretch it searches the clock's readings between every two steps of the clock, where they
// rise too, and chooses the reading nearest before the moment.
func (p *planner) planMoment(ctx context.Context, target Target) (*Plan, error) {
	tip, err := p.tip(ctx)
	if err != nil {
		return nil, err
	}
	_, stamp, err := p.taken(ctx, tip)
	if err != nil {
		return nil, store.Unreadable(ctx, tip.Object.Key, 1, err)
	}
	steps, err := p.steps(ctx, target, stamp.Steps)
	if err != nil {
		return nil, err
	}
	var best ltx.TXID
	var rivals []RestorePoint
	if slices.ContainsFunc(steps, func(s moment.Step) bool { return s.Holds(target.Timestamp) }) {
		best, rivals, err = p.resolveDisputed(ctx, target, steps)
	} else {
		best, err = p.resolveTime(ctx, target)
	}
	if err != nil {
		return nil, err
	}
	if best == 0 || p.base(best) == nil {
		return nil, p.outOfRange(ctx, target)
	}
	plan, err := p.reach(ctx, best)
	if err != nil {
		return nil, err
	}
	plan.Asked, plan.Steps, plan.Rival = target.Timestamp, steps, rivals
	plan.Next, err = p.following(ctx, plan.TXID)
	return plan, err
}

// steps returns the known steps of the clock: those that the newest batch lists, those of a batch
// near the target's time if the newest may have dropped them, and those of the end of each earlier
// chain. Nobody watched the clock between the end of a chain and the beginning of the next.
func (p *planner) steps(ctx context.Context, target Target, steps []moment.Step) ([]moment.Step, error) {
	const behind = 10 * time.Minute
	if len(steps) == moment.MaxSteps {
		end, _, err := p.latest(ctx, span{until: target.Timestamp.Add(behind), clock: p.time})
		if err != nil {
			return nil, err
		}
		if end > 0 && p.base(end) != nil {
			near, err := p.plan(ctx, Target{TXID: end})
			if err != nil {
				return nil, err
			}
			steps = append(slices.Clone(steps), near.Taken.Steps...)
		}
	}
	for i, s := range p.snaps {
		if i == 0 || s.MaxTXID/ChainStep == p.snaps[i-1].MaxTXID/ChainStep {
			continue
		}
		begins := s.MaxTXID // the first TXID of this chain
		after, told, err := p.follows(ctx, s)
		if err != nil {
			return nil, err
		}
		if told {
			begins = after + 1
		} else if s.MaxTXID%ChainStep != 0 {
			continue
		}
		last, err := p.last(ctx, begins)
		if err != nil {
			return nil, err
		}
		if last.MaxTXID == 0 || last.MaxTXID == s.MaxTXID-1 || p.base(last.MaxTXID) == nil {
			continue
		}
		at, stamp, err := p.taken(ctx, last)
		if err != nil {
			return nil, err
		}
		first, err := p.clock(ctx, s)
		if err != nil {
			return nil, err
		}
		steps = append(slices.Clone(steps), stamp.Steps...)
		steps = append(steps, moment.Step{TXID: begins, Stretch: moment.Unwatched(shown(at, stamp), first)})
	}
	slices.SortFunc(steps, func(a, b moment.Step) int { return cmp.Compare(a.TXID, b.TXID) })
	return steps, nil
}

// span is a range of TXIDs in which the clock's readings rise.
type span struct {
	from, to ltx.TXID // to is exclusive; 0: no end
	until    time.Time
	clock    func(context.Context, store.LTXFile) (time.Time, error)
}

// holds reports whether f ends before the span, or in it and was taken at or before until.
func (s *span) holds(ctx context.Context, f store.LTXFile) (bool, error) {
	if f.MaxTXID < s.from {
		return true, nil
	}
	if s.to != 0 && f.MaxTXID >= s.to {
		return false, nil
	}
	t, err := s.clock(ctx, f)
	return !t.After(s.until), err
}

// latest returns the end of the newest file for which s.holds is true, 0 if there is none. It
// searches each level separately: a lower one may be thinned out, a higher one lags behind.
// followed means that the next batch joins that end and is later, so nothing is in between.
func (p *planner) latest(ctx context.Context, s span) (best ltx.TXID, followed bool, err error) {
	holds := func(f store.LTXFile) (bool, error) { return s.holds(ctx, f) }
	for i := len(p.snaps) - 1; i >= 0 && best == 0; i-- {
		ok, err := holds(p.snaps[i])
		if err != nil {
			return 0, false, err
		}
		if ok {
			best = p.snaps[i].MaxTXID
		}
	}
	for i := len(p.levels) - 1; i >= 0; i-- { // finest first
		w, err := p.from(ctx, p.levels[i], 1)
		if err != nil {
			return 0, false, err
		}
		found, at, next, err := p.search(ctx, p.levels[i], w, holds)
		if err != nil {
			return 0, false, err
		}
		if len(found.files) == 0 {
			continue
		}
		end := found.files[at].MaxTXID
		best = max(best, end)
		if next != nil && next.MinTXID == end+1 && best == end {
			followed = true
			break
		}
	}
	if best < s.from {
		return 0, false, nil
	}
	return best, followed, nil
}

// resolveTime finds the newest batch taken at or before the target's time.
func (p *planner) resolveTime(ctx context.Context, target Target) (ltx.TXID, error) {
	exact := false // a batch was taken exactly then, so any missing batch is later
	best, followed, err := p.latest(ctx, span{until: target.Timestamp,
		clock: func(ctx context.Context, f store.LTXFile) (time.Time, error) {
			t, err := p.time(ctx, f)
			exact = exact || err == nil && t.Equal(target.Timestamp)
			return t, err
		}})
	if err != nil || best == 0 || followed || exact {
		return best, err
	}
	plan, err := p.reach(ctx, best)
	if err != nil {
		return 0, err
	}
	return plan.TXID, p.mayEnd(ctx, target, RestorePoint{plan.TXID, plan.Timestamp})
}

// resolveDisputed finds the newest batch at or before the target's time between every two steps
// of the clock, and chooses one of these; the others are rivals.
func (p *planner) resolveDisputed(ctx context.Context, target Target, steps []moment.Step) (ltx.TXID, []RestorePoint,
	error) {
	var found []RestorePoint
	s := span{until: target.Timestamp, clock: p.clock}
	for i := 0; i <= len(steps); i++ {
		if s.to = 0; i < len(steps) {
			s.to = steps[i].TXID
		}
		end, _, err := p.latest(ctx, s)
		if err != nil {
			return 0, nil, err
		}
		if s.from = s.to; end == 0 || p.base(end) == nil {
			continue
		}
		plan, err := p.reach(ctx, end)
		if err != nil {
			return 0, nil, err
		}
		found = append(found, RestorePoint{plan.TXID, plan.Time()})
	}
	if len(found) == 0 {
		return 0, nil, nil
	}
	best := found[0]
	for _, point := range found[1:] {
		if target.Timestamp.Sub(point.Timestamp) <= max(near, target.Timestamp.Sub(best.Timestamp)) {
			best = point
		}
	}
	rivals := slices.DeleteFunc(found, func(r RestorePoint) bool { return r == best })
	if best.Timestamp.Equal(target.Timestamp) {
		return best.TXID, rivals, nil
	}
	return best.TXID, rivals, p.mayEnd(ctx, target, best)
}

// mayEnd returns an error for a moment after the batch best if best is the newest one, since the
// replica cannot know whether the database changed later, or if batches behind it are missing.
func (p *planner) mayEnd(ctx context.Context, target Target, best RestorePoint) error {
	end, err := p.newest(ctx)
	switch {
	case err != nil:
		return err
	case end > best.TXID:
		return p.followed(ctx, best.TXID)
	case best.Timestamp.Before(target.Timestamp):
		return p.outOfRange(ctx, target)
	}
	return nil
}

// followed returns a *GapError if batches right behind best are missing while later ones exist:
// somebody removed them, or retention deleted them but kept an older chain. The moment asked for
// may have been among the missing ones.
func (p *planner) followed(ctx context.Context, best ltx.TXID) error {
	gap := &GapError{From: best + 1, To: math.MaxUint64, Reached: best}
	err := p.behind(ctx, best, func(f store.LTXFile) {
		if f.Snapshot() {
			gap.To = min(gap.To, f.MaxTXID-1) // a snapshot has one state, not those before it
		} else {
			gap.To = min(gap.To, f.MinTXID-1)
		}
	})
	if err != nil || gap.To <= best {
		return err
	}
	_, after, told, err := p.chainBehind(ctx, best)
	switch {
	case err != nil:
		return err
	case told && after <= best, !told && (gap.To+1)%ChainStep == 0:
		return nil
	case told:
		gap.To = min(gap.To, after)
	}
	return gap
}

// behind calls f with the snapshots behind best, and with the files of each level around best
// that reach beyond it.
func (p *planner) behind(ctx context.Context, best ltx.TXID, f func(store.LTXFile)) error {
	for _, s := range p.snaps {
		if s.MaxTXID > best {
			f(s)
		}
	}
	for _, level := range p.levels {
		w, err := p.around(ctx, level, best+1)
		if err != nil {
			return err
		}
		for _, file := range w.files {
			if file.MaxTXID > best && !file.Snapshot() {
				f(file)
			}
		}
	}
	return nil
}

// following returns the next restore point behind best, nil when there is none.
func (p *planner) following(ctx context.Context, best ltx.TXID) (*Batch, error) {
	var next store.LTXFile
	err := p.behind(ctx, best, func(f store.LTXFile) {
		if next.MaxTXID == 0 || f.MaxTXID < next.MaxTXID || f.MaxTXID == next.MaxTXID && f.MinTXID > next.MinTXID {
			next = f
		}
	})
	if err != nil || next.MaxTXID == 0 {
		return nil, err
	}
	if next.MinTXID > best+1 { // it does not join best, and may have nothing to build on
		first, after, told, err := p.chainBehind(ctx, best)
		if err != nil {
			return nil, err
		}
		if told && after <= best {
			next = first
		}
	}
	at, stamp, err := p.taken(ctx, next)
	if err != nil {
		return nil, store.Unreadable(ctx, next.Object.Key, 1, err)
	}
	if next.MinTXID != best+1 && next.MaxTXID != best+1 {
		stamp.Since = time.Time{} // it does not say when the commits right behind best began
	}
	return &Batch{next.MaxTXID, at, stamp}, nil
}

// outOfRange returns the *RangeError for a target before the first or after the last state.
func (p *planner) outOfRange(ctx context.Context, target Target) error {
	first, err := p.clock(ctx, p.snaps[0])
	if err != nil {
		return err
	}
	end, err := p.newest(ctx)
	if err != nil {
		return err
	}
	e := &RangeError{Target: target, First: RestorePoint{p.snaps[0].MaxTXID, first}}
	last, err := p.plan(ctx, Target{TXID: end})
	if err != nil { // the end cannot be restored either, because of a gap: report both
		return errors.Join(fmt.Errorf("%v is outside of what can be restored", target.Timestamp), err)
	}
	e.Last = RestorePoint{last.TXID, last.Time()}
	return e
}
