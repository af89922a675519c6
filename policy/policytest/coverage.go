package policytest

import (
	"fmt"
	"slices"

	"github.com/sqlwatch/sqlwatch/policy"
)

// Coverage is what tests have seen of the policies: how often each acted, which guards
// refused, and which of its conditions were true and false.
type Coverage struct {
	Policies []PolicyCoverage `json:"policies"`

	parts []policy.Part
	place []*ConditionCoverage // of parts, in their order
}

// PolicyCoverage is what was seen of one policy.
type PolicyCoverage struct {
	Policy     string              `json:"policy"`
	Acted      int                 `json:"acted"`
	Refused    []string            `json:"refused"` // guards that refused it
	Missing    []string            `json:"missing"` // guards that could refuse it, and never did
	Conditions []ConditionCoverage `json:"conditions"`
}

// ConditionCoverage is what was seen of one condition.
type ConditionCoverage struct {
	Of    string `json:"of"` // when, until or unless
	Expr  string `json:"expr"`
	Place Place  `json:"place"`
	True  bool   `json:"true"`
	False bool   `json:"false"`
}

// unseen are guards that no test can make refuse.
var unseen = []policy.Guard{policy.GuardPause}

// NewCoverage returns a coverage of a set that has seen nothing yet.
func NewCoverage(set *policy.Set) *Coverage {
	c := &Coverage{parts: set.Parts()}
	for _, p := range set.Policies {
		pc := PolicyCoverage{Policy: p.Name, Refused: []string{}, Missing: []string{}, Conditions: []ConditionCoverage{}}
		for _, g := range policy.Guards() {
			if p.MayRefuse(g) && !slices.Contains(unseen, g) {
				pc.Missing = append(pc.Missing, string(g))
			}
		}
		for _, part := range c.parts {
			if part.Policy == p.Name {
				pc.Conditions = append(pc.Conditions, ConditionCoverage{Of: part.Of, Expr: part.Expr, Place: placeOf(part.Range)})
			}
		}
		c.Policies = append(c.Policies, pc)
	}
	for i := range c.Policies {
		for k := range c.Policies[i].Conditions {
			c.place = append(c.place, &c.Policies[i].Conditions[k])
		}
	}
	return c
}

// note adds one decision.
func (c *Coverage) note(set *policy.Set, in policy.Input, d *policy.Decision) {
	if c == nil {
		return
	}
	for i, truth := range set.TruthsOf(c.parts, in, d.Tunes) {
		c.place[i].True = c.place[i].True || truth == policy.True
		c.place[i].False = c.place[i].False || truth == policy.False
	}
	for _, pd := range d.Policies {
		i := slices.IndexFunc(c.Policies, func(p PolicyCoverage) bool { return p.Policy == pd.Policy })
		for _, g := range pd.Guards {
			c.Policies[i].saw(string(g.Guard))
		}
		if slices.ContainsFunc(d.Actions, func(a *policy.Action) bool { return a.Policy == pd.Policy }) {
			c.Policies[i].Acted++
		}
		if pd.Hindered != "" && pd.Refused == policy.GuardNone {
			c.Policies[i].saw(string(policy.GuardStall)) // the TRUNCATE is left out
		}
	}
}

func (p *PolicyCoverage) saw(guard string) {
	if i := slices.Index(p.Missing, guard); i >= 0 {
		p.Missing = slices.Delete(p.Missing, i, i+1)
	}
	if !slices.Contains(p.Refused, guard) {
		p.Refused = append(p.Refused, guard)
	}
}

// Gaps returns what no test has seen, each in one sentence.
func (c *Coverage) Gaps() (gaps []string) {
	for _, p := range c.Policies {
		if p.Acted == 0 {
			gaps = append(gaps, fmt.Sprintf("policy %s never acted", p.Policy))
		}
		for _, g := range p.Missing {
			gaps = append(gaps, fmt.Sprintf("policy %s was never refused by %s", p.Policy, g))
		}
		for _, x := range p.Conditions {
			for _, seen := range []struct {
				name string
				ok   bool
			}{{"true", x.True}, {"false", x.False}} {
				if !seen.ok {
					gaps = append(gaps, fmt.Sprintf("%s:%d:%d: policy %s, %s: `%s` was never %s", x.Place.File, x.Place.Line,
						x.Place.Column, p.Policy, x.Of, x.Expr, seen.name))
				}
			}
		}
	}
	return gaps
}
