package policy

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Part is one operand of a policy's condition: in `a && (b || !c)` the parts are a, b and c.
type Part struct {
	Policy string
	Of     string // when, until or unless
	Expr   string // as written
	Range  hcl.Range

	x hclsyntax.Expression
	p *Policy
}

// Parts returns the conditions that the policies are made of, in file order.
func (s *Set) Parts() (parts []Part) {
	for _, p := range s.Policies {
		for _, of := range []struct {
			name string
			x    hclsyntax.Expression
		}{{"when", p.when}, {"until", p.until}, {"unless", p.unless}} {
			for _, x := range conditions(of.x) {
				parts = append(parts, Part{Policy: p.Name, Of: of.name, Expr: s.program.Source(x), Range: x.Range(), x: x, p: p})
			}
		}
	}
	return parts
}

// conditions splits a condition at && and ||.
func conditions(x hclsyntax.Expression) []hclsyntax.Expression {
	switch x := x.(type) {
	case nil:
		return nil
	case *hclsyntax.ParenthesesExpr:
		return conditions(x.Expression)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == hclsyntax.OpLogicalNot {
			return conditions(x.Val)
		}
	case *hclsyntax.BinaryOpExpr:
		if x.Op == hclsyntax.OpLogicalAnd || x.Op == hclsyntax.OpLogicalOr {
			return append(conditions(x.LHS), conditions(x.RHS)...)
		}
	}
	return []hclsyntax.Expression{x}
}

// TruthsOf returns the truth values of the parts; Unknown if the policy does not apply to the database.
func (s *Set) TruthsOf(parts []Part, in Input, tunes []TuneDecision) []Truth {
	e := s.newEvaluation(in)
	defer s.release(e)
	truths := make([]Truth, len(parts))
	for i, part := range parts {
		if !part.p.AppliesTo(in.Sample.DB, in.Labels) {
			continue
		}
		values := e.values
		if len(part.p.Tunes) > 0 {
			set := map[string]float64{}
			for _, t := range tunes {
				if t.Policy == part.Policy {
					set[t.Name] = t.Value
				}
			}
			values = values.WithTunes(set)
		}
		truths[i], _ = values.Truth(part.x)
	}
	return truths
}

// MayRefuse reports whether a guard can ever refuse the policy.
func (p *Policy) MayRefuse(g Guard) bool {
	switch g {
	case GuardMode:
		return p.DryRun
	case GuardUnless:
		return p.unless != nil
	case GuardWindow:
		return p.window != nil
	case GuardHoldOff:
		return p.HoldOff > 0
	case GuardPause:
		return p.Kind != ActNotify
	case GuardReader, GuardStall:
		return p.Ladder != nil && p.Ladder.Truncates()
	case GuardTurn:
		return p.Kind.Lane() != LaneNone
	}
	return true
}
