package lang

import (
	"math"
	"time"

	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/sqlwatch/sqlwatch/policy/lang/series"
)

// WindowState is a window at one instant.
type WindowState struct {
	Open              Truth
	OpensIn, ClosesIn float64 // seconds; NaN: not known
}

// UnknownWindow returns the state of a window of which nothing is known.
func UnknownWindow() WindowState { return WindowState{OpensIn: unknown, ClosesIn: unknown} }

var windowType = cty.Object(map[string]cty.Type{"open": cty.Bool, "opens_in": cty.Number, "closes_in": cty.Number})

func (st WindowState) value() cty.Value {
	open := cty.UnknownVal(cty.Bool)
	if st.Open != Unknown {
		open = cty.BoolVal(st.Open == True)
	}
	return cty.ObjectVal(map[string]cty.Value{"open": open, "opens_in": value(st.OpensIn, Seconds),
		"closes_in": value(st.ClosesIn, Seconds)})
}

// stateOf reads a window value back.
func stateOf(v cty.Value) WindowState {
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() || !v.Type().Equals(windowType) {
		return UnknownWindow()
	}
	st := WindowState{OpensIn: toFloat(v.GetAttr("opens_in")), ClosesIn: toFloat(v.GetAttr("closes_in"))}
	switch open := toFloat(v.GetAttr("open")); {
	case math.IsNaN(open):
	case open == 1:
		st.Open = True
	default:
		st.Open = False
	}
	return st
}

// windowFunctions returns any_of, all_of and quiet.
func windowFunctions() map[string]function.Function {
	out := map[string]function.Function{"quiet": quiet()}
	for name, f := range combinations {
		out[name] = combine(f)
	}
	return out
}

// combinations are the functions that make one window of two.
var combinations = map[string]func(a, b WindowState) WindowState{
	"any_of": func(a, b WindowState) WindowState {
		return WindowState{a.Open.Or(b.Open), earlier(a.OpensIn, b.OpensIn), math.Max(a.ClosesIn, b.ClosesIn)}
	},
	"all_of": bothOpen,
}

// bothOpen is open while both are. When it opens is known where one of them is open
// until the other opens; where both are closed, or one closes first, their next
// openings need not meet, and it is not known.
func bothOpen(a, b WindowState) WindowState {
	st := WindowState{a.Open.And(b.Open), unknown, math.Min(a.ClosesIn, b.ClosesIn)}
	if a.Open == True && b.Open == False {
		a, b = b, a
	}
	switch {
	case st.Open != False:
		st.OpensIn = math.Max(a.OpensIn, b.OpensIn)
	case b.Open == True && a.OpensIn < b.ClosesIn:
		st.OpensIn = a.OpensIn
	}
	return st
}

// quiet is a window that is open while its signal is at most the given quantile
// of its own past.
func quiet() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "signal", Type: customdecode.ExpressionClosureType},
			{Name: "quantile", Type: cty.Number}},
		VarParam: &function.Parameter{Name: "over", Type: cty.DynamicPseudoType},
		Type:     function.StaticReturnType(windowType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			q, err := fraction(args[1])
			if err != nil {
				return cty.NilVal, err
			}
			over := 7 * 24 * time.Hour
			if len(args) > 2 {
				if over, _, err = (overTime{}).arguments(args[2:]); err != nil {
					return cty.NilVal, err
				}
			}
			st := UnknownWindow()
			closure := customdecode.ExpressionClosureFromVal(args[0])
			if p := pastOf(closure.EvalContext); p != nil {
				v, _ := p.e.eval(closure.Expression)
				now, dots := toFloat(v), seriesOf(closure.Expression, p, over)
				switch {
				case math.IsNaN(now) || len(dots) < 2:
				case now <= series.Quantile(dots, q):
					st.Open, st.OpensIn = True, 0
				default:
					st.Open = False
				}
			}
			return st.value(), nil
		},
	})
}

func combine(f func(a, b WindowState) WindowState) function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "window", Type: windowType, AllowUnknown: true}},
		VarParam: &function.Parameter{Name: "windows", Type: windowType, AllowUnknown: true},
		Type:     function.StaticReturnType(windowType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			st := stateOf(args[0])
			for _, v := range args[1:] {
				st = f(st, stateOf(v))
			}
			return st.value(), nil
		},
	})
}

// earlier returns the smaller of two times, the known one where one is not.
func earlier(a, b float64) float64 {
	switch {
	case math.IsNaN(a):
		return b
	case math.IsNaN(b):
		return a
	}
	return min(a, b)
}
