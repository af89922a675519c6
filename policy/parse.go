package policy

import (
	_ "embed"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/foreach"
	"github.com/sqlwatch/sqlwatch/policy/ladder"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/each"
	"github.com/sqlwatch/sqlwatch/policy/proof"
	"github.com/sqlwatch/sqlwatch/policy/selection"
	"github.com/sqlwatch/sqlwatch/policy/window"
)

// Defaults of attributes that a policy does not set.
const (
	DefaultCheckpointCooldown = time.Minute
	DefaultCooldown           = time.Hour // of every other action
)

const year = 366 * 24 * time.Hour

// Blocks lists the top-level blocks that Parse reads.
func Blocks() []hcl.BlockHeaderSchema {
	return []hcl.BlockHeaderSchema{{Type: "engine"}, {Type: "window", LabelNames: []string{"name"}},
		{Type: "policy", LabelNames: []string{"name"}}}
}

// Parse reads engine, window and policy blocks and checks every expression: names, units,
// kinds, and the possible cost. The set is usable only if no diagnostic is an error.
func Parse(blocks hcl.Blocks, sc *Scope) (*Set, hcl.Diagnostics) {
	p := &parsing{Decoder: hcldecode.Decoder{Scope: sc}, set: &Set{Windows: map[string]*Window{}, scope: sc,
		program: lang.NewProgram(sc)}}
	if b := p.Single(blocks, "engine"); b != nil {
		content := p.Content(b.Body, catalogue.Schema("engine"))
		p.set.DryRun = p.Choice(content.Attributes["mode"], "enforce", "enforce", "dry_run") == "dry_run"
	}
	p.set.windows = window.Read(&p.Decoder, p.set.program, blocks.OfType("window"))
	p.set.Windows = p.set.windows.Named
	p.policies(blocks.OfType("policy"))
	p.shadowed()
	return p.set, p.Diags
}

// policies reads the policies, and each instance of a policy with for_each.
func (p *parsing) policies(blocks hcl.Blocks) {
	var all []*foreach.Instance
	for _, b := range blocks {
		all = append(all, foreach.Expand(&p.Decoder, b)...)
	}
	given, units := foreach.Given(all)
	if p.Scope.Variables == nil {
		p.Scope.Variables, p.Scope.Units = map[string]cty.Value{}, map[string]lang.Unit{}
	}
	p.Scope.Variables[each.Name] = given
	for path, unit := range units {
		p.Scope.Units[each.Name+"."+path] = unit
	}
	places := map[string]hcl.Range{}
	for _, one := range all {
		b := one.Block
		if first, dup := places[one.Name]; dup {
			p.Errorf(b.DefRange, "Duplicate policy", "Policy %q is already defined at %s.", one.Name, first)
			continue
		}
		places[one.Name] = b.DefRange
		if one.Name == Operator {
			p.Errorf(b.DefRange, "Reserved name", "What operators ask for is recorded as of %q; give the policy another name.",
				Operator)
		}
		before := len(p.Diags)
		p.set.program.Instance, p.Extra = "", nil
		if one.Key != "" {
			p.set.program.Instance, p.Extra = one.Name, map[string]cty.Value{each.Written: one.Each()}
		} else {
			p.Name(b)
		}
		pol := p.policy(b)
		pol.Instance = one
		p.set.Policies = append(p.set.Policies, pol)
		p.TellOnce(before)
	}
	p.set.program.Instance, p.Extra = "", nil
}

// parsing is one call of Parse.
type parsing struct {
	hcldecode.Decoder
	set        *Set
	contenders []contender // as set.Policies
}

// expression compiles an attribute's expression.
func (p *parsing) expression(a *hcl.Attribute, want lang.Unit) hclsyntax.Expression {
	if a == nil {
		return nil
	}
	x, diags := p.set.program.Compile(a.Expr, want)
	p.Diags = append(p.Diags, diags...)
	return x
}

func (p *parsing) policy(b *hcl.Block) *Policy {
	schema := catalogue.Schema("policy")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "checkpoint"}, {Type: "snapshot"}, {Type: "sync"}, {Type: "verify"},
		{Type: "tune", LabelNames: []string{"name"}}}
	content := p.Content(b.Body, schema)
	a := content.Attributes
	pol := &Policy{Name: p.set.program.Instance, Range: b.DefRange}
	if pol.Name == "" {
		pol.Name = b.Labels[0]
	}
	pol.Selection = selection.Read(&p.Decoder, a)
	p.action(pol, content)
	p.set.program.Tunes = map[string]lang.Unit{}
	p.tunes(pol, content.Blocks.OfType("tune"))
	pol.Priority = p.Int(a["priority"], 0, -1000, 1000)
	pol.DryRun = p.Choice(a["mode"], "enforce", "enforce", "dry_run") == "dry_run"
	pol.Severity = p.Choice(a["severity"], "warning", "info", "warning", "critical")
	pol.For = p.Duration(a["for"], 0, 0, year)
	pol.HoldOff = p.Duration(a["hold_off"], 0, time.Second, 24*time.Hour)
	pol.MaxDefer = p.Duration(a["max_defer"], 0, time.Second, year)
	pol.Notify = p.Refs(a["notify"], "notifier", p.Scope.Notifiers)
	cooldown := DefaultCooldown
	if pol.Kind == ActCheckpoint {
		cooldown = DefaultCheckpointCooldown
	}
	pol.Cooldown = p.Duration(a["cooldown"], cooldown, time.Second, year)
	pol.when = p.expression(a["when"], lang.Bool)
	pol.until = p.expression(a["until"], lang.Bool)
	pol.unless = p.expression(a["unless"], lang.Bool)
	pol.window = p.expression(a["window"], lang.WindowUnit)
	pol.foretold = pol.window != nil && p.set.scheduled(pol.window)
	pol.message = p.expression(a["message"], lang.AnyUnit)
	p.neverActs(pol, a, hcldecode.Places(content, "stall_budget"))
	if pol.until != nil && pol.Kind != ActCheckpoint {
		p.Errorf(a["until"].Range, "until without checkpoint",
			"until goes with a checkpoint block; without it the policy rests for its cooldown and looks again.")
	}
	return pol
}

// neverActs reports what can be proven about a policy that will never do what it is for.
func (p *parsing) neverActs(pol *Policy, a hcl.Attributes, places map[string]hcl.Range) {
	facts := p.set.factsOf(pol)
	facts.Given = func(attribute string) bool { _, given := places[attribute]; return given }
	for _, f := range proof.Of(p.set.program, facts) {
		p.found(f, pol, places)
	}
	p.contenders = append(p.contenders, contender{facts, places})
	pol.walLimit = proof.WALLimit(p.set.program, facts)
	if x := a["window"]; x != nil {
		if _, tuple := x.Expr.(*hclsyntax.TupleConsExpr); tuple {
			p.Errorf(x.Expr.Range(), "Not a window", "A list is no window; write any_of(window.A, window.B).")
		} else if v, diags := x.Expr.Value(nil); !diags.HasErrors() && v.IsNull() {
			p.Errorf(x.Expr.Range(), "Not a window",
				"null is no window, and the policy would never act; leave window out for any time.")
		}
	}
}

// contender is what the comparison of policies needs of one of them.
type contender struct {
	proof.Policy
	places map[string]hcl.Range
}

// found adds a finding at its place in the file.
func (p *parsing) found(f proof.Finding, pol *Policy, places map[string]hcl.Range) {
	at, given := places[f.Attribute]
	switch {
	case f.Place != nil:
		at = *f.Place
	case !given:
		at = pol.Range
	}
	if f.Error {
		p.Errorf(at, f.Summary, "%s", f.Detail)
	} else {
		p.Warnf(at, f.Summary, "%s", f.Detail)
	}
}

// shadowed reports policies that another policy always precedes.
func (p *parsing) shadowed() {
	if p.Diags.HasErrors() {
		return
	}
	var all []proof.Policy
	for _, c := range p.contenders {
		all = append(all, c.Policy)
	}
	found := proof.Shadowed(p.set.program, all)
	for i, c := range p.contenders {
		if f, shadowed := found[i]; shadowed {
			p.found(f, p.set.Policies[i], c.places)
		}
	}
}

// factsOf returns the facts from which something can be proven.
func (s *Set) factsOf(pol *Policy) proof.Policy {
	f := proof.Policy{Name: pol.Name, Kind: string(pol.Kind), When: pol.when, Until: pol.until, Unless: pol.unless,
		WindowOf: pol.window, Message: pol.message, Checkpoint: pol.Kind == ActCheckpoint,
		Truncate: pol.Ladder != nil && pol.Ladder.Truncates(), For: pol.For, MaxDefer: pol.MaxDefer, Cooldown: pol.Cooldown,
		Priority: pol.Priority, DryRun: pol.DryRun, Window: s.spansOf(pol.window), Selection: &pol.Selection,
		Floor: MinTruncateBytes}
	if s.scope.Databases != nil {
		f.Databases = append([]lang.Database{}, pol.May(s.scope.Databases)...)
	}
	for _, t := range pol.Tunes {
		f.Tunes = append(f.Tunes, proof.Tune{Name: t.Name, Goal: t.goal, Start: t.Start, Min: t.Min, Max: t.Max,
			Budget: t.isBudget(pol), Place: t.Range})
	}
	return f
}

// action finds which one action the policy has.
func (p *parsing) action(pol *Policy, content *hcl.BodyContent) {
	for _, kind := range []ActionKind{ActCheckpoint, ActSnapshot, ActSync, ActVerify} {
		b := p.Single(content.Blocks, string(kind))
		switch {
		case b == nil:
			continue
		case pol.Kind != "":
			p.Errorf(b.DefRange, "Two actions", "A policy has one action; this one has %s already. Write a second policy.",
				pol.Kind)
			continue
		}
		pol.Kind = kind
		if kind == ActCheckpoint {
			pol.Ladder = ladder.Read(&p.Decoder, b)
		} else {
			p.Content(b.Body, hcldecode.Attributes())
		}
	}
	if pol.Kind == "" {
		pol.Kind = ActNotify
		if nobody(content.Attributes["notify"]) {
			p.Errorf(pol.Range, "No action", "Policy %q does nothing: give it checkpoint {}, snapshot {}, sync {}, verify {} "+
				"or notify.", pol.Name)
		}
	}
}

// nobody reports whether a notify attribute names no notifier.
func nobody(a *hcl.Attribute) bool {
	if a == nil {
		return true
	}
	list, diags := hcl.ExprList(a.Expr)
	return !diags.HasErrors() && len(list) == 0
}

func (p *parsing) tunes(pol *Policy, blocks hcl.Blocks) {
	for _, b := range blocks {
		a := p.Content(b.Body, catalogue.Schema("tune")).Attributes
		t := &Tune{Name: b.Labels[0], Range: b.DefRange}
		t.Mode = TuneMode(p.Choice(a["mode"], string(TuneSuggest), string(TuneSuggest), string(TuneShadow), string(TuneApply),
			string(TuneFreeze), "auto"))
		if t.Mode == "auto" { // its former name
			t.Mode = TuneApply
		}
		if t.Name == "stall" && pol.Ladder != nil {
			t.Start, t.Unit = pol.Ladder.StallBudget.Seconds(), lang.Seconds
		} else if a["start"] == nil {
			p.Errorf(b.DefRange, "Nothing to tune", "tune %q needs start: the value of tune.%s before anything is learned.",
				t.Name, t.Name)
		} else {
			t.Unit = lang.UnitOf(a["start"].Expr, p.Scope)
		}
		p.Name(b)
		t.Start = p.Number(a["start"], t.Start)
		t.Min, t.Max = p.Number(a["min"], t.Start/4), p.Number(a["max"], t.Start)
		if !(0 < t.Min && t.Min <= t.Start && t.Start <= t.Max) {
			p.Errorf(b.DefRange, "Out of range", "0 < min ≤ start ≤ max must hold; they are %g, %g and %g.", t.Min, t.Start,
				t.Max)
		}
		t.goal = p.expression(a["goal"], lang.Bool)
		if _, dup := p.set.program.Tunes[t.Name]; dup {
			p.Errorf(b.DefRange, "Duplicate tune", "tune %q stands twice in this policy.", t.Name)
			continue
		}
		p.set.program.Tunes[t.Name] = t.Unit
		pol.Tunes = append(pol.Tunes, t)
	}
}

//go:embed default.hcl
var defaultSource []byte

// Defaults returns the policies for databases named on the command line without
// a configuration, those of default.hcl: a WAL above 64 MB for 30 seconds is
// checkpointed until it is below 8 MB, at any time of day.
func Defaults() *Set {
	set, _ := builtIn() // it has no mistake: a test checks that
	return set
}

// DefaultSource returns the text of the built-in policies.
func DefaultSource() string { return string(defaultSource) }

func builtIn() (*Set, hcl.Diagnostics) {
	parser := hclparse.NewParser()
	f, diags := parser.ParseHCL(defaultSource, "default.hcl")
	content, _, more := f.Body.PartialContent(&hcl.BodySchema{Blocks: Blocks()})
	set, mistakes := Parse(content.Blocks, &Scope{Files: parser.Files()})
	return set, slices.Concat(diags, more, mistakes)
}
