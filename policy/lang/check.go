package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/each"
	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
)

// checker finds unknown names, mixed units and values of the wrong kind in one expression before
// anything runs, and records in its program what the expression reads.
type checker struct {
	*Program
	diags hcl.Diagnostics
	bound []string // variables of enclosing for expressions
	over  int      // number of over-time functions around the expression
}

func (c *checker) errorf(x hcl.Expression, summary, format string, args ...any) {
	c.report(hcl.DiagError, x, summary, format, args...)
}

func (c *checker) report(sev hcl.DiagnosticSeverity, x hcl.Expression, summary, format string, args ...any) {
	c.diags = append(c.diags, &hcl.Diagnostic{Severity: sev, Summary: summary, Detail: fmt.Sprintf(format, args...),
		Subject: x.Range().Ptr()})
}

// expect checks an expression whose value must have a given unit.
func (c *checker) expect(x hclsyntax.Expression, want Unit) {
	got := c.unit(x)
	switch x.(type) {
	case *hclsyntax.TupleConsExpr, *hclsyntax.ObjectConsExpr, *hclsyntax.ForExpr:
		if want == Bool {
			c.errorf(x, "Wrong kind of value", "This must be %s, it is a list or an object.", want)
			return
		}
	}
	if got == AnyUnit || want == AnyUnit || got == want || want == Count && got.Numeric() {
		return
	}
	hint := ""
	if _, text := x.(*hclsyntax.TemplateExpr); text && want == Bool {
		hint = " In JSON, write the expression as \"${…}\"."
	}
	c.errorf(x, "Wrong kind of value", "This must be %s, it is %s.%s", want, got, hint)
}

// unit checks x and returns its unit.
func (c *checker) unit(x hclsyntax.Expression) Unit {
	u := c.infer(x)
	c.units[x] = u
	return u
}

func (c *checker) infer(x hclsyntax.Expression) Unit {
	switch x := x.(type) {
	case *hclsyntax.LiteralValueExpr:
		return unitOfType(x.Val.Type(), Plain)
	case *hclsyntax.ScopeTraversalExpr:
		return c.name(x)
	case *hclsyntax.ParenthesesExpr:
		return c.unit(x.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return c.unit(x.Wrapped)
	case *hclsyntax.TemplateExpr:
		for _, p := range x.Parts {
			c.unit(p)
		}
		return Text
	case *hclsyntax.UnaryOpExpr:
		if x.Op == hclsyntax.OpLogicalNot {
			c.expect(x.Val, Bool)
			return Bool
		}
		c.expectNumber(x.Val)
		return c.units[x.Val]
	case *hclsyntax.BinaryOpExpr:
		return c.binary(x)
	case *hclsyntax.ConditionalExpr:
		c.expect(x.Condition, Bool)
		return c.common(x, x.TrueResult, x.FalseResult)
	case *hclsyntax.FunctionCallExpr:
		return c.call(x)
	case *hclsyntax.ForExpr:
		c.unit(x.CollExpr)
		c.bound = append(c.bound, x.KeyVar, x.ValVar)
		for _, p := range []hclsyntax.Expression{x.KeyExpr, x.ValExpr, x.CondExpr} {
			if p != nil {
				c.unit(p)
			}
		}
		c.bound = c.bound[:len(c.bound)-2]
		return AnyUnit
	case *hclsyntax.SplatExpr:
		c.unit(x.Source)
	case *hclsyntax.TupleConsExpr:
		for _, p := range x.Exprs {
			c.unit(p)
		}
	case *hclsyntax.ObjectConsExpr:
		for _, item := range x.Items {
			c.unit(item.ValueExpr)
		}
	default:
		for _, p := range limits.Children(x) {
			c.unit(p)
		}
	}
	return AnyUnit
}

func (c *checker) expectNumber(x hclsyntax.Expression) Unit {
	u := c.unit(x)
	if u != AnyUnit && !u.Numeric() {
		c.errorf(x, "Not a number", "A number is needed here; this is %s.", u)
		return AnyUnit
	}
	return u
}

// binary checks the operands of an operator against each other.
func (c *checker) binary(x *hclsyntax.BinaryOpExpr) Unit {
	switch x.Op {
	case hclsyntax.OpLogicalAnd, hclsyntax.OpLogicalOr:
		c.expect(x.LHS, Bool)
		c.expect(x.RHS, Bool)
		return Bool
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		l, r := c.unit(x.LHS), c.unit(x.RHS)
		if l.Numeric() && r.Numeric() {
			c.mix(x, l, r)
		} else if l != AnyUnit && r != AnyUnit && l != r && !isNull(x.LHS) && !isNull(x.RHS) {
			c.report(hcl.DiagWarning, x, "Never equal", "This compares %s with %s.", l, r)
		}
		return Bool
	}
	l, r := c.expectNumber(x.LHS), c.expectNumber(x.RHS)
	c.provided(x)
	switch x.Op {
	case hclsyntax.OpMultiply:
		if l == Plain || l == Ratio {
			return r
		}
		if r == Plain || r == Ratio {
			return l
		}
		return AnyUnit
	case limits.Divide, hclsyntax.OpDivide:
		switch {
		case r == Plain || r == Ratio:
			return l
		case l == r && l != AnyUnit:
			return Ratio
		}
		return AnyUnit
	case limits.Modulo, hclsyntax.OpModulo:
		return l
	}
	u := c.mix(x, l, r)
	if x.Op == hclsyntax.OpAdd || x.Op == hclsyntax.OpSubtract {
		return u
	}
	return Bool
}

// provided checks what the configuration provides of an operation: where it is null, or a divisor of zero,
// the result is unknown whatever is measured. A constant operand is evaluated only beside one that is none:
// what is constant as a whole, the operation around it evaluates once.
func (c *checker) provided(x *hclsyntax.BinaryOpExpr) {
	value := c.ConstantValue
	if settled(x) {
		value = literal
	}
	for _, operand := range []hclsyntax.Expression{x.LHS, x.RHS} {
		if v, ok := value(operand); ok && v.IsNull() {
			c.errorf(operand, "No value", "This is null, so the result is unknown, and an unknown never causes an action.")
		}
	}
	switch x.Op {
	case limits.Divide, hclsyntax.OpDivide, limits.Modulo, hclsyntax.OpModulo:
		if v, ok := value(x.RHS); ok && v.RawEquals(cty.Zero) {
			c.errorf(x.RHS, "Division by zero", "Nothing can be divided by zero.")
		}
	}
}

// mix reports units that cannot be combined, and returns the common one.
func (c *checker) mix(x *hclsyntax.BinaryOpExpr, l, r Unit) Unit {
	if l == Plain {
		l, r = r, l
		x = &hclsyntax.BinaryOpExpr{LHS: x.RHS, Op: x.Op, RHS: x.LHS, SrcRange: x.SrcRange}
	}
	switch {
	case l == AnyUnit || r == AnyUnit || l == r:
		return max(l, r)
	case r == Plain:
		c.bare(x, l)
		return l
	}
	c.errorf(x, "Units do not match", "The left side is %s, the right side is %s.", l, r)
	return AnyUnit
}

// bare warns about a plain number that is combined with a measured unit.
func (c *checker) bare(x *hclsyntax.BinaryOpExpr, l Unit) {
	v, ok := literal(x.RHS)
	n := toFloat(v)
	if !ok || n <= 0 {
		return
	}
	name := c.scope.source(x.LHS)
	switch {
	case l == Bytes && n >= 1000:
		c.report(hcl.DiagWarning, x.RHS, "Number without a unit", "%s is in bytes: did you mean bytes(%q)?", name,
			amounts.HumanBytes(n))
	case l == Bytes:
		c.report(hcl.DiagWarning, x.RHS, "Number without a unit", "%s is in bytes: did you mean bytes(\"%gMB\")?", name, n)
	case l == Seconds:
		c.report(hcl.DiagWarning, x.RHS, "Number without a unit", "%s is in seconds: did you mean duration(\"%gs\")?", name,
			n)
	case l == Ratio && n > 1:
		c.report(hcl.DiagWarning, x.RHS, "Ratio above one", "%s is a ratio from 0 to 1: did you mean percent(\"%g%%\")?",
			name, n)
	}
}

// common checks that alternatives have the same unit and returns it.
func (c *checker) common(x hclsyntax.Expression, parts ...hclsyntax.Expression) Unit {
	u := AnyUnit
	for _, p := range parts {
		got := c.unit(p)
		switch {
		case got == AnyUnit || got == u || isNull(p):
		case u == AnyUnit || u == Plain && got.Numeric():
			u = got
		case got == Plain && u.Numeric():
		default:
			c.errorf(x, "Units do not match", "One part is %s, another is %s.", u, got)
			return AnyUnit
		}
	}
	return u
}

func (c *checker) call(x *hclsyntax.FunctionCallExpr) Unit {
	if _, ok := c.scope.functions()[x.Name]; !ok {
		c.errorf(x, "Unknown function", "There is no function %q.%s", x.Name, Suggest(x.Name, keys(c.scope.functions())))
		return AnyUnit
	}
	f, over := overTimes[x.Name]
	switch {
	case over:
		return f.unit(c.overTime(x, len(f.extra)+2))
	case x.Name == "quiet":
		c.overTime(x, len(x.Args))
		return WindowUnit
	case x.Name == "min" || x.Name == "max" || x.Name == "coalesce" || x.Name == "abs" || x.Name == "try":
		return c.common(x, x.Args...)
	}
	for _, a := range x.Args {
		if _, windows := combinations[x.Name]; windows {
			c.expect(a, WindowUnit)
			continue
		}
		u := c.unit(a)
		if x.Name == "human_bytes" && u == Seconds || x.Name == "human_duration" && u == Bytes {
			c.errorf(a, "Units do not match", "%s cannot write %s.", x.Name, u)
		}
	}
	if !c.diags.HasErrors() {
		// Let the function itself judge the arguments that are known now, such as a pattern.
		probe := *x
		probe.Args = slices.Clone(x.Args)
		for i, a := range x.Args {
			if !settled(a) {
				probe.Args[i] = &hclsyntax.LiteralValueExpr{Val: cty.DynamicVal, SrcRange: a.Range()}
			}
		}
		_, diags := probe.Value(&hcl.EvalContext{Variables: c.scope.Variables, Functions: c.scope.functions()})
		c.diags = append(c.diags, diags...)
	}
	return catalogue.UnitOf(x.Name)
}

// settled reports whether an expression reads only what the configuration provides.
func settled(x hclsyntax.Expression) bool {
	return !slices.ContainsFunc(x.Variables(), func(t hcl.Traversal) bool { return !isGiven(t.RootName()) })
}

// isGiven reports whether the configuration provides the values of a root name.
func isGiven(root string) bool { return root == "var" || root == "local" || root == each.Name }

// overTime checks a function over time and records what it reads.
func (c *checker) overTime(x *hclsyntax.FunctionCallExpr, args int) Unit {
	if len(x.Args) < 2 || len(x.Args) != args {
		c.errorf(x, "Wrong number of arguments", "%s needs %d arguments: an expression first, then for example \"5m\".",
			x.Name, max(args, 2))
		return AnyUnit
	}
	if len(c.bound) > 0 || c.over >= 2 {
		c.errorf(x, "Too deeply nested", "A function over time may stand in one other, and not in a for expression.")
	}
	u := c.overTimeOf(x.Args[0])
	for _, a := range x.Args[1:] {
		c.unit(a)
	}
	if len(x.Variables()) == len(x.Args[0].Variables()) {
		probe := *x
		probe.Args = append([]hclsyntax.Expression{&hclsyntax.LiteralValueExpr{Val: cty.Zero, SrcRange: x.Args[0].Range()}},
			x.Args[1:]...)
		_, diags := probe.Value(&hcl.EvalContext{Functions: c.scope.functions()})
		c.diags = append(c.diags, diags...)
	}
	if u == Bool {
		return Ratio
	}
	return u
}

// overTimeOf checks an expression whose past values are read, and makes the history keep them.
func (c *checker) overTimeOf(x hclsyntax.Expression) Unit {
	c.over++
	u := c.unit(x)
	c.over--
	past := true
	for _, t := range x.Variables() {
		switch i := variableIndex(t); {
		case i >= 0:
			c.series[i] = true
		case t.RootName() == "window" || t.RootName() == "tune" || t.RootName() == "replica":
			c.errorf(x, "No past values", "The past of %s is not kept; functions over time read measured names such as "+
				"wal.bytes or replica.lag.", t.RootName())
			past = false
		}
	}
	if u == Text || u == WindowUnit {
		c.errorf(x, "Not a number", "A function over time needs a number; this is %s.", u)
		return AnyUnit
	}
	if past {
		c.keep(x)
	}
	return u
}

// literal returns the value of a constant.
func literal(x hclsyntax.Expression) (cty.Value, bool) {
	switch x := x.(type) {
	case *hclsyntax.LiteralValueExpr:
		return x.Val, true
	case *hclsyntax.UnaryOpExpr:
		if v, ok := literal(x.Val); ok && v.Type() == cty.Number && x.Op == hclsyntax.OpNegate {
			return v.Negate(), true
		}
	}
	return cty.NilVal, false
}

func isNull(x hclsyntax.Expression) bool {
	v, ok := literal(x)
	return ok && v.IsNull()
}

func unitOfType(t cty.Type, numeric Unit) Unit {
	switch {
	case t == cty.Number:
		return numeric
	case t == cty.String:
		return Text
	case t == cty.Bool:
		return Bool
	case t.Equals(windowType):
		return WindowUnit
	}
	return AnyUnit
}

// Suggest returns " Did you mean …?" with the most similar of the names, or nothing.
func Suggest(got string, names []string) string {
	best, distance := "", max(2, len(got)/3)+1
	slices.Sort(names)
	for _, n := range names {
		if d := levenshtein.Distance(got, n, nil); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		if len(names) > 0 && len(names) <= 12 {
			return " There is: " + strings.Join(names, ", ") + "."
		}
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
