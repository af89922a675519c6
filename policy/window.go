package policy

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/robfig/cron/v3"

	"github.com/sqlwatch/sqlwatch/policy/lang"
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

	schedule cron.Schedule
	edges    atomic.Pointer[edges]
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

// MaxWindowDuration bounds a scheduled window.
const MaxWindowDuration = 7 * 24 * time.Hour

// NewSchedule parses a five-field cron expression and refuses one that never
// comes true.
func NewSchedule(expr string) (cron.Schedule, error) {
	trimmed := strings.TrimSpace(expr)
	switch {
	case strings.Contains(strings.ToUpper(trimmed), "TZ="):
		return nil, errors.New("the time zone belongs into the timezone attribute")
	case strings.HasPrefix(trimmed, "@every"):
		return nil, errors.New("@every has no place in the day: give five fields, minute hour day month weekday")
	}
	s, err := cron.ParseStandard(trimmed)
	if err != nil {
		return nil, fmt.Errorf("five fields are needed, minute hour day month weekday: %w", err)
	}
	if s.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("no such date exists, the window could never open")
	}
	return s, nil
}

// span is one occurrence of a window.
type span struct{ open, close time.Time }

// Wall-clock rules. A schedule is enumerated on the wall clock, as if every
// day had 24 hours, and each start and end is then placed on the real time
// line: a wall time that the clock skips becomes the first instant after the
// jump, one that it shows twice is taken the first time. So a window from
// 01:00 for 4 h ends at 05:00 on every night of the year.

// spans calls f with the occurrences that open within reach of now, oldest
// first, until f returns false.
func (w *Window) spans(now time.Time, back time.Duration, f func(span) bool) {
	wall := wallOf(now, w.Location)
	for at := w.schedule.Next(wall.Add(-back)); !at.IsZero(); at = w.schedule.Next(at) {
		sp := span{realOf(at, w.Location), realOf(at.Add(w.Duration), w.Location)}
		if !sp.close.After(sp.open) {
			sp.close = sp.open.Add(w.Duration) // it would have lain wholly within skipped time
		}
		if !f(sp) {
			return
		}
	}
}

// clockShift is more than any clock is ever set at once.
const clockShift = 3 * time.Hour

// reach returns how far around now the wall clock must be searched.
func (w *Window) reach() time.Duration {
	if w.Location == time.UTC {
		return time.Minute
	}
	return clockShift
}

// current returns the occurrence that now lies in; ok is false outside.
func (w *Window) current(now time.Time) (in span, ok bool) {
	// Most windows that are open began within hours; a long look back over a
	// schedule that starts every minute would cost milliseconds.
	longest := w.Duration + w.reach()
	for _, back := range []time.Duration{2 * clockShift, 8 * clockShift, longest} {
		back = min(back, longest)
		w.spans(now, back, func(sp span) bool {
			if !sp.open.After(now) && now.Before(sp.close) && (!ok || sp.close.After(in.close)) {
				in, ok = sp, true
			}
			return sp.open.Before(now.Add(w.reach()))
		})
		if ok || back == longest {
			break
		}
	}
	return in, ok
}

// next returns the first opening after now.
func (w *Window) next(now time.Time) (opens time.Time) {
	w.spans(now, w.reach(), func(sp span) bool {
		if sp.open.After(now) {
			opens = sp.open
			return false
		}
		return true
	})
	return opens
}

// wallOf returns what a clock in loc shows at t, written down as UTC.
func wallOf(t time.Time, loc *time.Location) time.Time {
	l := t.In(loc)
	_, offset := l.Zone()
	return l.UTC().Add(time.Duration(offset) * time.Second)
}

// realOf returns the first instant at which a clock in loc shows wall, or, if
// it never does, the instant of the jump that skipped it.
func realOf(wall time.Time, loc *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	shown := wallOf(t, loc)
	begin, end := t.ZoneBounds()
	switch {
	case shown.After(wall):
		return begin // t was pushed beyond the jump that begins its zone
	case shown.Before(wall):
		return end
	case begin.IsZero():
		return t
	}
	_, now := t.Zone()
	_, before := begin.Add(-time.Second).In(loc).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(begin) && wallOf(first, loc).Equal(wall) {
		return first // the hour is shown twice and t is the second
	}
	return t
}

// edges is what is known of a schedule around a moment: from one change to the next.
type edges struct {
	from  time.Time
	state Truth
	next  time.Time // of the change that ends it; zero: none is near
}

// at returns the state of a scheduled window. A schedule is searched at its changes
// only: of a thousand databases that ask at each tick, one pays.
func (w *Window) at(now time.Time) lang.WindowState {
	e := w.edges.Load()
	if e == nil || now.Before(e.from) || !now.Before(e.next) {
		st := w.find(now)
		e = &edges{from: now, state: st.Open}
		change := st.OpensIn
		if st.Open == True {
			change = st.ClosesIn
		}
		if math.IsNaN(change) {
			return st
		}
		e.next = now.Add(seconds(change))
		w.edges.Store(e)
	}
	rest := e.next.Sub(now).Seconds()
	if e.state == True {
		return lang.WindowState{Open: True, ClosesIn: rest}
	}
	return lang.WindowState{Open: False, OpensIn: rest}
}

// find searches the schedule.
func (w *Window) find(now time.Time) lang.WindowState {
	if sp, ok := w.current(now); ok {
		return lang.WindowState{Open: True, ClosesIn: sp.close.Sub(now).Seconds()}
	}
	st := lang.WindowState{Open: False, OpensIn: math.NaN()}
	if opens := w.next(now); !opens.IsZero() {
		st.OpensIn = opens.Sub(now).Seconds()
	}
	return st
}

// Open reports whether a scheduled window is open at now; a learned window
// needs a database's history and is unknown here.
func (w *Window) Open(now time.Time) Truth {
	if w.Learn != nil {
		return Unknown
	}
	return w.at(now).Open
}

// statesOf returns the states of the windows in the order of s.order. Learned ones
// come last: they fall back on the others.
func (s *Set) statesOf(e *lang.Evaluation, now time.Time) []lang.WindowState {
	states := make([]lang.WindowState, len(s.order))
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
