// Package series keeps the past of one database in bounded space: values by name at
// every sample for ten minutes, thinned beyond that, and profiles of the week. It
// knows nothing of what the values mean.
package series

import (
	"slices"
	"time"
)

// Store holds series of numbers, NaN where one was not known. One goroutine owns it.
type Store struct {
	names    []string // of the columns
	tiers    [len(tierSteps)]tier
	profiles map[string]*Profile // by name
	answers  []answer            // by Query.Slot
	scratch  []Dot
	row      []float64 // of the sample under way
	events   []bool    // columns that hold something only now and then: thinned to the largest
}

var tierSteps = [...]struct {
	step, span time.Duration
	limit      int
}{{0, 10 * time.Minute, 600}, {15 * time.Second, 4 * time.Hour, 960}, {2 * time.Minute, 32 * time.Hour, 960},
	{15 * time.Minute, MaxWindow, 960}}

// MaxWindow is how far back a Store can look.
const MaxWindow = 10 * 24 * time.Hour

// tier holds one resolution, a column for each name.
type tier struct {
	at      []int64 // nanoseconds since 1970, ascending
	columns [][]float64
	dropped bool // older values have been dropped
	filled  bool // a kept value has changed
}

// answer is what a Query found, and in which values.
type answer struct {
	now         int64
	first, last int64 // times of the values
	tier, count int
	value       float64
	set         bool
}

// Keep makes the store hold these columns and profiles and no others. What stays
// keeps its past.
func (h *Store) Keep(names, profiles []string) {
	old := *h
	*h = Store{names: names}
	for i, t := range old.tiers {
		h.tiers[i] = tier{at: t.at, dropped: t.dropped}
		for _, name := range names {
			h.tiers[i].columns = append(h.tiers[i].columns, t.column(slices.Index(old.names, name)))
		}
	}
	for _, name := range profiles {
		if h.profiles == nil {
			h.profiles = map[string]*Profile{}
		}
		h.profiles[name] = old.profiles[name]
		if h.profiles[name] == nil {
			h.profiles[name] = &Profile{}
		}
	}
}

// Events says of a column that it has a value only where something happened.
func (h *Store) Events(column int) {
	for len(h.events) <= column {
		h.events = append(h.events, false)
	}
	h.events[column] = true
}

// Names returns the names of the columns.
func (h *Store) Names() []string { return h.names }

// Profile returns the profile of that name, nil if there is none.
func (h *Store) Profile(name string) *Profile { return h.profiles[name] }

// column returns a column of its own, unknown throughout where there is none yet.
func (t *tier) column(i int) []float64 {
	if i >= 0 && i < len(t.columns) {
		return t.columns[i]
	}
	fresh := make([]float64, len(t.at), cap(t.at))
	for k := range fresh {
		fresh[k] = unknown
	}
	return fresh
}

// Begin takes the values of a sample in, by column; those at the end that are missing
// come by Set. A sample older than those kept means that the clock was set back: what
// lies in its future is forgotten. End must follow.
func (h *Store) Begin(at time.Time, values []float64) {
	h.row = append(h.row[:0], values...)
	for len(h.row) < len(h.names) {
		h.row = append(h.row, unknown)
	}
	ns := at.UnixNano()
	if t := &h.tiers[0]; len(t.at) > 0 && t.at[len(t.at)-1] >= ns {
		clear(h.answers)
	}
	h.tiers[0].add(ns, h.row, 0, h.events)
}

// Set gives a column its value in the sample under way.
func (h *Store) Set(column int, v float64) {
	h.row[column] = v
	t := &h.tiers[0]
	t.columns[column][len(t.at)-1] = v
}

// End thins the sample into the coarser tiers.
func (h *Store) End() {
	t := &h.tiers[0]
	for i := 1; i < len(h.tiers); i++ {
		h.tiers[i].add(t.at[len(t.at)-1], h.row, i, h.events)
		if h.tiers[i].filled {
			h.tiers[i].filled = false
			clear(h.answers)
		}
	}
}

func (t *tier) add(at int64, row []float64, level int, events []bool) {
	step, span, limit := int64(tierSteps[level].step), int64(tierSteps[level].span), tierSteps[level].limit
	n := len(t.at)
	for n > 0 && t.at[n-1] >= at {
		n--
	}
	if n < len(t.at) {
		t.cut(0, n)
	}
	if n > 0 && at-t.at[n-1] < step {
		t.fill(n-1, row, events)
		return
	}
	if t.columns == nil {
		t.columns = make([][]float64, len(row))
	}
	t.at = append(t.at, at)
	for k, v := range row {
		t.columns[k] = append(t.columns[k], v)
	}
	if n++; n >= 2*limit || at-t.at[0] > 2*span {
		from, _ := slices.BinarySearch(t.at, at-span)
		t.cut(max(from-1, n-limit), n) // one that is older: what the span begins with
		t.dropped = true
	}
}

// fill puts into a kept sample what it does not know, and the largest of the events
// that fall between it and the next.
func (t *tier) fill(i int, row []float64, events []bool) {
	for k, v := range row {
		if old := t.columns[k][i]; v == v && (old != old || k < len(events) && events[k] && v > old) {
			t.columns[k][i] = v
			t.filled = true
		}
	}
}

// cut keeps the values from lo up to hi.
func (t *tier) cut(lo, hi int) {
	t.at = append(t.at[:0], t.at[lo:hi]...)
	for k := range t.columns {
		t.columns[k] = append(t.columns[k][:0], t.columns[k][lo:hi]...)
	}
}

// Column returns the index of a column, -1 if it is not kept.
func (h *Store) Column(name string) int { return slices.Index(h.names, name) }

// since returns which values lie from start to end: those of the finest tier that
// reaches back to start.
func (h *Store) since(start, end int64) (level, lo, hi int) {
	for i := range h.tiers {
		t := &h.tiers[i]
		if t.dropped && i+1 < len(h.tiers) && (len(t.at) == 0 || t.at[0] > start) {
			continue
		}
		lo, _ := slices.BinarySearch(t.at, start)
		hi, found := slices.BinarySearch(t.at, end)
		if found {
			hi++
		}
		return i, lo, max(lo, hi)
	}
	return 0, 0, 0
}

// Dots appends the known values of a series within the window.
func (h *Store) Dots(dots []Dot, column string, now time.Time, window time.Duration) []Dot {
	if h == nil || column == "" {
		return dots
	}
	k, end := h.Column(column), now.UnixNano()
	if k < 0 {
		return dots
	}
	level, lo, hi := h.since(end-int64(window), end)
	return h.tiers[level].dots(dots, k, lo, hi, end)
}

func (t *tier) dots(dots []Dot, k, lo, hi int, end int64) []Dot {
	if k >= len(t.columns) {
		return dots
	}
	for i, v := range t.columns[k][lo:hi] {
		if v-v == 0 { // neither unknown nor infinite
			dots = append(dots, Dot{float64(t.at[lo+i]-end) / 1e9, v})
		}
	}
	return dots
}

// Ask answers a query over a window, its own or a shorter one, from the answer before where nothing has changed since.
func (h *Store) Ask(q *Query, now time.Time, window time.Duration) float64 {
	if h == nil {
		return unknown
	}
	k, end := h.Column(q.Column), now.UnixNano()
	if k < 0 {
		return unknown
	}
	level, lo, hi := h.since(end-int64(window), end)
	t := &h.tiers[level]
	if hi-lo < 2 {
		return unknown
	}
	if len(h.answers) <= q.Slot {
		h.answers = append(h.answers, make([]answer, q.Slot+1-len(h.answers))...)
	}
	a := &h.answers[q.Slot]
	is := answer{now: end, first: t.at[lo], last: t.at[hi-1], tier: level, count: hi - lo, set: true}
	if a.set && (a.now == end || q.Function.Steady) && a.first == is.first && a.last == is.last && a.tier == is.tier &&
		a.count == is.count {
		return a.value
	}
	h.scratch = t.dots(h.scratch[:0], k, lo, hi, end)
	is.value = unknown
	if len(h.scratch) >= 2 {
		if v := q.Function.Apply(h.scratch, q.Window.Seconds(), q.Extra); v-v == 0 {
			is.value = v
		}
	}
	*a = is
	return is.value
}

// Oldest returns the time of the oldest kept value, zero if there is none.
func (h *Store) Oldest() time.Time {
	if h == nil {
		return time.Time{}
	}
	for i := len(h.tiers) - 1; i >= 0; i-- {
		if at := h.tiers[i].at; len(at) > 0 {
			return time.Unix(0, at[0])
		}
	}
	return time.Time{}
}
