package policy

import (
	"math"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// foresee returns when the policy could act if all measurements stay as they are: once
// no guard refuses any more, its window is open at that moment too, or max_defer is over.
// Zero: it cannot be told.
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

// opensFrom returns when the policy's window is open first, from a moment on; ok is
// false where that cannot be told.
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

// scheduled reports whether a window goes by the calendar alone.
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

// opening is what is known of a policy's window: it is closed from a moment until it
// opens. A thousand databases ask the same at each tick.
type opening struct {
	from, at time.Time
	never    bool // it does not even open at the end
}

// maxChanges bounds how far ahead an opening is looked for: two windows that are open
// together need not meet.
const maxChanges = 2000

// opensFrom returns when the window of a policy that goes by the calendar is open
// first, from a moment on. Windows are asked at their changes only.
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

// nextChange returns when the next of the scheduled windows opens or closes.
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
