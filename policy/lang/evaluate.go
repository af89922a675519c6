package lang

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/truth"
)

// Moment is what expressions are evaluated against: one database at one instant.
type Moment struct {
	Now      time.Time
	Sample   *collector.Sample
	History  *History          // nil: over-time functions are unknown
	Labels   map[string]string // of the database
	Replicas []string          // replicas that should be in Sample; a missing one makes replica.* unknown
}

// Evaluation is a program at a moment.
type Evaluation struct {
	program *Program
	frame   *frame
	ctx     *hcl.EvalContext // for what is not code; created when needed
	own     frame            // what frame points to, unless it is shared
}

// At returns an evaluation of the program at a moment.
func (p *Program) At(m Moment) *Evaluation {
	e := &Evaluation{}
	p.Begin(e, m)
	return e
}

// Begin sets up an evaluation, which may have been used before, for the program at a moment.
func (p *Program) Begin(e *Evaluation, m Moment) {
	e.program, e.ctx = p, nil
	e.own = frame{
		Reading: measured.Reading{Sample: m.Sample, Stall: m.History.Stall(), Expected: m.Replicas},
		now:     m.Now, history: m.History, labels: m.Labels,
	}
	e.frame = &e.own
}

// WithWindows returns the evaluation with window.NAME for each state.
func (e *Evaluation) WithWindows(states map[string]WindowState) *Evaluation {
	windows := make([]WindowState, len(e.program.Windows))
	for i, name := range e.program.Windows {
		windows[i] = UnknownWindow()
		if st, ok := states[name]; ok {
			windows[i] = st
		}
	}
	e.SetWindows(windows)
	return e
}

// SetWindows sets the states of Program.Windows, in that order.
func (e *Evaluation) SetWindows(states []WindowState) { e.frame.windows, e.ctx = states, nil }

// WithTunes returns the evaluation with tune.NAME for each value.
func (e *Evaluation) WithTunes(tunes map[string]float64) *Evaluation {
	if len(tunes) == 0 {
		return e
	}
	f := *e.frame
	f.tunes = tunes
	return &Evaluation{program: e.program, frame: &f}
}

// Since returns the evaluation with functions over time that look back no further than the given time.
func (e *Evaluation) Since(t time.Time) *Evaluation {
	f := *e.frame
	f.since = t
	return &Evaluation{program: e.program, frame: &f}
}

// context returns the values that the library's expressions can read.
func (e *Evaluation) context() *hcl.EvalContext {
	if e.ctx != nil {
		return e.ctx
	}
	groups := map[string]map[string]cty.Value{}
	set := func(group, name string, v cty.Value) {
		if groups[group] == nil {
			groups[group] = map[string]cty.Value{}
		}
		groups[group][name] = v
	}
	uses, scope, r := e.program.uses, e.program.scope, &e.frame.Reading
	for _, v := range measured.Names {
		if uses[v.Group] {
			set(v.Group, v.Name, value(v.Read(r), v.Unit))
		}
	}
	for _, t := range measured.Texts {
		if uses[t.Group] {
			set(t.Group, t.Name, cty.UnknownVal(cty.String))
			if s, ok := t.Read(r); ok {
				set(t.Group, t.Name, cty.StringVal(s))
			}
		}
	}
	if uses["db"] {
		set("db", "labels", e.labels())
	}
	if uses["replica"] {
		for _, name := range scope.Replicas {
			set("replica", name, e.replica(name))
		}
	}
	if uses["window"] {
		for i, name := range e.program.Windows {
			st := UnknownWindow()
			if i < len(e.frame.windows) {
				st = e.frame.windows[i]
			}
			set("window", name, st.value())
		}
	}
	if uses["tune"] {
		for name, v := range e.frame.tunes {
			set("tune", name, cty.NumberFloatVal(v))
		}
	}
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: scope.funcs}
	maps.Copy(ctx.Variables, scope.Variables)
	for name, attrs := range groups {
		ctx.Variables[name] = cty.ObjectVal(attrs)
	}
	if e.frame.history != nil {
		ctx.Variables[pastName] = cty.CapsuleVal(pastType, &past{e: e})
	}
	e.ctx = ctx
	return ctx
}

func (e *Evaluation) labels() cty.Value {
	labels := map[string]cty.Value{}
	for _, k := range e.program.scope.Labels {
		labels[k] = cty.NullVal(cty.String)
	}
	for k, v := range e.frame.labels {
		labels[k] = cty.StringVal(v)
	}
	return cty.ObjectVal(labels)
}

// replica returns the values of one replica; they are unknown if the database does not have it.
func (e *Evaluation) replica(name string) cty.Value {
	one := e.frame.Reading.Only(name)
	attrs := map[string]cty.Value{}
	for _, v := range measured.Names {
		if v.Group == "replica" {
			attrs[v.Name] = value(v.Read(&one), v.Unit)
		}
	}
	return cty.ObjectVal(attrs)
}

// eval evaluates an expression with the library. An error makes the value unknown and is returned
// as a sentence without secrets.
func (e *Evaluation) eval(x hcl.Expression) (v cty.Value, why string) {
	defer func() {
		// The expression library panics on some odd combinations of values. That must not stop the
		// watching of a database.
		if r := recover(); r != nil {
			v, why = cty.DynamicVal, e.program.scope.scrub(fmt.Sprintf("evaluation failed: %v", r))
		}
	}()
	v, diags := x.Value(e.context())
	if i := slices.IndexFunc(diags, func(d *hcl.Diagnostic) bool { return d.Severity == hcl.DiagError }); i >= 0 {
		return cty.DynamicVal, e.program.scope.scrub(diags[i].Summary + ": " + diags[i].Detail)
	}
	return v, ""
}

// Source returns an expression as written, without its secrets.
func (e *Evaluation) Source(x hclsyntax.Expression) string { return e.program.Source(x) }

// Source returns an expression as written, without its secrets.
func (p *Program) Source(x hclsyntax.Expression) string { return p.scope.scrub(p.scope.source(x)) }

// Identity returns what distinguishes a compiled expression from others: its source and its instance.
func (p *Program) Identity(x hclsyntax.Expression) string { return p.scope.signalName(x) }

// number evaluates an expression whose value is a number or a truth.
func (e *Evaluation) number(x hclsyntax.Expression) (v float64, why string) {
	if code := e.program.codes[x]; code != nil {
		if v = code(e.frame); v == v || !e.program.canFail[x] {
			return v, ""
		}
	}
	got, why := e.eval(x)
	return toFloat(got), why
}

// Truth evaluates a condition. If it is unknown because of an error, why is that error. A missing
// expression is unknown.
func (e *Evaluation) Truth(x hclsyntax.Expression) (t Truth, why string) {
	if x == nil {
		return Unknown, ""
	}
	if code := e.program.codes[x]; code != nil {
		if t = truth.Of(code(e.frame)); t != Unknown || !e.program.canFail[x] {
			return t, ""
		}
	}
	v, why := e.eval(x)
	v, _ = v.Unmark()
	b, err := convert.Convert(v, cty.Bool)
	switch {
	case err != nil || !b.IsKnown() || b.IsNull():
		return Unknown, why
	case b.True():
		return True, why
	}
	return False, why
}

// Window evaluates an expression whose value is a window. If its state is unknown because of an
// error, why is that error.
func (e *Evaluation) Window(x hclsyntax.Expression) (st WindowState, why string) {
	if code := e.program.windows[x]; code != nil {
		return code(e.frame), ""
	}
	v, why := e.eval(x)
	return stateOf(v), why
}

// Text renders a message. Unknown values become "unknown".
func (e *Evaluation) Text(x hclsyntax.Expression) string {
	if t, ok := x.(*hclsyntax.TemplateExpr); ok {
		out := ""
		for _, part := range t.Parts {
			out += e.Text(part)
		}
		return out
	}
	v, why := e.eval(x)
	switch {
	case why != "":
		return "(" + why + ")"
	case marks.IsSecret(v):
		return secret
	}
	v, _ = v.UnmarkDeep()
	switch {
	case !v.IsKnown():
		return "unknown"
	case v.IsNull():
		return ""
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil || !s.IsKnown() || s.IsNull() {
		return "(not text)"
	}
	return s.AsString()
}
