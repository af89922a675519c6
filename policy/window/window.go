// Package window decides when policies may act: by a schedule, or at the times of the week that
// were learned to be quiet.
package window

import (
	"math"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/calendar"
	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Set has the windows of one configuration.
type Set struct {
	Named map[string]*Window
	Order []*Window // sorted by name, as the program numbers them
}

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
	Fallback   string               // name of the window that applies until MinHistory is reached; "": unknown
	Except     []string             // names of windows during which it is closed
	Location   *time.Location       // the time zone of the week
	Signal     hclsyntax.Expression // the value that is low in quiet hours
}

// At returns the state of a scheduled window.
func (w *Window) At(now time.Time) lang.WindowState {
	open, change := w.schedule.At(now)
	rest := math.NaN()
	if !change.IsZero() {
		rest = change.Sub(now).Seconds()
	}
	if open {
		return lang.WindowState{Open: lang.True, ClosesIn: rest}
	}
	return lang.WindowState{Open: lang.False, OpensIn: rest}
}

// Openings returns the next n times at which a scheduled window opens, and when each span ends; none
// for a learned window.
func (w *Window) Openings(now time.Time, n int) [][2]time.Time {
	if w.schedule == nil {
		return nil
	}
	return w.schedule.Openings(now, n)
}

// Open reports whether a scheduled window is open at now; a learned window
// needs a database's history and is unknown here.
func (w *Window) Open(now time.Time) lang.Truth {
	if w.Learn != nil {
		return lang.Unknown
	}
	return w.At(now).Open
}

// States returns the states of the windows in the order of s.Order. It computes learned windows last,
// because they fall back on the others.
func (s *Set) States(states []lang.WindowState, e *lang.Evaluation, now time.Time) []lang.WindowState {
	states = slices.Grow(states, len(s.Order))[:len(s.Order)]
	for i, w := range s.Order {
		if w.Learn == nil {
			states[i] = w.At(now)
		}
	}
	for i, w := range s.Order {
		if w.Learn != nil {
			states[i] = s.LearnedState(e, w.Learn, now)
		}
	}
	return states
}

// LearnedState returns the state of a learned window.
func (s *Set) LearnedState(e *lang.Evaluation, l *Learn, now time.Time) lang.WindowState {
	st, ok := e.Learned(l.Signal, l.Location, l.Quantile, l.MinHistory)
	if fallback := s.Named[l.Fallback]; !ok && fallback != nil {
		st = fallback.At(now)
	}
	for _, name := range l.Except {
		window := s.Named[name]
		except := window.At(now)
		switch {
		case except.Open == lang.True:
			st.Open = lang.False
			st.OpensIn = max(except.ClosesIn, st.OpensIn)
			if math.IsNaN(st.OpensIn) {
				st.OpensIn = except.ClosesIn
			}
		case st.Open == lang.True && !(st.ClosesIn < except.OpensIn):
			st.ClosesIn = except.OpensIn
		case st.Open == lang.False && !math.IsNaN(st.OpensIn):
			then := window.At(now.Add(time.Duration(st.OpensIn * float64(time.Second))))
			if then.Open == lang.True {
				st.OpensIn += then.ClosesIn
			}
		}
	}
	return st
}

// Scheduled reports whether the window follows a schedule.
func (w *Window) Scheduled() bool { return w.schedule != nil }

// Change returns when a scheduled window next opens or closes; zero: never.
func (w *Window) Change(now time.Time) time.Time {
	_, change := w.schedule.At(now)
	return change
}

// Read reads the window blocks, whose names the program's expressions may use from then on.
func Read(d *hcldecode.Decoder, program *lang.Program, blocks hcl.Blocks) *Set {
	p := &reading{Decoder: d, program: program, set: &Set{Named: map[string]*Window{}}}
	p.windows(blocks)
	return p.set
}

// reading is one call of Read.
type reading struct {
	*hcldecode.Decoder
	program *lang.Program
	set     *Set
}

func (p *reading) windows(blocks hcl.Blocks) {
	places := map[string]hcl.Range{}
	var names []string
	for _, b := range blocks {
		names = append(names, b.Labels[0])
	}
	for _, b := range blocks {
		name := b.Labels[0]
		if first, dup := places[name]; dup {
			p.Errorf(b.DefRange, "Duplicate window", "Window %q is already defined at %s.", name, first)
			continue
		}
		places[name] = b.DefRange
		p.Name(b)
		p.set.Named[name] = p.window(b, names)
	}
	for _, b := range blocks {
		if w := p.set.Named[b.Labels[0]]; w.Learn != nil && w.Range == b.DefRange {
			p.finishLearn(w, b)
		}
	}
	for name := range places {
		p.program.Windows = append(p.program.Windows, name)
	}
	slices.Sort(p.program.Windows)
	for _, name := range p.program.Windows {
		p.set.Order = append(p.set.Order, p.set.Named[name])
	}
}

func (p *reading) window(b *hcl.Block, names []string) *Window {
	w := &Window{Name: b.Labels[0], Range: b.DefRange, Location: time.UTC}
	content := p.Content(b.Body, windowSchema())
	a := content.Attributes
	if learn := p.Single(content.Blocks, "learn"); learn != nil {
		if len(a) > 0 {
			p.Errorf(b.DefRange, "Two kinds of window", "A window has either a cron schedule or a learn block.")
		}
		w.Learn = p.learn(learn, names)
		return w
	}
	if a["cron"] == nil || a["duration"] == nil {
		p.Errorf(b.DefRange, "Incomplete window", "A window needs cron and duration, or a learn block.")
		return w
	}
	w.Cron = p.Plain(a["cron"], "")
	w.Duration = p.Duration(a["duration"], time.Hour, time.Minute, calendar.MaxDuration)
	if tz := p.Plain(a["timezone"], "UTC"); tz != "" {
		w.Location = p.Location(a["timezone"], tz)
	}
	schedule, err := calendar.New(w.Cron, w.Duration, w.Location)
	if err != nil {
		p.Errorf(a["cron"].Expr.Range(), "Bad schedule", "%v.", err)
	}
	for _, doubt := range schedule.Doubts() {
		p.Warnf(a["cron"].Expr.Range(), "Is that meant?", "%s", doubt)
	}
	w.schedule = schedule
	return w
}

func (p *reading) learn(b *hcl.Block, names []string) *Learn {
	a := p.Content(b.Body, catalogue.Schema("learn")).Attributes
	l := &Learn{
		Quantile:   p.Number(a["quantile"], 0.2),
		MinHistory: p.Duration(a["min_history"], 72*time.Hour, time.Minute, lang.MaxWindow),
	}
	if f := a["fallback"]; f != nil {
		l.Fallback = p.Ref(f.Name, f.Expr, "window", names)
	}
	if l.Quantile <= 0 || l.Quantile >= 1 {
		p.Errorf(a["quantile"].Expr.Range(), "Out of range", "quantile must be between 0 and 1.")
		l.Quantile = 0.5
	}
	l.Except = p.Refs(a["except"], "window", names)
	if tz := p.Plain(a["timezone"], ""); tz != "" {
		l.Location = p.Location(a["timezone"], tz)
	}
	return l
}

// finishLearn reads what needs every window: the time zone of the week is that of the
// fallback unless it is set.
func (p *reading) finishLearn(w *Window, b *hcl.Block) {
	l := w.Learn
	for _, name := range append([]string{l.Fallback}, l.Except...) {
		if other := p.set.Named[name]; other != nil && other.Learn != nil {
			p.Errorf(w.Range, "Bad fallback", "fallback and except of a learned window must be windows with a cron schedule; "+
				"window.%s is none.", name)
			l.Fallback, l.Except = "", nil
		}
	}
	if p.alwaysExcepted(l) {
		p.Errorf(w.Range, "Never open", "The windows of except leave no hour of the week: this one would never open.")
	}
	if l.Location == nil {
		l.Location = time.UTC
		if fallback := p.set.Named[l.Fallback]; fallback != nil {
			l.Location = fallback.Location
		}
	}
	learn := p.Single(p.Content(b.Body, windowSchema()).Blocks, "learn")
	attrs, _, _ := learn.Body.PartialContent(hcldecode.Attributes("signal"))
	if signal := attrs.Attributes["signal"]; signal != nil {
		var diags hcl.Diagnostics
		l.Signal, diags = p.program.CompileLearned(signal.Expr, l.Location)
		p.Diags = append(p.Diags, diags...)
	}
}

// alwaysExcepted reports whether the windows of except cover every quarter of an hour.
func (p *reading) alwaysExcepted(l *Learn) bool {
	from := time.Date(2026, 1, 5, 0, 7, 0, 0, time.UTC)
	for at := from; len(l.Except) > 0 && at.Before(from.AddDate(0, 0, 7)); at = at.Add(15 * time.Minute) {
		if !slices.ContainsFunc(l.Except, func(name string) bool { return p.set.Named[name].Open(at) == lang.True }) {
			return false
		}
	}
	return len(l.Except) > 0
}

func windowSchema() *hcl.BodySchema {
	schema := catalogue.Schema("window")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "learn"}}
	return schema
}
