package lang

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"sort"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// past travels in the evaluation context under a name no expression can
// write: it is how an over-time function finds the history and the instant it
// is evaluated for.
type past struct {
	e     *Evaluation
	now   time.Time
	depth int // over-time functions around this one
}

const pastName = " past"

var pastType = cty.Capsule("past", reflect.TypeFor[past]())

// maxEvaluations bounds how often one over-time function evaluates an
// expression that is more than a variable's name, an eighth of it within
// another such function; of more samples it takes evenly spaced ones.
const maxEvaluations = 240

// dot is one value in time: seconds before now (negative), and the value.
type dot struct{ t, v float64 }

// overTime is one function over time: parameters beyond the expression and
// the window, and what it makes of at least two values, oldest first. extra
// holds those parameters, durations in seconds.
type overTime struct {
	extra []string // names of further parameters: "quantile" or "ahead"
	unit  func(Unit) Unit
	apply func(dots []dot, window float64, extra []float64) float64
}

func sameUnit(u Unit) Unit { return u }
func noUnit(Unit) Unit     { return AnyUnit }

// overTimes is every function over time.
var overTimes = map[string]overTime{
	"rate":          {unit: noUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return increase(d) / (d[len(d)-1].t - d[0].t) }},
	"increase":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return increase(d) }},
	"delta":         {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return d[len(d)-1].v - d[0].v }},
	"avg_over":      {unit: sameUnit, apply: average},
	"min_over":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return quantile(d, 0) }},
	"max_over":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return quantile(d, 1) }},
	"p50_over":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return quantile(d, 0.50) }},
	"p95_over":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return quantile(d, 0.95) }},
	"p99_over":      {unit: sameUnit, apply: func(d []dot, _ float64, _ []float64) float64 { return quantile(d, 0.99) }},
	"quantile_over": {extra: []string{"quantile"}, unit: sameUnit, apply: func(d []dot, _ float64, x []float64) float64 { return quantile(d, x[0]) }},
	"ewma":          {unit: sameUnit, apply: ewma},
	"predict":       {extra: []string{"ahead"}, unit: sameUnit, apply: predict},
}

// increase adds up what a counter gained; a fall means it began anew from 0.
func increase(d []dot) float64 {
	sum := 0.0
	for i := 1; i < len(d); i++ {
		if d[i].v >= d[i-1].v {
			sum += d[i].v - d[i-1].v
		} else {
			sum += d[i].v
		}
	}
	return sum
}

// average weighs each value by how long it held.
func average(d []dot, _ float64, _ []float64) float64 {
	sum := 0.0
	for i := 1; i < len(d); i++ {
		sum += d[i-1].v * (d[i].t - d[i-1].t)
	}
	return sum / (d[len(d)-1].t - d[0].t)
}

// quantile interpolates between the two nearest values.
func quantile(d []dot, q float64) float64 {
	values := make([]float64, len(d))
	for i := range d {
		values[i] = d[i].v
	}
	sort.Float64s(values)
	rank := min(max(q, 0), 1) * float64(len(values)-1)
	lo := int(rank)
	hi := min(lo+1, len(values)-1)
	return values[lo] + (values[hi]-values[lo])*(rank-float64(lo))
}

// ewma is the mean with weights that halve every window's half.
func ewma(d []dot, window float64, _ []float64) float64 {
	sum, weights := 0.0, 0.0
	for _, x := range d {
		w := math.Exp2(2 * x.t / window)
		sum, weights = sum+w*x.v, weights+w
	}
	return sum / weights
}

// predict continues the least-squares line through the values.
func predict(d []dot, _ float64, x []float64) float64 {
	var n, st, sv, stt, stv float64
	for _, p := range d {
		n, st, sv, stt, stv = n+1, st+p.t, sv+p.v, stt+p.t*p.t, stv+p.t*p.v
	}
	slope := (n*stv - st*sv) / (n*stt - st*st)
	return (sv-slope*st)/n + slope*x[0]
}

// overTimeFunctions makes the language's functions from the table.
func overTimeFunctions() map[string]function.Function {
	out := make(map[string]function.Function, len(overTimes))
	for name, f := range overTimes {
		params := []function.Parameter{{Name: "expression", Type: customdecode.ExpressionClosureType}, {Name: "window", Type: cty.DynamicPseudoType}}
		for _, extra := range f.extra {
			params = append(params, function.Parameter{Name: extra, Type: cty.DynamicPseudoType})
		}
		out[name] = function.New(&function.Spec{
			Params: params,
			Type:   function.StaticReturnType(cty.Number),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				window, extra, err := f.arguments(args[1:])
				if err != nil {
					return cty.NilVal, err
				}
				closure := customdecode.ExpressionClosureFromVal(args[0])
				dots := seriesOf(closure.Expression, pastOf(closure.EvalContext), window)
				if len(dots) < 2 {
					return cty.UnknownVal(cty.Number), nil
				}
				return value(f.apply(dots, window.Seconds(), extra), Count), nil
			},
		})
	}
	return out
}

// arguments reads the window and what follows it.
func (f overTime) arguments(args []cty.Value) (window time.Duration, extra []float64, err error) {
	if window, err = DurationValue(args[0]); err != nil {
		return 0, nil, err
	}
	if window < time.Second || window > MaxWindow {
		return 0, nil, errors.New("the window must be between 1s and 10d")
	}
	for i, name := range f.extra {
		if name == "ahead" {
			d, err := DurationValue(args[i+1])
			if err != nil {
				return 0, nil, err
			}
			extra = append(extra, d.Seconds())
			continue
		}
		q, err := fraction(args[i+1])
		if err != nil {
			return 0, nil, err
		}
		extra = append(extra, q)
	}
	return window, extra, nil
}

func fraction(v cty.Value) (float64, error) {
	if v.Type() != cty.Number || !v.IsKnown() || v.IsNull() {
		return 0, errors.New("the quantile must be a number from 0 to 1")
	}
	q, _ := v.AsBigFloat().Float64()
	if q < 0 || q > 1 {
		return 0, errors.New("the quantile must be a number from 0 to 1")
	}
	return q, nil
}

func pastOf(ctx *hcl.EvalContext) *past {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[pastName]; ok {
			return v.EncapsulatedValue().(*past)
		}
	}
	return nil
}

// seriesOf evaluates x at the samples of the window; those where it is
// unknown are left out.
func seriesOf(x hcl.Expression, p *past, window time.Duration) []dot {
	if p == nil {
		return nil
	}
	h := p.e.moment.History
	points := h.since(p.now.Add(-window), p.now)
	dots := make([]dot, 0, len(points))
	add := func(at time.Time, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			dots = append(dots, dot{at.Sub(p.now).Seconds(), v})
		}
	}
	if i := indexOf(x); i >= 0 {
		k, ok := slices.BinarySearch(h.indexes(), i)
		if !ok {
			return nil
		}
		for _, pt := range points {
			add(pt.at, pt.values[k])
		}
		return dots
	}
	for _, pt := range thin(points, maxEvaluations>>(3*p.depth)) {
		ctx := p.e.context(func(i int) float64 {
			if k, ok := slices.BinarySearch(h.indexes(), i); ok {
				return pt.values[k]
			}
			return unknown
		}, pt.at, p.depth+1)
		v, _ := p.e.eval(x, ctx)
		add(pt.at, toFloat(v))
	}
	return dots
}

// thin returns at most n of the points, evenly spaced, with the first and the last.
func thin(points []point, n int) []point {
	if len(points) <= n {
		return points
	}
	out := make([]point, n)
	for i := range out {
		out[i] = points[i*(len(points)-1)/(n-1)]
	}
	return out
}

// indexOf returns the index of the variable that x names, -1 if x is more.
func indexOf(x hcl.Expression) int {
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if !ok || len(t.Traversal) != 2 {
		return -1
	}
	return variableIndex(t.Traversal)
}

// variableIndex returns the index of the variable a traversal begins with, or -1.
func variableIndex(t hcl.Traversal) int {
	if len(t) < 2 {
		return -1
	}
	attr, ok := t[1].(hcl.TraverseAttr)
	if !ok {
		return -1
	}
	return slices.IndexFunc(variables, func(v variable) bool { return v.group == t.RootName() && v.name == attr.Name })
}

// toFloat returns a number's or a truth's value, NaN for anything else.
func toFloat(v cty.Value) float64 {
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() {
		return unknown
	}
	switch v.Type() {
	case cty.Number:
		f, _ := v.AsBigFloat().Float64()
		return f
	case cty.Bool:
		return number(v.True())
	}
	return unknown
}
