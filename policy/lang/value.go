package lang

import (
	"math"

	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/truth"
)

// Truth is a Kleene truth value.
type Truth = truth.Truth

// The truth values. The zero value is Unknown.
const (
	Unknown = truth.Unknown
	False   = truth.False
	True    = truth.True
)

// Unit is what a value measures. Expressions are checked for mixing them.
type Unit = measured.Unit

// The units of values in expressions.
const (
	AnyUnit    = measured.AnyUnit
	Plain      = measured.Plain
	Count      = measured.Count
	Bytes      = measured.Bytes
	Seconds    = measured.Seconds
	Ratio      = measured.Ratio
	Text       = measured.Text
	Bool       = measured.Bool
	WindowUnit = measured.WindowUnit
)

var unknown = math.NaN()

// number returns 1 for true, 0 for false.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// value converts a measured number to the expression's value.
func value(v float64, u Unit) cty.Value {
	switch {
	case u == Bool && math.IsNaN(v):
		return cty.UnknownVal(cty.Bool)
	case u == Bool:
		return cty.BoolVal(v != 0)
	case math.IsNaN(v), math.IsInf(v, 0):
		return cty.UnknownVal(cty.Number)
	}
	return cty.NumberFloatVal(v)
}
