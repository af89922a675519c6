package series

import (
	"math"
	"testing"
	"time"
)

// Functions over time, with gaps in which nothing was measured: a rate spans a gap, a mean
// counts the last value before a gap until the next one, and a minimum or maximum ignores
// gaps. With fewer than two known values the result is unknown.
func TestOverGaps(t *testing.T) {
	t.Parallel()
	none := math.NaN()
	for _, test := range []struct {
		name     string
		values   []float64 // one every ten seconds; NaN: not measured
		function string
		want     float64
	}{
		{"rate over a gap", []float64{0, 100, none, none, none, 500}, "rate", 10},
		{"rate after a restart of the counter", []float64{100, 200, none, 30}, "rate", 130.0 / 30},
		{"increase over a gap", []float64{0, 100, none, 300}, "increase", 300},
		{"mean over a gap", []float64{1, 4, none, none, 9}, "avg_over", (10 + 4*30) / 40.0},
		{"maximum beside a gap", []float64{1, none, 3, none, 2}, "max_over", 3},
		{"minimum beside a gap", []float64{5, none, 3, none, 4}, "min_over", 3},
		{"delta over a gap", []float64{5, none, none, 4}, "delta", -1},
		{"one value", []float64{none, none, 7}, "max_over", none},
		{"none", []float64{none, none}, "rate", none},
		{"infinite is not known", []float64{1, math.Inf(1), 3}, "max_over", 3},
	} {
		h := &Store{}
		h.Keep([]string{"x"}, nil)
		at := start
		for _, v := range test.values {
			h.Begin(at, []float64{v})
			h.End()
			at = at.Add(10 * time.Second)
		}
		q := &Query{Function: Functions[test.function], Column: "x", Window: time.Hour}
		got := h.Ask(q, at.Add(-10*time.Second), q.Window)
		if math.IsNaN(got) != math.IsNaN(test.want) || math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
