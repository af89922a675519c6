package lang

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/series"
)

// MaxWindow is how far back a History can look.
const MaxWindow = series.MaxWindow

// History is the recent past of one database, in bounded space. The zero value keeps every
// measured name. After Program.Retain it keeps what over-time functions read: measured names, and
// signals, which are evaluated once at each sample. For the signals of learned windows it keeps
// a profile of the week. One goroutine owns it.
type History struct {
	program *Program // evaluates the signals; nil: there are none
	reads   []int    // indexes into measured.Names of the first columns
	store   series.Store
	stall   float64 // seconds, of the last checkpoint
	acted   bool    // stall is valid
	fresh   bool    // no sample has been added since stall was set
	row     []float64
	added   frame // the sample that is being added

	begun, seen time.Time // since when samples have come without a break, and the last one; of this process
}

// Retain makes h keep what the program's over-time functions read, and nothing if they read
// nothing, and returns h. What stays keeps its past.
func (p *Program) Retain(h *History) *History {
	h.program, h.reads = p, slices.Sorted(maps.Keys(p.series))
	names := namesOf(h.reads)
	for _, s := range p.signals {
		names = append(names, s.name)
	}
	var profiles []string
	for _, l := range p.learned {
		profiles = append(profiles, l.profile)
	}
	h.store.Keep(names, profiles)
	for k, i := range h.reads {
		if measured.Names[i].String() == "checkpoint.stall" {
			h.store.Events(k)
		}
	}
	return h
}

func namesOf(reads []int) (names []string) {
	for _, i := range reads {
		names = append(names, measured.Names[i].String())
	}
	return names
}

// Add adds a sample. If it is older than samples already kept, the clock was set back: everything
// that now lies in the future is dropped.
func (h *History) Add(s *collector.Sample) {
	h.watch(s)
	if h.program == nil && h.store.Names() == nil {
		for i := range measured.Names {
			h.reads = append(h.reads, i)
		}
		h.store.Keep(namesOf(h.reads), nil)
	}
	if len(h.store.Names()) == 0 {
		return
	}
	h.added = frame{Reading: measured.Reading{Sample: s, Stall: unknown}, now: s.At, history: h}
	f := &h.added
	if h.fresh {
		// A checkpoint's stall is one value, however long ago it was: functions over time count runs.
		f.Stall, h.fresh = h.stall, false
	}
	h.row = h.row[:0]
	for _, i := range h.reads {
		h.row = append(h.row, measured.Names[i].Read(&f.Reading))
	}
	h.store.Begin(s.At, h.row)
	if h.program != nil {
		h.addSignals(f)
	}
	h.store.End()
}

// brokenAfter is the distance of two samples from which on there is a break between them.
const brokenAfter = time.Minute

// watch updates since when the database has been measured.
func (h *History) watch(s *collector.Sample) {
	switch gap := s.At.Sub(h.seen); {
	case s.State != collector.StateUp:
		h.begun = time.Time{}
		return
	case h.begun.IsZero() || gap > brokenAfter || gap < 0:
		h.begun = s.At
	}
	h.seen = s.At
}

// Unbroken returns since when the database has been measured without a break: since this process
// began, or since it could be read again. Zero: it is not measured now, or this is not known.
func (h *History) Unbroken() time.Time {
	if h == nil {
		return time.Time{}
	}
	return h.begun
}

// addSignals evaluates the signals for the sample being added, inner ones first.
func (h *History) addSignals(f *frame) {
	var e *Evaluation // for signals that are not code
	values := make(map[string]float64, len(h.program.learned))
	for j, s := range h.program.signals {
		var v float64
		if s.code != nil {
			v = s.code(f)
		} else {
			if e == nil {
				e = &Evaluation{program: h.program, frame: f}
			}
			got, _ := e.eval(s.expr)
			v = toFloat(got)
		}
		h.store.Set(len(h.reads)+j, v)
		if len(h.program.learned) > 0 {
			values[s.name] = v
		}
	}
	for _, l := range h.program.learned {
		v, ok := values[h.program.columnOf(l.signal)]
		if i := indexOf(l.signal); !ok && i >= 0 {
			v = measured.Names[i].Read(&f.Reading)
		}
		h.store.Profile(l.profile).Add(f.now, v, l.location)
	}
}

// ObserveStall records how long a checkpoint stalled writers, for the variable
// checkpoint.stall of later samples.
func (h *History) ObserveStall(d time.Duration) {
	h.stall, h.acted, h.fresh = d.Seconds(), true, true
}

// Stall returns for how many seconds the last checkpoint stalled writers, or NaN if none was run.
func (h *History) Stall() float64 {
	if h == nil || !h.acted {
		return unknown
	}
	return h.stall
}

// dots returns the known values of a series within the window.
func (h *History) dots(column string, now time.Time, window time.Duration) []series.Dot {
	if h == nil || column == "" {
		return nil
	}
	return h.store.Dots(nil, column, now, window)
}

// Reads reports whether the history keeps anything.
func (h *History) Reads() bool {
	return h.program == nil || len(h.store.Names()) > 0 || len(h.program.learned) > 0
}

// Oldest returns the time of the oldest kept value, zero if there is none.
func (h *History) Oldest() time.Time {
	if h == nil {
		return time.Time{}
	}
	return h.store.Oldest()
}

// MarshalJSON encodes the history so that it survives a restart.
func (h *History) MarshalJSON() ([]byte, error) {
	j := h.store.Encode()
	if h.acted {
		j.Stall = &h.stall
	}
	return json.Marshal(j)
}

// UnmarshalJSON decodes a history. The next Retain drops columns that the program does not read.
func (h *History) UnmarshalJSON(data []byte) error {
	var j series.Encoded
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("decode history: %w", err)
	}
	*h = History{}
	if j.Stall != nil {
		h.stall, h.acted = *j.Stall, true
	}
	return h.store.Decode(j)
}

// Learning is the progress of a learned window.
type Learning struct {
	Seen     time.Duration // how much of the week, by quarters of an hour
	Since    time.Time     // of the first value; zero: none yet
	Level    float64       // the signal counts as quiet up to this value
	Expected float64       // the signal's usual value at this time of the week
	Live     float64       // the signal's value now
	Week     []float64     // the usual value in each quarter of an hour from Monday 00:00; NaN: not known
	Weeks    []int         // in how many weeks each quarter was seen; 0: derived from other days
	Learned  bool          // it has seen enough
}

// profile returns the profile of a learned window's signal, nil if there is none.
func (e *Evaluation) profile(signal hclsyntax.Expression, location *time.Location) *series.Profile {
	if e.frame.history == nil {
		return nil
	}
	for _, l := range e.program.learned {
		if l.signal == signal && l.location == location {
			return e.frame.history.store.Profile(l.profile)
		}
	}
	return nil
}

// Learned returns the state of a learned window; ok is false until it has learned enough. The
// window is open if its week predicts quiet for this time and the signal is quiet now.
func (e *Evaluation) Learned(signal hclsyntax.Expression, location *time.Location, q float64,
	minHistory time.Duration) (st WindowState, ok bool) {
	p := e.profile(signal, location)
	if p == nil || !p.Learned(e.frame.now, minHistory) {
		return UnknownWindow(), false
	}
	live, _ := e.number(signal)
	expected, quiet, change, known := p.State(e.frame.now, location, q, live)
	st = UnknownWindow()
	switch {
	case !known:
	case quiet:
		st.Open, st.OpensIn, st.ClosesIn = True, 0, change
	case expected:
		st.Open = False // unusual for this time, for an unknown duration
	default:
		st.Open, st.OpensIn = False, change
	}
	return st, true
}

// Learning returns what a learned window has learned.
func (e *Evaluation) Learning(signal hclsyntax.Expression, location *time.Location, q float64,
	minHistory time.Duration) Learning {
	p := e.profile(signal, location)
	if p == nil {
		return Learning{Level: unknown, Expected: unknown, Live: unknown}
	}
	live, _ := e.number(signal)
	return Learning{Seen: p.Covered(), Since: p.Began(), Level: p.Level(q), Expected: p.Now(e.frame.now, location),
		Live: live, Week: p.Week(), Weeks: p.Weeks(), Learned: p.Learned(e.frame.now, minHistory)}
}
