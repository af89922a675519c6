package proof

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// reach examines what the policy needs from the databases that it applies to.
func reach(program *lang.Program, p Policy, report report) {
	if len(p.Databases) == 0 {
		return
	}
	replicated := func(name string) bool {
		return slices.ContainsFunc(p.Databases, func(d lang.Database) bool {
			return len(d.Replicas) > 0 && (name == "" || slices.Contains(d.Replicas, name))
		})
	}
	if slices.Contains([]string{"snapshot", "sync", "verify"}, p.Kind) && !replicated("") {
		report(p.Kind, true, "No replica", "Policy %q would never act: none of the databases that it is for has a replica. "+
			"Give one replicate_to.", p.Name)
	}
	if p.When == nil {
		return
	}
	for _, t := range p.When.Variables() {
		if name := oneReplica(t); name != "" && !replicated(name) {
			report("when", true, "Not replicated there", "None of the databases that policy %q is for is replicated to "+
				"replica.%s: what it reads of it is never known.", p.Name, name)
			return
		}
	}
}

// oneReplica returns the replica of a name: s3.main for replica["s3.main"].lag.
func oneReplica(t hcl.Traversal) string {
	if t.RootName() != "replica" || len(t) < 2 {
		return ""
	}
	if index, is := t[1].(hcl.TraverseIndex); is && index.Key.Type() == cty.String && index.Key.IsKnown() &&
		!index.Key.IsNull() {
		return index.Key.AsString()
	}
	return ""
}

// useless finds settings without effect.
func useless(p Policy, report report) {
	warn := func(attribute string, idle bool, why string) {
		if idle && p.Given(attribute) {
			report(attribute, false, "No effect", "%s", why)
		}
	}
	warn("priority", p.Kind == "notify", "Notices wait for nobody, and nobody for them.")
	warn("message", !p.Given("notify"), "Nobody is told: message goes with notify.")
	warn("stall_budget", p.Checkpoint && !p.Truncate, "A PASSIVE checkpoint holds nobody up: stall_budget is for step "+
		"\"truncate\".")
	warn("max_defer", p.WindowOf == nil, "max_defer has no effect without a window.")
}

// tunes examines the tune blocks.
func tunes(program *lang.Program, p Policy) (found []Finding) {
	for _, t := range p.Tunes {
		place := t.Place
		report := func(isError bool, summary, format string, args ...any) {
			found = append(found, Finding{Place: &place, Error: isError, Summary: summary, Detail: fmt.Sprintf(format, args...)})
		}
		if !t.Budget && !slices.ContainsFunc([]hclsyntax.Expression{p.When, p.Until, p.Unless, p.WindowOf, p.Message},
			func(x hclsyntax.Expression) bool { return x != nil && readsTune(x, t.Name) }) {
			report(true, "Never read", "Nothing in policy %q reads tune.%s: write it where the number is to stand, as in "+
				"when = wal.bytes > tune.%s.", p.Name, t.Name, t.Name)
		}
		if t.Budget && !p.Truncate {
			report(true, "No effect", "A PASSIVE checkpoint holds nobody up: there is no stall budget to tune.")
		}
		if t.Min == t.Max {
			report(true, "Nothing to tune", "min and max are the same: tune.%s could not move.", t.Name)
		}
		if truth, constant := program.Constant(t.Goal); t.Goal != nil && constant {
			report(true, "Nothing to learn", "The goal of tune %q is always %s: runs teach nothing.", t.Name,
				strings.ReplaceAll(truth.String(), "unknown", "without a value"))
		}
	}
	return found
}

func readsTune(x hclsyntax.Expression, name string) bool {
	return slices.ContainsFunc(x.Variables(), func(t hcl.Traversal) bool {
		if t.RootName() != "tune" || len(t) < 2 {
			return false
		}
		attr, is := t[1].(hcl.TraverseAttr)
		return is && attr.Name == name
	})
}

// Shadowed returns, of two policies that contend, the one that never gets its turn, as
// far as that can be proven, and why: whenever it would act, the other acts first. The
// policies are in file order.
func Shadowed(program *lang.Program, all []Policy) (found map[int]Finding) {
	found = map[int]Finding{}
	for i := range all {
		for k := range all {
			first, second := &all[k], &all[i]
			ahead := first.Priority > second.Priority || first.Priority == second.Priority && k < i
			if _, told := found[i]; i == k || !ahead || told || !covers(first, second) {
				continue
			}
			b := boundsOf(program, *second)
			if never, _ := b.take(second.When, true); never {
				continue
			}
			if never, _ := b.take(first.When, false); never && narrow(first.When) {
				found[i] = Finding{Attribute: "when", Summary: "Never its turn",
					Detail: fmt.Sprintf("Whenever policy %q would act, %q does so first, with the same action: it %s. Its own limit "+
						"must be reached earlier, or it needs the higher priority.", second.Name, first.Name,
						map[bool]string{true: "has the higher priority", false: "stands before it"}[first.Priority > second.Priority])}
			}
		}
	}
	return found
}

// narrow reports whether a condition consists of comparisons that must all hold.
func narrow(x hclsyntax.Expression) bool {
	if b, is := x.(*hclsyntax.BinaryOpExpr); is && b.Op == hclsyntax.OpLogicalAnd {
		return narrow(b.LHS) && narrow(b.RHS)
	}
	return single(x)
}

// covers reports whether the first policy does what the second does, for the same
// databases and at any time.
func covers(first, second *Policy) bool {
	if first.When == nil || second.When == nil || first.Kind != second.Kind || first.Kind == "notify" ||
		second.Checkpoint && second.Truncate && !first.Truncate {
		return false
	}
	same := fmt.Sprint(*first.Selection) == fmt.Sprint(*second.Selection)
	everything := len(first.Selection.Databases)+len(first.Selection.Exclude)+len(first.Selection.Labels) == 0
	return (same || everything) && !first.DryRun && first.Unless == nil && first.WindowOf == nil &&
		first.For <= second.For && first.Cooldown <= second.Cooldown
}
