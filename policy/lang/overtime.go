package lang

import (
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/series"
)

// past is how an over-time function finds the history and the instant for which it is
// evaluated. It travels in the evaluation context under a name that no expression can contain.
type past struct{ e *Evaluation }

const pastName = " past"

var pastType = cty.Capsule("past", reflect.TypeFor[past]())

// overTime describes one function over time: the names of its parameters after the expression and
// the window, and the unit of its result.
type overTime struct {
	series.Function
	extra []string // "quantile" or "ahead"
	unit  func(Unit) Unit
}

func sameUnit(u Unit) Unit { return u }
func noUnit(Unit) Unit     { return AnyUnit }

// overTimes is every function over time.
var overTimes = overTimesOf(series.Functions)

// OverTime reports whether a function is a function over time.
func OverTime(function string) bool { _, is := overTimes[function]; return is }

func overTimesOf(functions map[string]series.Function) map[string]overTime {
	out := make(map[string]overTime, len(functions))
	for name, f := range functions {
		o := overTime{Function: f, unit: sameUnit}
		switch name {
		case "rate":
			o.unit = noUnit
		case "quantile_over":
			o.extra = []string{"quantile"}
		case "predict":
			o.extra = []string{"ahead"}
		}
		out[name] = o
	}
	return out
}

// overTimeFunctions creates the language's functions from the table.
func overTimeFunctions() map[string]function.Function {
	out := make(map[string]function.Function, len(overTimes))
	for name, f := range overTimes {
		params := []function.Parameter{{Name: "expression", Type: customdecode.ExpressionClosureType},
			{Name: "window", Type: cty.DynamicPseudoType}}
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
				return value(f.Apply(dots, window.Seconds(), extra), Count), nil
			},
		})
	}
	return out
}

// arguments reads the window and the parameters after it.
func (f overTime) arguments(args []cty.Value) (window time.Duration, extra []float64, err error) {
	if window, err = amounts.DurationValue(args[0]); err != nil {
		return 0, nil, err
	}
	if window < time.Second || window > series.MaxWindow {
		return 0, nil, errors.New("the window must be between 1s and 10d")
	}
	for i, name := range f.extra {
		if name == "ahead" {
			d, err := amounts.DurationValue(args[i+1])
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

// seriesOf returns the values of x within the window.
func seriesOf(x hcl.Expression, p *past, window time.Duration) []series.Dot {
	e, ok := x.(hclsyntax.Expression)
	if p == nil || !ok {
		return nil
	}
	return p.e.frame.history.dots(p.e.program.columnOf(e), p.e.frame.now,
		p.e.frame.reach(window))
}

// indexOf returns the index of the variable that x names, or -1 if x is more than a name.
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
	return slices.IndexFunc(measured.Names, func(v measured.Name) bool {
		return v.Group == t.RootName() && v.Name == attr.Name
	})
}

// toFloat returns the value of a number or a truth, or NaN for anything else.
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
