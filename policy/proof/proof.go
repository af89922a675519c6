// Package proof finds what can be proven of a policy before it runs: that it never
// acts, acts all the time, or never reaches what it is for.
package proof

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
)

// Policy is what of a policy is looked at.
type Policy struct {
	Name                 string
	When, Until, Unless  hclsyntax.Expression // nil: there is none
	Checkpoint, Truncate bool                 // it makes checkpoints, which truncate
	MaxDefer             time.Duration
	Window               Window
}

// Window is what is known of the policy's window.
type Window struct {
	Open     func(time.Time) lang.Truth
	Openings []time.Time // of the schedules in it, for a year at most; empty: it learns, or there is none
}

// Finding is one thing that was proven.
type Finding struct {
	Attribute       string // of the policy
	Error           bool
	Summary, Detail string
}

// Of returns what can be proven of a policy.
func Of(program *lang.Program, p Policy) (found []Finding) {
	report := func(attribute string, isError bool, summary, format string, args ...any) {
		found = append(found, Finding{attribute, isError, summary, fmt.Sprintf(format, args...)})
	}
	for _, c := range []struct {
		name string
		x    hclsyntax.Expression
	}{{"when", p.When}, {"until", p.Until}, {"unless", p.Unless}} {
		v, constant := program.Constant(c.x)
		why, never := "", false
		if !constant && c.x != nil {
			b := bounds{}
			never, why = b.take(program, c.x, true)
		}
		switch {
		case c.x == nil || !constant && !never:
		case constant && v == lang.Unknown:
			report(c.name, true, "Never known", "%s has no value, and an unknown never causes an action.", c.name)
		case c.name == "when" && (never || v == lang.False):
			report("when", true, "Never true", "Policy %q would never act: when is always false%s.", p.Name, why)
		case c.name == "unless" && constant && v == lang.True:
			report("unless", true, "Always true", "Policy %q would never act: unless is always true.", p.Name)
		case c.name == "until" && (never || v == lang.False):
			report("until", false, "Never true", "Policy %q would act again and again: until is always false%s.", p.Name, why)
		}
	}
	contradictions(program, p, report)
	window(p, report)
	return found
}

// contradictions looks at the conditions together.
func contradictions(program *lang.Program, p Policy, report func(string, bool, string, string, ...any)) {
	if p.When == nil {
		return
	}
	when := bounds{}
	if never, _ := when.take(program, p.When, true); never {
		return
	}
	if p.Unless != nil {
		if b := when.clone(); single(p.Unless) {
			if never, _ := b.take(program, p.Unless, false); never {
				report("unless", true, "Contradiction", "Policy %q would never act: unless holds whenever when does.", p.Name)
			}
		}
	}
	if p.Until != nil && single(p.Until) {
		b := when.clone()
		if never, _ := b.take(program, p.Until, false); never {
			report("until", false, "Reached before", "until holds whenever when does: it ends what has not begun.")
		}
	}
	if p.Checkpoint && !p.Truncate {
		for name, x := range map[string]hclsyntax.Expression{"when": p.When, "until": p.Until} {
			if x != nil && reads(x, "wal", "bytes") && name == "until" {
				report(name, false, "Not reached", "PASSIVE does not make the WAL's file smaller; wal.used_bytes is what it "+
					"brings "+
					"down, or add step \"truncate\" {}.")
			}
		}
	}
}

// window looks at when the policy may act.
func window(p Policy, report func(string, bool, string, string, ...any)) {
	if p.Window.Open == nil || len(p.Window.Openings) == 0 {
		return
	}
	var last time.Time
	longest := time.Duration(0)
	for _, at := range p.Window.Openings {
		if p.Window.Open(at) != lang.True && p.Window.Open(at.Add(time.Second)) != lang.True {
			continue
		}
		if !last.IsZero() {
			longest = max(longest, at.Sub(last))
		}
		last = at
	}
	switch {
	case last.IsZero() && p.MaxDefer == 0:
		report("window", true, "Never open", "Policy %q would never act: within a year its window is not open once.", p.Name)
	case last.IsZero():
		report("window", false, "Never open", "Within a year the window is not open once: only max_defer lets it act.")
	case p.MaxDefer > 0 && p.MaxDefer < longest/2:
		report("max_defer", false, "Shorter than the wait",
			"Up to %s lie between two openings of the window: after %s it acts "+
				"outside, which is most of the time.", amounts.HumanSeconds(longest.Seconds()),
			amounts.HumanSeconds(p.MaxDefer.Seconds()))
	}
}

// single reports whether a condition is one comparison.
func single(x hclsyntax.Expression) bool {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return single(x.Expression)
	case *hclsyntax.BinaryOpExpr:
		return x.Op != hclsyntax.OpLogicalAnd && x.Op != hclsyntax.OpLogicalOr
	}
	return false
}

// reads reports whether a condition compares a name itself.
func reads(x hclsyntax.Expression, group, name string) bool {
	for _, t := range x.Variables() {
		if n := nameOf(t.RootName(), &hclsyntax.ScopeTraversalExpr{Traversal: t}); n == group+"."+name {
			return true
		}
	}
	return false
}

// nameOf returns the measured name that an expression is, "" if it is more.
func nameOf(root string, x *hclsyntax.ScopeTraversalExpr) string {
	names, ok := traversalNames(x)
	if !ok || len(names) != 2 {
		return ""
	}
	for i := range measured.Names {
		if n := &measured.Names[i]; n.Group == root && n.Name == names[1] {
			return n.String()
		}
	}
	return ""
}

func traversalNames(x *hclsyntax.ScopeTraversalExpr) (names []string, ok bool) {
	text := []string{x.Traversal.RootName()}
	for _, step := range x.Traversal[1:] {
		attr, is := step.(hcl.TraverseAttr)
		if !is {
			return nil, false
		}
		text = append(text, attr.Name)
	}
	return text, true
}

// interval is which values a name may have.
type interval struct {
	lo, hi         float64
	loOpen, hiOpen bool // the end is not within
}

func (i interval) empty() bool { return i.lo > i.hi || i.lo == i.hi && (i.loOpen || i.hiOpen) }

// bounds is what conditions that hold together leave to each name.
type bounds map[string]interval

func (b bounds) clone() bounds {
	out := bounds{}
	for name, i := range b {
		out[name] = i
	}
	return out
}

// usual is which values a name can have at all.
func usual(name string) interval {
	if strings.HasSuffix(name, "_ratio") {
		return interval{lo: 0, hi: 1}
	}
	return interval{lo: 0, hi: math.Inf(1)}
}

// take adds a condition that holds, or does not. It reports whether nothing is left,
// and why.
func (b bounds) take(program *lang.Program, x hclsyntax.Expression, holds bool) (never bool, why string) {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return b.take(program, x.Expression, holds)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == hclsyntax.OpLogicalNot {
			return b.take(program, x.Val, !holds)
		}
	case *hclsyntax.BinaryOpExpr:
		and := x.Op == hclsyntax.OpLogicalAnd
		if and || x.Op == hclsyntax.OpLogicalOr {
			if and == holds { // both must
				if never, why := b.take(program, x.LHS, holds); never {
					return true, why
				}
				return b.take(program, x.RHS, holds)
			}
			l, lWhy := b.clone().take(program, x.LHS, holds)
			r, _ := b.clone().take(program, x.RHS, holds)
			return l && r, lWhy
		}
		return b.compare(program, x, holds)
	}
	return false, ""
}

// compare takes a comparison of a measured name with a constant.
func (b bounds) compare(program *lang.Program, x *hclsyntax.BinaryOpExpr, holds bool) (never bool, why string) {
	name, c, op := sides(program, x)
	if name == "" {
		return false, ""
	}
	if !holds {
		op = opposite[op]
	}
	i, known := b[name]
	if !known {
		i = usual(name)
	}
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
		if c < i.lo || c > i.hi {
			i.lo, i.hi = 1, 0
		}
	default:
		return false, ""
	}
	b[name] = i
	if i.empty() {
		return true, ": no " + name + " is like that"
	}
	return false, ""
}

// sides returns a comparison's measured name, the constant beside it, and the operation
// with the name on the left; "" for any other expression.
func sides(program *lang.Program, x *hclsyntax.BinaryOpExpr) (name string, c float64, op *hclsyntax.Operation) {
	l, r, op := x.LHS, x.RHS, x.Op
	if _, ok := l.(*hclsyntax.ScopeTraversalExpr); !ok {
		l, r, op = r, l, mirrored[op]
	}
	t, ok := l.(*hclsyntax.ScopeTraversalExpr)
	if !ok || op == nil {
		return "", 0, nil
	}
	if c, ok = program.Number(r); !ok {
		return "", 0, nil
	}
	return nameOf(t.Traversal.RootName(), t), c, op
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
}
