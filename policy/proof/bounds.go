package proof

import (
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
)

// interval is the range of values that a name may have.
type interval struct {
	lo, hi         float64
	loOpen, hiOpen bool // the end is not included
}

func (i interval) empty() bool { return i.lo > i.hi || i.lo == i.hi && (i.loOpen || i.hiOpen) }

// bounds is what conditions that hold together leave for each name.
type bounds struct {
	program *lang.Program
	numbers map[string]interval
	texts   map[string][]string // values that a text may have; a text that is not in the map may have any
	idle    bool                // none of the databases has a replica
}

// boundsOf returns the possible values of each name before any condition.
func boundsOf(program *lang.Program, p Policy) bounds {
	b := bounds{program: program, numbers: map[string]interval{}, texts: map[string][]string{}}
	if p.Databases == nil {
		return b
	}
	labels := map[string]map[string]bool{}
	names, all := []string{}, true
	b.idle = true
	for _, d := range p.Databases {
		names, all = append(names, d.Name), all && !d.Many
		b.idle = b.idle && len(d.Replicas) == 0
		for key, value := range d.Labels {
			if labels[key] == nil {
				labels[key] = map[string]bool{}
			}
			labels[key][value] = true
		}
	}
	if all {
		b.texts["db.name"] = names
	}
	for key, values := range labels {
		for value := range values {
			b.texts["db.labels."+key] = append(b.texts["db.labels."+key], value)
		}
	}
	return b
}

func (b bounds) clone() bounds {
	out := bounds{program: b.program, numbers: map[string]interval{}, texts: map[string][]string{}, idle: b.idle}
	for name, i := range b.numbers {
		out.numbers[name] = i
	}
	for name, texts := range b.texts {
		out.texts[name] = texts
	}
	return out
}

// of returns the values that are left for a name.
func (b bounds) of(name string) interval {
	if i, known := b.numbers[name]; known {
		return i
	}
	switch {
	case b.idle && (name == "replica.lag" || name == "replica.pending_bytes"):
		return interval{}
	case b.idle && name == "replica.healthy":
		return interval{lo: 1, hi: 1}
	case strings.HasSuffix(name, "_ratio") || isTruth(name):
		return interval{lo: 0, hi: 1}
	case slices.ContainsFunc(signed, func(function string) bool { return strings.Contains(name, function) }):
		return interval{lo: math.Inf(-1), hi: math.Inf(1)}
	}
	return interval{lo: 0, hi: math.Inf(1)}
}

// signed are the functions whose values may be negative, and so may the mean of them.
var signed = []string{"delta(", "predict(", "rate(", "increase("}

// isTruth reports whether a name's value is a truth.
func isTruth(name string) bool {
	if strings.HasPrefix(name, "window.") {
		return strings.HasSuffix(name, ".open")
	}
	return slices.ContainsFunc(measured.Names, func(n measured.Name) bool {
		return n.Unit == lang.Bool && n.String() == name
	})
}

// take adds a condition that holds, or does not hold. It reports whether no value is left, and why.
func (b bounds) take(x hclsyntax.Expression, holds bool) (never bool, why string) {
	if t, constant := b.program.Constant(x); constant {
		return t == lang.Unknown || (t == lang.True) != holds, ""
	}
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return b.take(x.Expression, holds)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == hclsyntax.OpLogicalNot {
			return b.take(x.Val, !holds)
		}
	case *hclsyntax.ScopeTraversalExpr:
		if name := nameOf(x); isTruth(name) {
			c := 0.0
			if holds {
				c = 1
			}
			return b.bound(name, c, hclsyntax.OpEqual)
		}
	case *hclsyntax.BinaryOpExpr:
		and := x.Op == hclsyntax.OpLogicalAnd
		if and || x.Op == hclsyntax.OpLogicalOr {
			if and == holds { // both must
				if never, why := b.take(x.LHS, holds); never {
					return true, why
				}
				return b.take(x.RHS, holds)
			}
			l, lWhy := b.clone().take(x.LHS, holds)
			r, _ := b.clone().take(x.RHS, holds)
			return l && r, lWhy
		}
		if never, why := b.equal(x, holds); never {
			return never, why
		}
		return b.compare(x, holds)
	}
	return false, ""
}

// equal adds a comparison of a text with a constant.
func (b bounds) equal(x *hclsyntax.BinaryOpExpr, holds bool) (never bool, why string) {
	if x.Op != hclsyntax.OpEqual && x.Op != hclsyntax.OpNotEqual {
		return false, ""
	}
	l, r := x.LHS, x.RHS
	if _, is := l.(*hclsyntax.ScopeTraversalExpr); !is {
		l, r = r, l
	}
	t, is := l.(*hclsyntax.ScopeTraversalExpr)
	if !is {
		return false, ""
	}
	name := nameOf(t)
	v, constant := b.program.ConstantValue(r)
	may, known := b.texts[name]
	if !constant || v.IsNull() || v.Type() != cty.String || name == "" {
		return false, ""
	}
	text := v.AsString()
	if holds == (x.Op == hclsyntax.OpNotEqual) { // it has another value
		if !known {
			return false, ""
		}
		b.texts[name] = slices.DeleteFunc(slices.Clone(may), func(s string) bool { return s == text })
		return name == "db.name" && len(b.texts[name]) == 0, "" // a label may also be absent
	}
	if known && !slices.Contains(may, text) {
		return true, ": " + name + " is never like that." + strings.TrimSuffix(lang.Suggest(text, slices.Clone(may)), ".")
	}
	b.texts[name] = []string{text}
	return false, ""
}

// compare adds a comparison of a measured name with a constant.
func (b bounds) compare(x *hclsyntax.BinaryOpExpr, holds bool) (never bool, why string) {
	name, c, op := b.sides(x)
	if name == "" {
		return false, ""
	}
	if !holds {
		op = opposite[op]
	}
	return b.bound(name, c, op)
}

// bound limits a name to one side of a constant.
func (b bounds) bound(name string, c float64, op *hclsyntax.Operation) (never bool, why string) {
	i := b.of(name)
	switch op {
	case hclsyntax.OpGreaterThan:
		if c >= i.lo {
			i.lo, i.loOpen = c, true
		}
	case hclsyntax.OpGreaterThanOrEqual:
		if c > i.lo {
			i.lo, i.loOpen = c, false
		}
	case hclsyntax.OpLessThan:
		if c <= i.hi {
			i.hi, i.hiOpen = c, true
		}
	case hclsyntax.OpLessThanOrEqual:
		if c < i.hi {
			i.hi, i.hiOpen = c, false
		}
	case hclsyntax.OpEqual:
		switch {
		case c < i.lo || c > i.hi || c == i.lo && i.loOpen || c == i.hi && i.hiOpen:
			i = interval{lo: 1, hi: 0}
		default:
			i = interval{lo: c, hi: c}
		}
	default:
		return false, ""
	}
	b.numbers[name] = i
	switch {
	case !i.empty():
		return false, ""
	case strings.Contains(name, "("):
		return true, "" // its place shows which
	case b.idle && strings.HasPrefix(name, "replica."):
		return true, ": no database that it is for has a replica"
	}
	return true, ": no " + name + " is like that"
}

// sides returns a comparison's measured name, its constant, and the operation with the name on the
// left; "" for any other expression.
func (b bounds) sides(x *hclsyntax.BinaryOpExpr) (name string, c float64, op *hclsyntax.Operation) {
	l, r, op := x.LHS, x.RHS, x.Op
	name = b.named(l)
	if name == "" {
		l, r, op = r, l, mirrored[op]
		name = b.named(l)
	}
	if name == "" || op == nil {
		return "", 0, nil
	}
	c, ok := b.program.Number(r)
	if !ok {
		return "", 0, nil
	}
	return name, c, op
}

// named returns the measured thing that an expression is, as written: a name, or a
// function over time of names.
func (b bounds) named(x hclsyntax.Expression) string {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return b.named(x.Expression)
	case *hclsyntax.ScopeTraversalExpr:
		if n := nameOf(x); !strings.HasPrefix(n, "db.labels.") {
			return n
		}
	case *hclsyntax.FunctionCallExpr:
		if len(x.Args) < 2 || !lang.OverTime(x.Name) {
			return ""
		}
		if inner := b.named(x.Args[0]); inner != "" {
			return x.Name + "(" + inner + " as " + b.program.Identity(x) + ")"
		}
	}
	return ""
}

// single reports whether a condition is one comparison.
func single(x hclsyntax.Expression) bool {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return single(x.Expression)
	case *hclsyntax.BinaryOpExpr:
		return x.Op != hclsyntax.OpLogicalAnd && x.Op != hclsyntax.OpLogicalOr
	case *hclsyntax.ScopeTraversalExpr, *hclsyntax.UnaryOpExpr:
		return true
	}
	return false
}

// reads reports whether a condition reads a name.
func reads(x hclsyntax.Expression, group, name string) bool {
	return slices.ContainsFunc(x.Variables(), func(t hcl.Traversal) bool {
		return nameOf(&hclsyntax.ScopeTraversalExpr{Traversal: t}) == group+"."+name
	})
}

// nameOf returns the name that an expression consists of: a measured one, as wal.bytes, a label's, or a
// window's open state; "" for any other expression.
func nameOf(x *hclsyntax.ScopeTraversalExpr) string {
	names := []string{x.Traversal.RootName()}
	for _, step := range x.Traversal[1:] {
		attr, is := step.(hcl.TraverseAttr)
		if !is {
			return ""
		}
		names = append(names, attr.Name)
	}
	name := strings.Join(names, ".")
	switch {
	case len(names) == 3 && (names[0] == "window" || names[0] == "db" && names[1] == "labels"):
		return name
	case len(names) != 2:
		return ""
	case slices.ContainsFunc(measured.Names, func(n measured.Name) bool { return n.String() == name }),
		slices.ContainsFunc(measured.Texts, func(n measured.TextName) bool { return n.Group+"."+n.Name == name }):
		return name
	}
	return ""
}

var mirrored = map[*hclsyntax.Operation]*hclsyntax.Operation{
	hclsyntax.OpGreaterThan: hclsyntax.OpLessThan, hclsyntax.OpLessThan: hclsyntax.OpGreaterThan,
	hclsyntax.OpGreaterThanOrEqual: hclsyntax.OpLessThanOrEqual,
	hclsyntax.OpLessThanOrEqual:    hclsyntax.OpGreaterThanOrEqual,
	hclsyntax.OpEqual:              hclsyntax.OpEqual,
}

var opposite = map[*hclsyntax.Operation]*hclsyntax.Operation{
	hclsyntax.OpGreaterThan: hclsyntax.OpLessThanOrEqual, hclsyntax.OpLessThan: hclsyntax.OpGreaterThanOrEqual,
	hclsyntax.OpGreaterThanOrEqual: hclsyntax.OpLessThan, hclsyntax.OpLessThanOrEqual: hclsyntax.OpGreaterThan,
	hclsyntax.OpNotEqual: hclsyntax.OpEqual,
}
