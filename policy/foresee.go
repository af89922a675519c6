package policy

import (
	"math"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// foresee returns when the policy could act if all measurements stay as they are: when no guard
// refuses any more and its window is open, or when max_defer has passed. Zero means that this
// cannot be predicted.
func (s *step) foresee() time.Time {
	at := later(s.e.in.Now, s.armsAt)
	for _, r := range s.refusals {
		switch {
		case r.Guard == GuardWindow: // see below
		case r.until.IsZero():
			return time.Time{}
		default:
			at = later(at, r.until)
		}
	}
	if s.p.window == nil {
		return at
	}
	opens, known := s.opensFrom(at)
	if s.p.MaxDefer > 0 {
		deadline := later(s.st.ArmedSince, s.armsAt).Add(s.p.MaxDefer)
		if !known || deadline.Before(opens) {
			return later(at, deadline)
		}
	}
	return opens
}

// opensFrom returns when the policy's window is first open, beginning at a given time; ok is
// false if that cannot be predicted.
func (s *step) opensFrom(at time.Time) (opens time.Time, ok bool) {
	if s.p.foretold {
		return s.e.set.opensFrom(s.p, at)
	}
	now := s.e.in.Now
	st, _ := s.values.Window(s.p.window)
	switch {
	case st.Open == True && (!at.After(now) || at.Before(now.Add(seconds(st.ClosesIn))) && st.ClosesIn == st.ClosesIn):
		return at, true
	case st.Open == False && !math.IsNaN(st.OpensIn):
		opens = now.Add(seconds(st.OpensIn))
		return opens, !at.After(opens)
	}
	return time.Time{}, false
}

// scheduled reports whether a window depends on the calendar alone.
func (s *Set) scheduled(x hclsyntax.Expression) bool {
	for _, t := range x.Variables() {
		if len(t) < 2 {
			return false
		}
		attr, _ := t[1].(hcl.TraverseAttr)
		if w := s.Windows[attr.Name]; t.RootName() != "window" || w == nil || !w.Scheduled() {
			return false
		}
	}
	return true
}

// opening caches when a policy's window opens: it is closed from one time until the other. A
// thousand databases ask for the same at each tick.
type opening struct {
	from, at time.Time
	never    bool // it is not even open at the end of the search
}

// maxChanges bounds the search for an opening: two windows that must be open at the same time may never be.
const maxChanges = 2000

// opensFrom returns when the window of a policy that depends on the calendar alone is first open,
// beginning at a given time. It examines windows only when they change.
func (s *Set) opensFrom(p *Policy, from time.Time) (opens time.Time, ok bool) {
	if known := p.opens.Load(); known != nil && !from.Before(known.from) && from.Before(known.at) {
		return known.at, !known.never
	}
	at := from
	for range maxChanges {
		e := s.program.At(lang.Moment{Now: at, Sample: &collector.Sample{At: at}})
		e.SetWindows(s.windows.States(nil, e, at))
		if st, _ := e.Window(p.window); st.Open == True {
			if at.After(from) {
				p.opens.Store(&opening{from: from, at: at})
			}
			return at, true
		}
		next := s.nextChange(at)
		if next.IsZero() {
			break
		}
		at = next
	}
	p.opens.Store(&opening{from: from, at: at, never: true})
	return time.Time{}, false
}

// nextChange returns when one of the scheduled windows next opens or closes.
func (s *Set) nextChange(now time.Time) (next time.Time) {
	for _, w := range s.windows.Order {
		if !w.Scheduled() {
			continue
		}
		if change := w.Change(now); next.IsZero() || !change.IsZero() && change.Before(next) {
			next = change
		}
	}
	return next
}
