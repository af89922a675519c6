package lang

import (
	"math"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
	"github.com/sqlwatch/sqlwatch/policy/lang/series"
	"github.com/sqlwatch/sqlwatch/policy/lang/truth"
)

// Most expressions of policies are numbers and truths. They are translated once into functions
// that allocate nothing. What cannot be translated is evaluated by the expression library, a
// hundred times slower, with the same result
// (TestCodeAgreesWithTheLibrary).

// code computes a number or a truth (0 or 1) at a moment; NaN is unknown.
type code func(*frame) float64

// windowCode computes the state of a window at a moment.
type windowCode func(*frame) WindowState

// frame is the input of code: one database at one instant.
type frame struct {
	measured.Reading
	now     time.Time
	history *History
	labels  map[string]string
	windows []WindowState      // by Program.Windows
	tunes   map[string]float64 // of the policy
	since   time.Time          // values before this time are ignored; zero: none are
}

// reach returns how far back a time window may look.
func (f *frame) reach(window time.Duration) time.Duration {
	if f.since.IsZero() {
		return window
	}
	return max(0, min(window, f.now.Sub(f.since)-1)) // the value that led to that moment is excluded
}

// coder translates the expressions of a program.
type coder struct {
	*Program
	canFail bool // it contains a division: if it is unknown, an error may be the reason
}

// number translates an expression whose value is a number or a truth; it returns nil if it cannot.
func (c *coder) number(x hclsyntax.Expression) code {
	if f, ok := c.constant(x); ok {
		return func(*frame) float64 { return f }
	}
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.number(x.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return c.number(x.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		return c.name(x.Traversal)
	case *hclsyntax.UnaryOpExpr:
		v := c.number(x.Val)
		switch {
		case v == nil:
			return nil
		case x.Op == hclsyntax.OpLogicalNot:
			return func(f *frame) float64 { return 1 - v(f) }
		}
		return func(f *frame) float64 { return -v(f) }
	case *hclsyntax.BinaryOpExpr:
		return c.binary(x)
	case *hclsyntax.ConditionalExpr:
		cond, yes, no := c.number(x.Condition), c.number(x.TrueResult), c.number(x.FalseResult)
		if cond == nil || yes == nil || no == nil {
			return nil
		}
		return func(f *frame) float64 {
			switch cond(f) {
			case 1:
				return yes(f)
			case 0:
				return no(f)
			}
			return unknown
		}
	case *hclsyntax.FunctionCallExpr:
		return c.call(x)
	}
	return nil
}

func (c *coder) constant(x hclsyntax.Expression) (float64, bool) {
	v, ok := c.constantValue(x)
	if !ok || v.IsNull() || v.Type() != cty.Number && v.Type() != cty.Bool {
		return 0, false
	}
	return toFloat(v), true
}

// Number returns the value of a compiled numeric expression that reads no measurement; ok is
// false for any other.
func (p *Program) Number(x hclsyntax.Expression) (v float64, ok bool) {
	return (&coder{Program: p}).constant(x)
}

// Constant returns the truth of a compiled condition that reads no measurement; ok is false for any other.
func (p *Program) Constant(x hclsyntax.Expression) (t Truth, ok bool) {
	if x == nil {
		return Unknown, false
	}
	v, ok := (&coder{Program: p}).constantValue(x)
	if !ok {
		return Unknown, false
	}
	return truth.Of(toFloat(v)), (v.IsNull() || v.Type() == cty.Bool)
}

// ConstantValue returns the value of a compiled expression that reads no measurement;
// ok is false for any other.
func (p *Program) ConstantValue(x hclsyntax.Expression) (v cty.Value, ok bool) {
	return (&coder{Program: p}).constantValue(x)
}

func (c *coder) constantValue(x hclsyntax.Expression) (cty.Value, bool) {
	for _, t := range x.Variables() {
		if !isGiven(t.RootName()) {
			return cty.NilVal, false
		}
	}
	v, diags := x.Value(&hcl.EvalContext{Variables: c.scope.Variables, Functions: c.scope.functions()})
	if diags.HasErrors() || !v.IsWhollyKnown() {
		return cty.NilVal, false
	}
	v, _ = v.UnmarkDeep() // it is only compared, never shown
	return v, true
}

func (c *coder) name(t hcl.Traversal) code {
	if i := variableIndex(t); i >= 0 && len(t) == 2 {
		read := measured.Names[i].Read
		return func(f *frame) float64 { return finite(read(&f.Reading)) }
	}
	if len(t) < 2 {
		return nil
	}
	key, index := step1(t[1])
	switch root := t.RootName(); {
	case root == "tune" && len(t) == 2:
		return func(f *frame) float64 {
			if v, ok := f.tunes[key]; ok {
				return v
			}
			return unknown
		}
	case root == "window" && len(t) == 3:
		field, _ := step1(t[2])
		w := c.windowNamed(key)
		switch {
		case w == nil:
			return nil
		case field == "open":
			return func(f *frame) float64 { return w(f).Open.Float() }
		case field == "opens_in":
			return func(f *frame) float64 { return finite(w(f).OpensIn) }
		case field == "closes_in":
			return func(f *frame) float64 { return finite(w(f).ClosesIn) }
		}
	case root == "replica" && index && len(t) == 3:
		attr, _ := t[2].(hcl.TraverseAttr)
		for i := range measured.Names {
			if v := &measured.Names[i]; v.Group == "replica" && v.Name == attr.Name {
				return func(f *frame) float64 {
					one := f.Reading.Only(key)
					return finite(v.Read(&one))
				}
			}
		}
	}
	return nil
}

func (c *coder) binary(x *hclsyntax.BinaryOpExpr) code {
	if x.Op == hclsyntax.OpEqual || x.Op == hclsyntax.OpNotEqual {
		if eq := c.textEqual(x); eq != nil {
			if x.Op == hclsyntax.OpEqual {
				return eq
			}
			return func(f *frame) float64 { return 1 - eq(f) }
		}
		if lu, ru := c.units[x.LHS], c.units[x.RHS]; lu != ru && (lu == Bool || ru == Bool) {
			return nil // the library decides about true == 1
		}
	}
	l, r := c.number(x.LHS), c.number(x.RHS)
	if l == nil || r == nil {
		return nil
	}
	switch x.Op {
	case hclsyntax.OpLogicalAnd:
		return func(f *frame) float64 {
			a := l(f)
			if a == 0 {
				return 0
			}
			if b := r(f); b != 1 || a == 1 {
				return b
			}
			return a // unknown and true
		}
	case hclsyntax.OpLogicalOr:
		return func(f *frame) float64 {
			a := l(f)
			if a == 1 {
				return 1
			}
			if b := r(f); b != 0 || a == 0 {
				return b
			}
			return a // unknown or false
		}
	case hclsyntax.OpAdd:
		return func(f *frame) float64 { return l(f) + r(f) }
	case hclsyntax.OpSubtract:
		return func(f *frame) float64 { return l(f) - r(f) }
	case hclsyntax.OpMultiply:
		return func(f *frame) float64 { return l(f) * r(f) }
	case limits.Divide, hclsyntax.OpDivide:
		c.canFail = true
		return divided(l, r, func(a, b float64) float64 { return a / b })
	case limits.Modulo, hclsyntax.OpModulo:
		c.canFail = true
		return divided(l, r, math.Mod)
	}
	compare, ok := comparisons[x.Op]
	if !ok {
		return nil
	}
	return func(f *frame) float64 {
		a, b := l(f), r(f)
		if a != a || b != b {
			return unknown
		}
		return number(compare(a, b))
	}
}

var comparisons = map[*hclsyntax.Operation]func(a, b float64) bool{
	hclsyntax.OpEqual:              func(a, b float64) bool { return a == b },
	hclsyntax.OpNotEqual:           func(a, b float64) bool { return a != b },
	hclsyntax.OpGreaterThan:        func(a, b float64) bool { return a > b },
	hclsyntax.OpGreaterThanOrEqual: func(a, b float64) bool { return a >= b },
	hclsyntax.OpLessThan:           func(a, b float64) bool { return a < b },
	hclsyntax.OpLessThanOrEqual:    func(a, b float64) bool { return a <= b },
}

func divided(l, r code, op func(a, b float64) float64) code {
	return func(f *frame) float64 {
		b := r(f)
		if b == 0 {
			return unknown
		}
		return op(l(f), b)
	}
}

// textOf reads text: its value, and whether it is known; ok without set means null.
type textOf func(*frame) (s string, set, known bool)

// textEqual translates a comparison of texts; it returns nil for anything else.
func (c *coder) textEqual(x *hclsyntax.BinaryOpExpr) code {
	l, r := c.text(x.LHS), c.text(x.RHS)
	if l == nil || r == nil {
		return nil
	}
	return func(f *frame) float64 {
		a, aSet, aKnown := l(f)
		b, bSet, bKnown := r(f)
		if !aKnown || !bKnown {
			return unknown
		}
		return number(aSet == bSet && a == b)
	}
}

func (c *coder) text(x hclsyntax.Expression) textOf {
	if v, ok := c.constantValue(x); ok {
		if v.IsNull() {
			return func(*frame) (string, bool, bool) { return "", false, true }
		}
		if v.Type() != cty.String {
			return nil
		}
		s := v.AsString()
		return func(*frame) (string, bool, bool) { return s, true, true }
	}
	tr, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if !ok || len(tr.Traversal) < 2 {
		return nil
	}
	t := tr.Traversal
	key, _ := step1(t[1])
	if t.RootName() == "db" && key == "labels" && len(t) == 3 {
		label, _ := step1(t[2])
		return func(f *frame) (string, bool, bool) {
			s, set := f.labels[label]
			return s, set, true
		}
	}
	for _, n := range measured.Texts {
		if n.Group == t.RootName() && n.Name == key && len(t) == 2 {
			return func(f *frame) (string, bool, bool) {
				s, known := n.Read(&f.Reading)
				return s, true, known
			}
		}
	}
	return nil
}

func (c *coder) call(x *hclsyntax.FunctionCallExpr) code {
	if f, ok := overTimes[x.Name]; ok {
		return c.overTime(f, x)
	}
	args := make([]code, len(x.Args))
	for i, a := range x.Args {
		if args[i] = c.number(a); args[i] == nil {
			return nil
		}
	}
	switch {
	case len(args) == 0:
		return nil
	case x.Name == "abs":
		return func(f *frame) float64 { return math.Abs(args[0](f)) }
	case x.Name == "min":
		return fold(args, func(a, b float64) float64 { return min(a, b) })
	case x.Name == "max":
		return fold(args, func(a, b float64) float64 { return max(a, b) })
	case x.Name == "coalesce":
		return func(f *frame) float64 {
			for _, a := range args {
				if v := a(f); v == v {
					return v
				}
			}
			return unknown
		}
	}
	return nil
}

func fold(args []code, op func(a, b float64) float64) code {
	return func(f *frame) float64 {
		v := args[0](f)
		for _, a := range args[1:] {
			v = op(v, a(f))
		}
		return v
	}
}

// overTime translates a function over time. Identical calls share their result, which is
// computed once per tick for all policies.
func (c *coder) overTime(f overTime, x *hclsyntax.FunctionCallExpr) code {
	column := c.columnOf(x.Args[0])
	if column == "" {
		return nil
	}
	args := make([]cty.Value, len(x.Args)-1)
	for i, a := range x.Args[1:] {
		v, ok := c.constantValue(a)
		if !ok {
			return nil
		}
		args[i] = v
	}
	window, extra, err := f.arguments(args)
	if err != nil {
		return nil
	}
	q := &series.Query{Function: f.Function, Column: column, Window: window, Extra: extra}
	q.Slot = c.slot(x.Name, q)
	return func(fr *frame) float64 {
		if fr.history == nil {
			return unknown
		}
		return fr.history.store.Ask(q, fr.now, fr.reach(q.Window))
	}
}

// window translates an expression whose value is a window.
func (c *coder) window(x hclsyntax.Expression) windowCode {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.window(x.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return c.window(x.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		if t := x.Traversal; t.RootName() == "window" && len(t) == 2 {
			key, _ := step1(t[1])
			return c.windowNamed(key)
		}
	case *hclsyntax.FunctionCallExpr:
		combine, ok := combinations[x.Name]
		if !ok || len(x.Args) == 0 {
			return nil
		}
		parts := make([]windowCode, len(x.Args))
		for i, a := range x.Args {
			if parts[i] = c.window(a); parts[i] == nil {
				return nil
			}
		}
		return func(f *frame) WindowState {
			st := parts[0](f)
			for _, p := range parts[1:] {
				st = combine(st, p(f))
			}
			return st
		}
	}
	return nil
}

func (c *coder) windowNamed(name string) windowCode {
	for i, n := range c.Windows {
		if n == name {
			return func(f *frame) WindowState {
				if i >= len(f.windows) {
					return UnknownWindow()
				}
				return f.windows[i]
			}
		}
	}
	return nil
}

// finite turns an infinity into an unknown value.
func finite(v float64) float64 {
	if math.IsInf(v, 0) {
		return unknown
	}
	return v
}
