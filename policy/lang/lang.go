// Package lang is the expression language of policies: what its names and
// functions mean, which expressions are refused before anything runs, and what
// an expression is worth at a moment. It performs no I/O and reads no clock.
// What is not known stays unknown (Kleene logic).
package lang

import (
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Scope is what expressions see beyond the measurements. The caller fills it
// in; the functions must be pure.
type Scope struct {
	Variables map[string]cty.Value         // "var" and "local", objects
	Units     map[string]Unit              // by "var.NAME" and "local.NAME"
	Functions map[string]function.Function // beyond the language's own: env, file, secret
	Replicas  []string                     // configured replicas, as "s3.main"
	Notifiers []string                     // configured notifiers, as "webhook.ops"
	Labels    []string                     // label names that some database carries
	Files     map[string]*hcl.File         // sources, to quote expressions from
	Scrub     func(string) string          // takes secrets out of a message; nil: there are none

	funcs map[string]function.Function
}

// functions returns every function an expression may call.
func (sc *Scope) functions() map[string]function.Function {
	if sc.funcs == nil {
		sc.funcs = plainFunctions()
		maps.Copy(sc.funcs, overTimeFunctions())
		maps.Copy(sc.funcs, windowFunctions())
		maps.Copy(sc.funcs, sc.Functions)
	}
	return sc.funcs
}

func (sc *Scope) scrub(s string) string {
	if sc.Scrub == nil {
		return s
	}
	return sc.Scrub(s)
}

// source returns an expression as it is written, on one line.
func (sc *Scope) source(x hcl.Expression) string {
	r := x.Range()
	if f := sc.Files[r.Filename]; f != nil && r.CanSliceBytes(f.Bytes) {
		return strings.Join(strings.Fields(string(r.SliceBytes(f.Bytes))), " ")
	}
	return "expression"
}

// Value evaluates an expression that reads no measurement: it sees variables,
// locals, functions and what extra adds.
func (sc *Scope) Value(x hcl.Expression, extra map[string]cty.Value) (cty.Value, hcl.Diagnostics) {
	vars := maps.Clone(sc.Variables)
	if vars == nil {
		vars = map[string]cty.Value{}
	}
	maps.Copy(vars, extra)
	e, diags := native(x)
	if !diags.HasErrors() {
		diags = append(diags, checkCost(e, vars)...)
	}
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	v, more := e.Value(&hcl.EvalContext{Variables: vars, Functions: sc.functions()})
	return v, append(diags, more...)
}

// Program is the expressions of one configuration, checked. Once the last is
// compiled it does not change and may be shared.
type Program struct {
	Windows []string        // names of windows that the expressions compiled next may read
	Tunes   map[string]Unit // tune values that the expressions compiled next may read

	scope  *Scope
	units  map[hclsyntax.Expression]Unit // of every sub-expression
	uses   map[string]bool               // root names that some expression reads
	series map[int]bool                  // indexes into variables that over-time functions read
}

// NewProgram returns a program without expressions.
func NewProgram(sc *Scope) *Program {
	sc.functions() // evaluations share them, and must not make them
	return &Program{scope: sc, units: map[hclsyntax.Expression]Unit{}, uses: map[string]bool{}, series: map[int]bool{}}
}

// Compile checks names, units, kinds and cost of an expression whose value
// must be of a unit. The expression is nil where it cannot be evaluated at all;
// with any other error in the diagnostics the program must not be used.
func (p *Program) Compile(x hcl.Expression, want Unit) (hclsyntax.Expression, hcl.Diagnostics) {
	e, diags := native(x)
	if diags.HasErrors() {
		return nil, diags
	}
	return p.compile(e, want)
}

func (p *Program) compile(e hclsyntax.Expression, want Unit) (hclsyntax.Expression, hcl.Diagnostics) {
	if diags := checkCost(e, p.scope.Variables); diags.HasErrors() {
		return nil, diags
	}
	c := &checker{Program: p}
	c.expect(e, want)
	return e, c.diags
}

// CompileQuiet compiles `quiet(signal, quantile, over)`.
func (p *Program) CompileQuiet(signal hcl.Expression, quantile float64, over time.Duration) (hclsyntax.Expression, hcl.Diagnostics) {
	e, diags := native(signal)
	if diags.HasErrors() {
		return nil, diags
	}
	at := e.Range()
	constant := func(f float64) hclsyntax.Expression {
		return &hclsyntax.LiteralValueExpr{Val: cty.NumberFloatVal(f), SrcRange: at}
	}
	return p.compile(&hclsyntax.FunctionCallExpr{Name: "quiet", NameRange: at, OpenParenRange: at, CloseParenRange: at,
		Args: []hclsyntax.Expression{e, constant(quantile), constant(over.Seconds())}}, WindowUnit)
}

// UnitOf returns the unit of an expression's value as far as it can be told.
func UnitOf(x hcl.Expression, sc *Scope) Unit {
	e, diags := native(x)
	if diags.HasErrors() {
		return AnyUnit
	}
	return (&checker{Program: NewProgram(sc)}).unit(e)
}

// Truth is a Kleene truth value.
type Truth int8

// The truth values. The zero value is Unknown.
const (
	Unknown Truth = iota
	False
	True
)

// String returns "unknown", "false" or "true".
func (t Truth) String() string {
	switch t {
	case True:
		return "true"
	case False:
		return "false"
	}
	return "unknown"
}

// MarshalText encodes the value by its name.
func (t Truth) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Not returns Kleene's negation.
func (t Truth) Not() Truth {
	switch t {
	case True:
		return False
	case False:
		return True
	}
	return Unknown
}

func (t Truth) and(u Truth) Truth {
	switch {
	case t == False || u == False:
		return False
	case t == True && u == True:
		return True
	}
	return Unknown
}

func (t Truth) or(u Truth) Truth { return t.Not().and(u.Not()).Not() }
