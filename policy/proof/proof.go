// Package proof finds what can be proven about a policy before it runs: that it never acts, acts all
// the time, or never reaches its goal.
package proof

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/selection"
)

// Policy is what the proofs need of a policy.
type Policy struct {
	Name                          string
	Kind                          string               // its action
	When, Until, Unless, WindowOf hclsyntax.Expression // nil: there is none
	Message                       hclsyntax.Expression
	Checkpoint, Truncate          bool // its action is a checkpoint; its ladder truncates
	For, MaxDefer, Cooldown       time.Duration
	Priority                      int
	DryRun                        bool
	Tunes                         []Tune
	Window                        Window
	Selection                     *selection.Selection
	Databases                     []lang.Database // those it may apply to; nil: they are not known
	Given                         func(attribute string) bool
	Floor                         float64 // bytes of the WAL below which nothing is truncated
}

// Tune is what the proofs need of a tune block.
type Tune struct {
	Name            string
	Goal            hclsyntax.Expression
	Start, Min, Max float64
	Budget          bool // it is the ladder's stall budget
	Place           hcl.Range
}

// Window is what is known of the policy's window.
type Window struct {
	Open     func(time.Time) lang.Truth
	Openings []time.Time // of its schedules, for at most a year; empty: it learns, or there is none
}

// Finding is one thing that was proven.
type Finding struct {
	Attribute       string     // of the policy, or one of its blocks; "": the policy itself
	Place           *hcl.Range // if it is not an attribute's
	Error           bool
	Summary, Detail string
}

// WALLimit returns the size of a WAL file, in bytes, below which a policy that shrinks it never begins;
// 0: it does not shrink it, or no size can be proven.
func WALLimit(program *lang.Program, p Policy) float64 {
	if !p.Truncate || p.DryRun || p.When == nil {
		return 0
	}
	b := boundsOf(program, p)
	if never, _ := b.take(p.When, true); never {
		return 0
	}
	return b.of("wal.bytes").lo
}

// report adds a finding about an attribute of the policy.
type report func(attribute string, isError bool, summary, format string, args ...any)

// Of returns what can be proven about a policy.
func Of(program *lang.Program, p Policy) (found []Finding) {
	report := func(attribute string, isError bool, summary, format string, args ...any) {
		found = append(found, Finding{Attribute: attribute, Error: isError, Summary: summary,
			Detail: fmt.Sprintf(format, args...)})
	}
	conditions(program, p, report)
	contradictions(program, p, report)
	window(p, report)
	reach(program, p, report)
	useless(p, report)
	return append(found, tunes(program, p)...)
}

// conditions examines each condition on its own.
func conditions(program *lang.Program, p Policy, report report) {
	for _, c := range []struct {
		name string
		x    hclsyntax.Expression
	}{{"when", p.When}, {"until", p.Until}, {"unless", p.Unless}} {
		v, constant := program.Constant(c.x)
		why, never, always := "", false, false
		if !constant && c.x != nil {
			never, why = boundsOf(program, p).take(c.x, true)
			always, _ = boundsOf(program, p).take(c.x, false)
		}
		switch {
		case c.x == nil || !constant && !never && !always:
		case constant && v == lang.Unknown:
			report(c.name, true, "Never known", "%s has no value, and an unknown never causes an action.", c.name)
		case c.name == "when" && (never || v == lang.False):
			report("when", true, "Never true", "Policy %q would never act: when is always false%s.", p.Name, why)
		case c.name == "when" && always && !never:
			report("when", false, "Always true", "Policy %q acts whenever its cooldown is over: when always holds. Write "+
				"when = true if that is meant.", p.Name)
		case c.name == "unless" && (always || constant && v == lang.True):
			report("unless", true, "Always true", "Policy %q would never act: unless is always true.", p.Name)
		case c.name == "unless" && (never || v == lang.False):
			report("unless", false, "Never true", "unless has no effect: it is always false%s.", why)
		case c.name == "until" && (never || v == lang.False):
			report("until", false, "Never true", "Policy %q would act again and again: until is always false%s.", p.Name, why)
		case c.name == "until":
			report("until", false, "Always true", "until has no effect: it always holds, and one run is enough without it.")
		}
	}
}

// contradictions examines the conditions together.
func contradictions(program *lang.Program, p Policy, report report) {
	if p.When == nil {
		return
	}
	when := boundsOf(program, p)
	if never, _ := when.take(p.When, true); never {
		return
	}
	if p.Unless != nil {
		if never, _ := when.clone().take(p.Unless, false); never && single(p.Unless) {
			report("unless", true, "Contradiction", "Policy %q would never act: unless holds whenever when does.", p.Name)
		}
	}
	if p.Until != nil && single(p.Until) {
		if never, _ := when.clone().take(p.Until, false); never {
			report("until", false, "Reached before", "until holds whenever when does: it ends what has not begun.")
		}
	}
	if p.Checkpoint && !p.Truncate && p.Until != nil && reads(p.Until, "wal", "bytes") {
		report("until", false, "Not reached", "PASSIVE does not make the WAL's file smaller; wal.used_bytes is what it "+
			"brings down, or add step \"truncate\" {}.")
	}
	if most := when.of("wal.bytes").hi; p.Truncate && most <= p.Floor {
		report("when", true, "Below the floor", "Policy %q would never act: a WAL under %s is not worth a TRUNCATE, which "+
			"costs writers more than it frees.", p.Name, amounts.HumanBytes(p.Floor))
	}
}

// window examines when the policy may act.
func window(p Policy, report report) {
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
