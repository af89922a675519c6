package lang

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// History is the recent past of one database: the numbers of every sample for
// ten minutes, then every 15 seconds for 4 hours, 2 minutes for 32 hours, 15
// minutes for 10 days. It never grows beyond that. The zero value keeps every
// variable; one that went through Program.Retain keeps those that over-time functions read.
// One goroutine owns it.
type History struct {
	keep  []int // indexes into variables, ascending; nil with all set: every one
	some  bool  // keep is meant, even when empty
	tiers [len(tierSteps)]tier
	stall float64 // seconds, of the last checkpoint
	acted bool    // stall is meant
}

var tierSteps = [...]struct {
	step  time.Duration
	limit int
}{{0, 600}, {15 * time.Second, 960}, {2 * time.Minute, 960}, {15 * time.Minute, 960}}

// MaxWindow is how far back a History can look.
const MaxWindow = 10 * 24 * time.Hour

type tier struct {
	points  []point
	dropped bool // older points have been let go
}

type point struct {
	at     time.Time
	values []float64 // parallel to History.keep
}

// Retain makes h keep what the program's over-time functions read, and nothing
// where they read nothing, and returns h. Variables that stay keep their past.
func (p *Program) Retain(h *History) *History {
	old := *h
	*h = History{keep: slices.Sorted(maps.Keys(p.series)), some: true, stall: old.stall, acted: old.acted}
	from := old.indexes()
	for i, t := range old.tiers {
		h.tiers[i].dropped = t.dropped
		for _, p := range t.points {
			h.tiers[i].points = append(h.tiers[i].points, point{p.at, project(p.values, from, h.keep)})
		}
	}
	return h
}

func project(values []float64, from, to []int) []float64 {
	out := make([]float64, len(to))
	for i, v := range to {
		out[i] = unknown
		if j := slices.Index(from, v); j >= 0 {
			out[i] = values[j]
		}
	}
	return out
}

func (h *History) indexes() []int {
	if h.keep == nil && !h.some {
		h.keep = make([]int, len(variables))
		for i := range h.keep {
			h.keep[i] = i
		}
	}
	return h.keep
}

// Add takes a sample in. A sample older than those kept means that the clock
// was set back: what lies in its future is forgotten.
func (h *History) Add(s *collector.Sample) {
	keep := h.indexes()
	if len(keep) == 0 {
		return
	}
	r := &reading{Sample: s, stall: h.Stall()}
	values := make([]float64, len(keep))
	for i, v := range keep {
		values[i] = variables[v].read(r)
	}
	for i := range h.tiers {
		h.tiers[i].add(point{s.At, values}, tierSteps[i].step, tierSteps[i].limit)
	}
}

func (t *tier) add(p point, step time.Duration, limit int) {
	n := len(t.points)
	for n > 0 && !t.points[n-1].at.Before(p.at) {
		n--
	}
	t.points = t.points[:n]
	if n > 0 && p.at.Sub(t.points[n-1].at) < step {
		return
	}
	t.points = append(t.points, p)
	if len(t.points) >= 2*limit {
		t.points = append(make([]point, 0, 2*limit), t.points[len(t.points)-limit:]...)
		t.dropped = true
	}
}

// ObserveStall records how long a checkpoint held writers up, for the
// variable checkpoint.stall of later samples.
func (h *History) ObserveStall(d time.Duration) { h.stall, h.acted = d.Seconds(), true }

// Stall returns the seconds the last checkpoint held writers up, NaN if none
// was run.
func (h *History) Stall() float64 {
	if h == nil || !h.acted {
		return unknown
	}
	return h.stall
}

// since returns the kept points from start to end, oldest first, from the
// finest tier that reaches back to start.
func (h *History) since(start, end time.Time) []point {
	if h == nil {
		return nil
	}
	for i := range h.tiers {
		t := &h.tiers[i]
		if t.dropped && i+1 < len(h.tiers) && t.points[0].at.After(start) {
			continue
		}
		lo, _ := slices.BinarySearchFunc(t.points, start, byTime)
		hi, found := slices.BinarySearchFunc(t.points, end, byTime)
		if found {
			hi++
		}
		return t.points[lo:max(lo, hi)]
	}
	return nil
}

func byTime(p point, at time.Time) int { return p.at.Compare(at) }

// Oldest returns the time of the oldest kept point, zero if there is none.
func (h *History) Oldest() time.Time {
	if h == nil {
		return time.Time{}
	}
	for i := len(h.tiers) - 1; i >= 0; i-- {
		if points := h.tiers[i].points; len(points) > 0 {
			return points[0].at
		}
	}
	return time.Time{}
}

const historyVersion = 1

// historyJSON is the encoding of a History: values by variable name, NaN as null.
type historyJSON struct {
	Version int           `json:"version"`
	Names   []string      `json:"names"`
	Stall   *float64      `json:"stall,omitempty"`
	Tiers   [][]pointJSON `json:"tiers"`
}

type pointJSON struct {
	At     time.Time  `json:"t"`
	Values []*float64 `json:"v"`
}

// MarshalJSON encodes the history so that it survives a restart.
func (h *History) MarshalJSON() ([]byte, error) {
	j := historyJSON{Version: historyVersion, Names: []string{}}
	for _, v := range h.indexes() {
		j.Names = append(j.Names, variables[v].group+"."+variables[v].name)
	}
	if h.acted {
		j.Stall = &h.stall
	}
	for _, t := range h.tiers {
		points := []pointJSON{}
		for _, p := range t.points {
			q := pointJSON{At: p.at, Values: make([]*float64, len(p.values))}
			for i := range p.values {
				if !math.IsNaN(p.values[i]) && !math.IsInf(p.values[i], 0) {
					q.Values[i] = &p.values[i]
				}
			}
			points = append(points, q)
		}
		j.Tiers = append(j.Tiers, points)
	}
	return json.Marshal(j)
}

// UnmarshalJSON decodes a history; variables this release does not know are
// left out, samples out of order are refused.
func (h *History) UnmarshalJSON(data []byte) error {
	var j historyJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("decode history: %w", err)
	}
	if j.Version != historyVersion || len(j.Tiers) != len(h.tiers) {
		return fmt.Errorf("decode history: version %d with %d tiers was written by another release", j.Version, len(j.Tiers))
	}
	*h = History{some: true}
	from := make([]int, len(j.Names))
	for i, name := range j.Names {
		from[i] = slices.IndexFunc(variables, func(v variable) bool { return v.group+"."+v.name == name })
		if from[i] >= 0 {
			h.keep = append(h.keep, from[i])
		}
	}
	if j.Stall != nil {
		h.stall, h.acted = *j.Stall, true
	}
	for i, points := range j.Tiers {
		for _, q := range points {
			if len(q.Values) != len(from) {
				return fmt.Errorf("decode history: a sample has %d values for %d names", len(q.Values), len(from))
			}
			values := make([]float64, len(from))
			for k, v := range q.Values {
				values[k] = unknown
				if v != nil {
					values[k] = *v
				}
			}
			h.tiers[i].add(point{q.At, project(values, from, h.keep)}, tierSteps[i].step, tierSteps[i].limit)
		}
	}
	return nil
}
