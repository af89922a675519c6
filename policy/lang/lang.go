// Package lang is the expression language of policies: what its names and
// functions mean, which expressions are refused before anything runs, and what
// an expression is worth at a moment. It performs no I/O and reads no clock.
// What is not known stays unknown (Kleene logic).
package lang

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/each"
	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/series"
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
	Databases []Database                   // configured databases; nil: not known
	Files     map[string]*hcl.File         // sources, to quote expressions from
	Scrub     func(string) string          // takes secrets out of a message; nil: there are none

	Source func(hcl.Range) (string, bool) // quotes a place without its secrets; nil: Files are quoted as they are

	funcs map[string]function.Function
}

// Database is what is known of a configured database before it is measured.
type Database struct {
	Name     string // of its block
	Many     bool   // it stands for many, or for one of another name: Name says nothing
	Labels   map[string]string
	Replicas []string
}

// functions returns every function an expression may call.
func (sc *Scope) functions() map[string]function.Function {
	if sc.funcs == nil {
		sc.funcs = amounts.Functions()
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

// source returns an expression as written, on one line.
func (sc *Scope) source(x hcl.Expression) string {
	if s, ok := sc.text(x.Range()); ok {
		return s
	}
	return "expression"
}

func (sc *Scope) text(r hcl.Range) (s string, ok bool) {
	if sc.Source != nil {
		s, ok = sc.Source(r)
	} else if f := sc.Files[r.Filename]; f != nil && r.CanSliceBytes(f.Bytes) {
		s, ok = string(r.SliceBytes(f.Bytes)), true
	}
	return strings.Join(strings.Fields(s), " "), ok
}

// signalName names the series of an expression by its source, or by its place if the
// source is not available.
func (sc *Scope) signalName(x hcl.Expression) string {
	r, of := x.Range(), ""
	if instance := each.Of(x); instance != "" {
		of = " of " + instance // it reads other values in the same words
	}
	if s, ok := sc.text(r); ok {
		return s + of
	}
	return fmt.Sprintf("%s:%d", r.Filename, r.Start.Byte)
}

// Value evaluates an expression that reads no measurement: it can read variables, locals,
// functions and what extra adds.
func (sc *Scope) Value(x hcl.Expression, extra map[string]cty.Value) (cty.Value, hcl.Diagnostics) {
	vars := maps.Clone(sc.Variables)
	if vars == nil {
		vars = map[string]cty.Value{}
	}
	maps.Copy(vars, extra)
	e, diags := native(x)
	if !diags.HasErrors() {
		diags = append(diags, limits.CheckCost(e, vars)...)
	}
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	v, more := e.Value(&hcl.EvalContext{Variables: vars, Functions: sc.functions()})
	return v, append(diags, more...)
}

// Program has the checked expressions of one configuration. Once the last one is compiled it
// does not change and may be shared.
type Program struct {
	Windows  []string        // names of windows that the expressions compiled next may read
	Tunes    map[string]Unit // tune values that the expressions compiled next may read
	Instance string          // instance of a for_each that the expressions compiled next belong to; "": none

	scope   *Scope
	units   map[hclsyntax.Expression]Unit // of every sub-expression
	uses    map[string]bool               // root names that some expression reads
	series  map[int]bool                  // indexes into measured.Names that over-time functions read
	signals []*signal                     // other expressions that they read, inner ones first
	slots   map[string]int                // places of the History's answers, by query
	learned []learned                     // signals of learned windows

	codes   map[hclsyntax.Expression]code
	windows map[hclsyntax.Expression]windowCode
	canFail map[hclsyntax.Expression]bool // if it is unknown, an error may be the reason
}

// signal is an expression that functions over time read. It is evaluated once at each sample,
// and its values are kept as a series of their own, because they cannot be computed from thinned
// samples afterwards.
type signal struct {
	name string // its source
	expr hclsyntax.Expression
	code code // nil: the library evaluates it
}

// learned is a signal for which a profile of the week is kept.
type learned struct {
	signal   hclsyntax.Expression
	location *time.Location
	profile  string // its name in a History
}

// NewProgram returns a program without expressions.
func NewProgram(sc *Scope) *Program {
	sc.functions() // create them now: evaluations share them
	return &Program{scope: sc, units: map[hclsyntax.Expression]Unit{}, uses: map[string]bool{}, series: map[int]bool{},
		slots: map[string]int{},
		codes: map[hclsyntax.Expression]code{}, windows: map[hclsyntax.Expression]windowCode{},
		canFail: map[hclsyntax.Expression]bool{}}
}

// Compile checks names, units, kinds and cost of an expression whose value must have a unit. The
// expression is nil if it cannot be evaluated at all. After any other error in the diagnostics
// the program must not be used.
func (p *Program) Compile(x hcl.Expression, want Unit) (hclsyntax.Expression, hcl.Diagnostics) {
	e, diags := native(x)
	if diags.HasErrors() {
		return nil, diags
	}
	if diags := limits.CheckCost(e, p.scope.Variables); diags.HasErrors() {
		return nil, diags
	}
	if diags := each.Bind(e, p.Instance); diags.HasErrors() {
		return nil, diags
	}
	c := &checker{Program: p}
	c.expect(e, want)
	if !c.diags.HasErrors() {
		p.translate(e)
	}
	return e, c.diags
}

// translate translates a checked expression to code, if that is possible.
func (p *Program) translate(e hclsyntax.Expression) {
	c := &coder{Program: p}
	if p.units[e] == WindowUnit {
		if w := c.window(e); w != nil {
			p.windows[e] = w
		}
		return
	}
	if n := c.number(e); n != nil {
		p.codes[e], p.canFail[e] = n, c.canFail
	}
}

// columnOf returns the name of the series that has an expression's values, or "" if there is none.
func (p *Program) columnOf(x hclsyntax.Expression) string {
	if i := indexOf(x); i >= 0 {
		return measured.Names[i].String()
	}
	name := p.scope.signalName(x)
	for _, s := range p.signals {
		if s.name == name {
			return name
		}
	}
	return ""
}

// keep makes the expression a series.
func (p *Program) keep(x hclsyntax.Expression) {
	if indexOf(x) >= 0 || p.columnOf(x) != "" {
		return
	}
	p.signals = append(p.signals, &signal{name: p.scope.signalName(x), expr: x, code: (&coder{Program: p}).number(x)})
}

// slot returns the place of a query's answer, which identical queries share.
func (p *Program) slot(function string, q *series.Query) int {
	key := fmt.Sprint(function, "\x00", q.Column, "\x00", q.Window, q.Extra)
	n, ok := p.slots[key]
	if !ok {
		n = len(p.slots)
		p.slots[key] = n
	}
	return n
}

// CompileLearned compiles the signal of a learned window, for which a profile of the week in a
// time zone is kept.
func (p *Program) CompileLearned(signal hcl.Expression, location *time.Location) (hclsyntax.Expression,
	hcl.Diagnostics) {
	e, diags := native(signal)
	if diags.HasErrors() {
		return nil, diags
	}
	if diags := limits.CheckCost(e, p.scope.Variables); diags.HasErrors() {
		return nil, diags
	}
	c := &checker{Program: p}
	c.overTimeOf(e)
	if !c.diags.HasErrors() {
		p.translate(e)
		p.learned = append(p.learned, learned{signal: e, location: location, profile: p.scope.signalName(e) + " in " +
			location.String()})
	}
	return e, c.diags
}

// UnitOf returns the unit of an expression's value as far as it is known.
func UnitOf(x hcl.Expression, sc *Scope) Unit {
	e, diags := native(x)
	if diags.HasErrors() {
		return AnyUnit
	}
	return (&checker{Program: NewProgram(sc)}).unit(e)
}
