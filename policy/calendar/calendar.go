// Package calendar computes when a span of time that a cron expression begins is open,
// by the clock of a time zone.
package calendar

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is a cron expression with a duration, by the clock of a time zone.
type Schedule struct {
	Expr     string
	Duration time.Duration
	Location *time.Location

	begins cron.Schedule
	edges  atomic.Pointer[edges]
}

// New returns the schedule of an expression, and an error beside one of its own where
// the expression is none.
func New(expr string, duration time.Duration, location *time.Location) (*Schedule, error) {
	s := &Schedule{Expr: expr, Duration: duration, Location: location}
	var err error
	if s.begins, err = parse(expr); err != nil {
		s.begins, _ = parse("0 0 * * *")
	}
	return s, err
}

// MaxDuration is the longest span.
const MaxDuration = 7 * 24 * time.Hour

// parse reads a five-field cron expression and rejects one that never matches.
func parse(expr string) (cron.Schedule, error) {
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

// Wall-clock rules. A schedule is enumerated on the wall clock, as if every day had 24 hours. Each
// start and end is then converted to real time: a wall time that the clock skips becomes the first
// instant after the jump, and of one that it shows twice, the first is taken. So a window from
// 01:00 for 4 h ends at 05:00 on every night of the year.

// spans calls f with the occurrences that open within reach of now, oldest
// first, until f returns false.
func (s *Schedule) spans(now time.Time, back time.Duration, f func(span) bool) {
	wall := wallOf(now, s.Location)
	for at := s.begins.Next(wall.Add(-back)); !at.IsZero(); at = s.begins.Next(at) {
		sp := span{realOf(at, s.Location), realOf(at.Add(s.Duration), s.Location)}
		if !sp.close.After(sp.open) {
			sp.close = sp.open.Add(s.Duration) // it would be entirely within skipped time
		}
		if !f(sp) {
			return
		}
	}
}

// clockShift is more than any clock is ever moved at once.
const clockShift = 3 * time.Hour

// reach returns how far around now the wall clock must be searched.
func (s *Schedule) reach() time.Duration {
	if s.Location == time.UTC {
		return time.Minute
	}
	return clockShift
}

// current returns the occurrence that contains now; ok is false if there is none.
func (s *Schedule) current(now time.Time) (in span, ok bool) {
	// Most windows that are open began within hours; a long look back over a
	// schedule that starts every minute would cost milliseconds.
	longest := s.Duration + s.reach()
	for _, back := range []time.Duration{2 * clockShift, 8 * clockShift, longest} {
		back = min(back, longest)
		s.spans(now, back, func(sp span) bool {
			if !sp.open.After(now) && now.Before(sp.close) && (!ok || sp.close.After(in.close)) {
				in, ok = sp, true
			}
			return sp.open.Before(now.Add(s.reach()))
		})
		if ok || back == longest {
			break
		}
	}
	return in, ok
}

// next returns the first opening after now.
func (s *Schedule) next(now time.Time) (opens time.Time) {
	s.spans(now, s.reach(), func(sp span) bool {
		if sp.open.After(now) {
			opens = sp.open
			return false
		}
		return true
	})
	return opens
}

// wallOf returns the wall-clock time in loc at t, represented as UTC.
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
		return begin // t is after the jump that begins its zone
	case shown.Before(wall):
		return end
	case begin.IsZero():
		return t
	}
	_, now := t.Zone()
	_, before := begin.Add(-time.Second).In(loc).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(begin) && wallOf(first, loc).Equal(wall) {
		return first // the hour is shown twice, and t is the second one
	}
	return t
}

// edges caches a schedule around a moment: from one change to the next.
type edges struct {
	from time.Time
	open bool
	next time.Time // of the change that ends it; zero: none is near
}

// At reports whether the schedule is open, and when that changes; zero: not soon. A schedule
// is searched at its changes only: of a thousand databases that ask at each tick, one pays.
func (s *Schedule) At(now time.Time) (open bool, change time.Time) {
	e := s.edges.Load()
	if e == nil || now.Before(e.from) || !now.Before(e.next) {
		e = &edges{from: now}
		if sp, ok := s.current(now); ok {
			e.open, e.next = true, sp.close
		} else {
			e.next = s.next(now)
		}
		if e.next.IsZero() {
			return e.open, e.next
		}
		s.edges.Store(e)
	}
	return e.open, e.next
}

// Openings returns the next n times at which the schedule opens, and when each span ends.
func (s *Schedule) Openings(now time.Time, n int) (spans [][2]time.Time) {
	s.spans(now, s.reach(), func(sp span) bool {
		if sp.open.After(now) {
			spans = append(spans, [2]time.Time{sp.open, sp.close})
		}
		return len(spans) < n
	})
	return spans
}

// Doubts says what of a schedule is probably not what was meant.
func (s *Schedule) Doubts() (doubts []string) {
	fields := strings.Fields(s.Expr)
	if len(fields) != 5 {
		return nil
	}
	minute, hour, day, weekday := fields[0], fields[1], fields[2], fields[4]
	if day != "*" && day != "?" && weekday != "*" && weekday != "?" {
		doubts = append(doubts, fmt.Sprintf("Of day (%s) and weekday (%s) either is enough: cron opens it on every such day "+
			"of the month and on every such weekday.", day, weekday))
	}
	switch {
	case minute == "*" && hour == "*":
		doubts = append(doubts, fmt.Sprintf("It starts over at every minute of the day, so that it is open without a break; "+
			"for once a day write %q.", strings.Join(append([]string{"0", "2"}, fields[2:]...), " ")))
	case minute == "*":
		doubts = append(doubts, fmt.Sprintf("It starts over at every minute of hour %s; for once write %q.", hour,
			strings.Join(append([]string{"0"}, fields[1:]...), " ")))
	case hour == "*" && s.Duration >= time.Hour:
		doubts = append(doubts, "It begins every hour and lasts as long: it is open without a break.")
	case day == "*" && weekday == "*" && s.Duration >= 24*time.Hour:
		doubts = append(doubts, "It begins every day and lasts as long: it is open without a break.")
	case s.Duration >= 24*time.Hour:
		doubts = append(doubts, "It lasts a day or longer: peak hours are within.")
	}
	return doubts
}
