package policy

import (
	"math"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/calendar"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/proof"
)

// Window is a span of time in which policies may act: either a cron schedule
// with a duration, or learned from when a signal is low.
type Window struct {
	Name     string
	Cron     string
	Duration time.Duration
	Location *time.Location
	Learn    *Learn
	Range    hcl.Range

	schedule *calendar.Schedule
}

// Learn describes a window that is open at the times of the week at which its
// signal has been among its lowest values, as long as it is low now.
type Learn struct {
	Quantile   float64
	MinHistory time.Duration
	Fallback   string         // name of the window that holds until MinHistory is reached; "": unknown
	Except     []string       // names of windows during which it is closed
	Location   *time.Location // by whose clock the week goes

	signal hclsyntax.Expression
}

// closedReason is what a policy says that waits for a window. A thousand databases say
// the same at each tick.
type closedReason struct {
	opensIn float64
	text    string
}

// at returns the state of a scheduled window.
func (w *Window) at(now time.Time) lang.WindowState {
	open, change := w.schedule.At(now)
	rest := math.NaN()
	if !change.IsZero() {
		rest = change.Sub(now).Seconds()
	}
	if open {
		return lang.WindowState{Open: True, ClosesIn: rest}
	}
	return lang.WindowState{Open: False, OpensIn: rest}
}

// Openings returns the next n times at which a scheduled window opens, and when each
// span ends; none of a learned one.
func (w *Window) Openings(now time.Time, n int) [][2]time.Time {
	if w.schedule == nil {
		return nil
	}
	return w.schedule.Openings(now, n)
}

// Open reports whether a scheduled window is open at now; a learned window
// needs a database's history and is unknown here.
func (w *Window) Open(now time.Time) Truth {
	if w.Learn != nil {
		return Unknown
	}
	return w.at(now).Open
}

// statesOf puts the states of the windows in the order of s.order. Learned ones
// come last: they fall back on the others.
func (s *Set) statesOf(states []lang.WindowState, e *lang.Evaluation, now time.Time) []lang.WindowState {
	states = slices.Grow(states, len(s.order))[:len(s.order)]
	for i, w := range s.order {
		if w.Learn == nil {
			states[i] = w.at(now)
		}
	}
	for i, w := range s.order {
		if w.Learn != nil {
			states[i] = s.learnedState(e, w.Learn, now)
		}
	}
	return states
}

func (s *Set) learnedState(e *lang.Evaluation, l *Learn, now time.Time) lang.WindowState {
	st, ok := e.Learned(l.signal, l.Location, l.Quantile, l.MinHistory)
	if fallback := s.Windows[l.Fallback]; !ok && fallback != nil {
		st = fallback.at(now)
	}
	for _, name := range l.Except {
		except := s.Windows[name].at(now)
		switch {
		case except.Open == True:
			st.Open = False
			st.OpensIn = max(except.ClosesIn, st.OpensIn)
			if math.IsNaN(st.OpensIn) {
				st.OpensIn = except.ClosesIn
			}
		case st.Open == True && !(st.ClosesIn < except.OpensIn):
			st.ClosesIn = except.OpensIn
		}
	}
	return st
}

// spansOf returns what can be foretold of a policy's window: nothing where it learns.
func (s *Set) spansOf(x hclsyntax.Expression) (w proof.Window) {
	if x == nil || !s.scheduled(x) {
		return w
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, t := range x.Variables() {
		named := s.Windows[t[1].(hcl.TraverseAttr).Name]
		for _, sp := range named.schedule.Openings(from, 400) {
			w.Openings = append(w.Openings, sp[0])
		}
	}
	slices.SortFunc(w.Openings, time.Time.Compare)
	w.Open = func(at time.Time) Truth {
		e := s.program.At(lang.Moment{Now: at, Sample: &collector.Sample{At: at}})
		e.SetWindows(s.statesOf(nil, e, at))
		st, _ := e.Window(x)
		return st.Open
	}
	return w
}
