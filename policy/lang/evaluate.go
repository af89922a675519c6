package lang

import (
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/sqlwatch/sqlwatch/collector"
)

// Moment is what expressions are evaluated against: one database at one instant.
type Moment struct {
	Now      time.Time
	Sample   *collector.Sample
	History  *History          // nil: over-time functions are unknown
	Labels   map[string]string // of the database
	Replicas []string          // replicas that ought to be in Sample; one that is not makes replica.* unknown
}

// Evaluation is a program at a moment.
type Evaluation struct {
	program *Program
	moment  Moment
	reading *reading
	ctx     *hcl.EvalContext
}

// At makes the program's expressions evaluable at a moment.
func (p *Program) At(m Moment) *Evaluation {
	e := &Evaluation{program: p, moment: m}
	e.reading = &reading{Sample: m.Sample, stall: m.History.Stall(), replicas: m.Replicas}
	e.ctx = e.context(func(i int) float64 { return variables[i].read(e.reading) }, m.Now, 0)
	return e
}

// WithWindows returns the evaluation with window.NAME for each state.
func (e *Evaluation) WithWindows(states map[string]WindowState) *Evaluation {
	values := make(map[string]cty.Value, len(states))
	for name, st := range states {
		values[name] = st.value()
	}
	return e.with("window", values)
}

// WithTunes returns the evaluation with tune.NAME for each value.
func (e *Evaluation) WithTunes(tunes map[string]float64) *Evaluation {
	values := make(map[string]cty.Value, len(tunes))
	for name, v := range tunes {
		values[name] = cty.NumberFloatVal(v)
	}
	return e.with("tune", values)
}

func (e *Evaluation) with(root string, values map[string]cty.Value) *Evaluation {
	if !e.program.uses[root] {
		return e
	}
	more := *e
	more.ctx = e.ctx.NewChild()
	more.ctx.Variables = map[string]cty.Value{root: cty.ObjectVal(values)}
	return &more
}

// context builds the values that expressions see at one instant, from a
// function that reads variables[i] at that instant.
func (e *Evaluation) context(read func(int) float64, now time.Time, depth int) *hcl.EvalContext {
	groups := map[string]map[string]cty.Value{}
	set := func(group, name string, v cty.Value) {
		if groups[group] == nil {
			groups[group] = map[string]cty.Value{}
		}
		groups[group][name] = v
	}
	uses, scope := e.program.uses, e.program.scope
	for i, v := range variables {
		if uses[v.group] {
			set(v.group, v.name, value(read(i), v.unit))
		}
	}
	for _, t := range texts {
		if uses[t.group] {
			set(t.group, t.name, cty.UnknownVal(cty.String))
			if s, ok := t.read(e.reading); ok {
				set(t.group, t.name, cty.StringVal(s))
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
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: scope.funcs}
	maps.Copy(ctx.Variables, scope.Variables)
	for name, attrs := range groups {
		ctx.Variables[name] = cty.ObjectVal(attrs)
	}
	if e.moment.History != nil && len(e.program.series) > 0 {
		ctx.Variables[pastName] = cty.CapsuleVal(pastType, &past{e: e, now: now, depth: depth})
	}
	return ctx
}

func (e *Evaluation) labels() cty.Value {
	labels := map[string]cty.Value{}
	for _, k := range e.program.scope.Labels {
		labels[k] = cty.NullVal(cty.String)
	}
	for k, v := range e.moment.Labels {
		labels[k] = cty.StringVal(v)
	}
	return cty.ObjectVal(labels)
}

// replica returns the values of one replica; a database without it has them unknown.
func (e *Evaluation) replica(name string) cty.Value {
	one := *e.reading
	one.replicas = []string{name}
	one.Sample = &collector.Sample{At: e.reading.At}
	for _, r := range e.reading.Replicas {
		if r.Name == name {
			one.Sample.Replicas = []collector.Replica{r}
		}
	}
	attrs := map[string]cty.Value{}
	for _, v := range variables {
		if v.group == "replica" {
			attrs[v.name] = value(v.read(&one), v.unit)
		}
	}
	return cty.ObjectVal(attrs)
}

// eval evaluates an expression. An error makes it unknown and is returned as
// a sentence without secrets.
func (e *Evaluation) eval(x hcl.Expression, ctx *hcl.EvalContext) (v cty.Value, why string) {
	defer func() {
		// The expression library panics on some odd combinations of values;
		// one policy's oddity must not stop the watch of a database.
		if r := recover(); r != nil {
			v, why = cty.DynamicVal, e.program.scope.scrub(fmt.Sprintf("evaluation failed: %v", r))
		}
	}()
	v, diags := x.Value(ctx)
	if diags.HasErrors() {
		for _, d := range diags {
			if d.Severity == hcl.DiagError {
				return cty.DynamicVal, e.program.scope.scrub(d.Summary + ": " + d.Detail)
			}
		}
	}
	return v, ""
}

// Truth evaluates a condition; where it is unknown because of an error, why says
// which. A missing expression is unknown.
func (e *Evaluation) Truth(x hclsyntax.Expression) (t Truth, why string) {
	if x == nil {
		return Unknown, ""
	}
	v, why := e.eval(x, e.ctx)
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

// Window evaluates an expression that stands for a window; where its state is
// unknown because of an error, why says which.
func (e *Evaluation) Window(x hclsyntax.Expression) (st WindowState, why string) {
	v, why := e.eval(x, e.ctx)
	return stateOf(v), why
}

// Text renders a message. What is not known reads "unknown".
func (e *Evaluation) Text(x hclsyntax.Expression) string {
	if t, ok := x.(*hclsyntax.TemplateExpr); ok {
		out := ""
		for _, part := range t.Parts {
			out += e.Text(part)
		}
		return out
	}
	v, why := e.eval(x, e.ctx)
	switch {
	case why != "":
		return "(" + why + ")"
	case v.IsMarked():
		return secret
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
