package series

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Dot is one value in time: seconds before now (negative), and the value.
type Dot struct{ T, V float64 }

// Function computes one value from at least two, oldest first. window is the length in seconds of
// the window that they come from; extra has the function's further arguments.
type Function struct {
	// the same values give the same result, however long ago they were
	Steady bool
	Apply  func(dots []Dot, window float64, extra []float64) float64 // may reorder dots
}

// Query is a function over time, applied to one series.
type Query struct {
	Function Function
	Column   string
	Window   time.Duration
	Extra    []float64
	Slot     int // place of its answer, which identical queries share
}

// Functions is every function over time.
var Functions = map[string]Function{
	"rate":          steady(func(d []Dot, _ []float64) float64 { return increase(d) / (d[len(d)-1].T - d[0].T) }),
	"increase":      steady(func(d []Dot, _ []float64) float64 { return increase(d) }),
	"delta":         steady(func(d []Dot, _ []float64) float64 { return d[len(d)-1].V - d[0].V }),
	"avg_over":      steady(average),
	"min_over":      steady(func(d []Dot, _ []float64) float64 { return Quantile(d, 0) }),
	"max_over":      steady(func(d []Dot, _ []float64) float64 { return Quantile(d, 1) }),
	"p50_over":      steady(func(d []Dot, _ []float64) float64 { return Quantile(d, 0.50) }),
	"p95_over":      steady(func(d []Dot, _ []float64) float64 { return Quantile(d, 0.95) }),
	"p99_over":      steady(func(d []Dot, _ []float64) float64 { return Quantile(d, 0.99) }),
	"quantile_over": steady(func(d []Dot, x []float64) float64 { return Quantile(d, x[0]) }),
	"ewma":          {Apply: ewma},
	"predict":       {Apply: predict},
}

func steady(f func([]Dot, []float64) float64) Function {
	return Function{Steady: true, Apply: func(d []Dot, _ float64, x []float64) float64 { return f(d, x) }}
}

// increase adds up the increases of a counter; a decrease means that it started over from 0.
func increase(d []Dot) float64 {
	sum := 0.0
	for i := 1; i < len(d); i++ {
		if d[i].V >= d[i-1].V {
			sum += d[i].V - d[i-1].V
		} else {
			sum += d[i].V
		}
	}
	return sum
}

// average weighs each value by how long it lasted.
func average(d []Dot, _ []float64) float64 {
	sum := 0.0
	for i := 1; i < len(d); i++ {
		sum += d[i-1].V * (d[i].T - d[i-1].T)
	}
	return sum / (d[len(d)-1].T - d[0].T)
}

// Quantile interpolates between the two nearest values, which it may reorder.
func Quantile(d []Dot, q float64) float64 {
	if q == 0 || q == 1 {
		v := d[0].V
		for _, x := range d[1:] {
			if q == 0 {
				v = min(v, x.V)
			} else {
				v = max(v, x.V)
			}
		}
		return v
	}
	slices.SortFunc(d, func(a, b Dot) int { return cmp.Compare(a.V, b.V) })
	rank := min(max(q, 0), 1) * float64(len(d)-1)
	lo := int(rank)
	hi := min(lo+1, len(d)-1)
	return d[lo].V + (d[hi].V-d[lo].V)*(rank-float64(lo))
}

// ewma is the mean with weights that halve with every half of the window.
func ewma(d []Dot, window float64, _ []float64) float64 {
	sum, weights := 0.0, 0.0
	for _, x := range d {
		w := math.Exp2(2 * x.T / window)
		sum, weights = sum+w*x.V, weights+w
	}
	return sum / weights
}

// predict continues the least-squares line through the values.
func predict(d []Dot, _ float64, x []float64) float64 {
	var n, st, sv, stt, stv float64
	for _, p := range d {
		n, st, sv, stt, stv = n+1, st+p.T, sv+p.V, stt+p.T*p.T, stv+p.T*p.V
	}
	slope := (n*stv - st*sv) / (n*stt - st*st)
	return (sv-slope*st)/n + slope*x[0]
}
