package policy

import (
	_ "embed"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/calendar"
	"github.com/sqlwatch/sqlwatch/policy/ladder"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/proof"
	"github.com/sqlwatch/sqlwatch/policy/selection"
)

// Defaults of what a policy leaves out.
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

// Parse reads engine, window and policy blocks and checks every expression:
// names, units, kinds, and what it might cost. The set is of use only if no
// diagnostic is an error.
func Parse(blocks hcl.Blocks, sc *Scope) (*Set, hcl.Diagnostics) {
	p := &parsing{Decoder: hcldecode.Decoder{Scope: sc}, set: &Set{Windows: map[string]*Window{}, scope: sc,
		program: lang.NewProgram(sc)}}
	if b := p.Single(blocks, "engine"); b != nil {
		content := p.Content(b.Body, hcldecode.Attributes("mode"))
		p.set.DryRun = p.Choice(content.Attributes["mode"], "enforce", "enforce", "dry_run") == "dry_run"
	}
	p.windows(blocks.OfType("window"))
	places := map[string]hcl.Range{}
	for _, b := range blocks.OfType("policy") {
		if first, dup := places[b.Labels[0]]; dup {
			p.Errorf(b.DefRange, "Duplicate policy", "Policy %q is already defined at %s.", b.Labels[0], first)
			continue
		}
		places[b.Labels[0]] = b.DefRange
		p.name(b)
		p.set.Policies = append(p.set.Policies, p.policy(b))
	}
	return p.set, p.Diags
}

// parsing is one call of Parse.
type parsing struct {
	hcldecode.Decoder
	set *Set
}

// name checks that a block's name can stand in metrics and expressions.
func (p *parsing) name(b *hcl.Block) {
	if !hclsyntax.ValidIdentifier(b.Labels[0]) {
		p.Errorf(b.LabelRanges[0], "Bad name", "A name consists of letters, digits, - and _, and begins with a letter; %q "+
			"does not.", b.Labels[0])
	}
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

func (p *parsing) windows(blocks hcl.Blocks) {
	places := map[string]hcl.Range{}
	var names []string
	for _, b := range blocks {
		names = append(names, b.Labels[0])
	}
	for _, b := range blocks {
		name := b.Labels[0]
		if first, dup := places[name]; dup {
			p.Errorf(b.DefRange, "Duplicate window", "Window %q is already defined at %s.", name, first)
			continue
		}
		places[name] = b.DefRange
		p.name(b)
		p.set.Windows[name] = p.window(b, names)
	}
	for _, b := range blocks {
		if w := p.set.Windows[b.Labels[0]]; w.Learn != nil && w.Range == b.DefRange {
			p.finishLearn(w, b)
		}
	}
	for name := range places {
		p.set.program.Windows = append(p.set.program.Windows, name)
	}
	slices.Sort(p.set.program.Windows)
	for _, name := range p.set.program.Windows {
		p.set.order = append(p.set.order, p.set.Windows[name])
	}
}

func (p *parsing) window(b *hcl.Block, names []string) *Window {
	w := &Window{Name: b.Labels[0], Range: b.DefRange, Location: time.UTC}
	content := p.Content(b.Body, windowSchema())
	a := content.Attributes
	if learn := p.Single(content.Blocks, "learn"); learn != nil {
		if len(a) > 0 {
			p.Errorf(b.DefRange, "Two kinds of window", "A window has either a cron schedule or a learn block.")
		}
		w.Learn = p.learn(learn, names)
		return w
	}
	if a["cron"] == nil || a["duration"] == nil {
		p.Errorf(b.DefRange, "Incomplete window", "A window needs cron and duration, or a learn block.")
		return w
	}
	w.Cron = p.Plain(a["cron"], "")
	w.Duration = p.Duration(a["duration"], time.Hour, time.Minute, calendar.MaxDuration)
	if tz := p.Plain(a["timezone"], "UTC"); tz != "" {
		w.Location = p.location(a["timezone"], tz)
	}
	schedule, err := calendar.New(w.Cron, w.Duration, w.Location)
	if err != nil {
		p.Errorf(a["cron"].Expr.Range(), "Bad schedule", "%v.", err)
	}
	for _, doubt := range schedule.Doubts() {
		p.Warnf(a["cron"].Expr.Range(), "Is that meant?", "%s", doubt)
	}
	w.schedule = schedule
	return w
}

func (p *parsing) learn(b *hcl.Block, names []string) *Learn {
	a := p.Content(b.Body, hcldecode.Attributes("signal!", "quantile", "min_history", "fallback", "except",
		"timezone")).Attributes
	l := &Learn{
		Quantile:   p.Number(a["quantile"], 0.2),
		MinHistory: p.Duration(a["min_history"], 72*time.Hour, time.Minute, lang.MaxWindow),
	}
	if f := a["fallback"]; f != nil {
		l.Fallback = p.Ref(f.Name, f.Expr, "window", names)
	}
	if l.Quantile <= 0 || l.Quantile >= 1 {
		p.Errorf(a["quantile"].Expr.Range(), "Out of range", "quantile must be between 0 and 1.")
		l.Quantile = 0.5
	}
	l.Except = p.Refs(a["except"], "window", names)
	if tz := p.Plain(a["timezone"], ""); tz != "" {
		l.Location = p.location(a["timezone"], tz)
	}
	return l
}

// finishLearn reads what needs every window: the clock by which the week goes is
// that of the fallback where nothing else is said.
func (p *parsing) finishLearn(w *Window, b *hcl.Block) {
	l := w.Learn
	for _, name := range append([]string{l.Fallback}, l.Except...) {
		if other := p.set.Windows[name]; other != nil && other.Learn != nil {
			p.Errorf(w.Range, "Bad fallback", "fallback and except of a learned window must be windows with a cron schedule; "+
				"window.%s is none.", name)
			l.Fallback, l.Except = "", nil
		}
	}
	if l.Location == nil {
		l.Location = time.UTC
		if fallback := p.set.Windows[l.Fallback]; fallback != nil {
			l.Location = fallback.Location
		}
	}
	learn := p.Single(p.Content(b.Body, windowSchema()).Blocks, "learn")
	attrs, _, _ := learn.Body.PartialContent(hcldecode.Attributes("signal"))
	if signal := attrs.Attributes["signal"]; signal != nil {
		var diags hcl.Diagnostics
		l.signal, diags = p.set.program.CompileLearned(signal.Expr, l.Location)
		p.Diags = append(p.Diags, diags...)
	}
}

func windowSchema() *hcl.BodySchema {
	schema := hcldecode.Attributes("cron", "duration", "timezone")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "learn"}}
	return schema
}

// location finds a time zone.
func (p *parsing) location(a *hcl.Attribute, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	if err != nil {
		p.Errorf(a.Expr.Range(), "Unknown time zone", "There is no time zone %q; names are as in \"Europe/Berlin\".", name)
		return time.UTC
	}
	return loc
}

func (p *parsing) policy(b *hcl.Block) *Policy {
	schema := hcldecode.Attributes("when!", "for", "until", "unless", "window", "max_defer", "cooldown", "priority",
		"mode", "severity", "notify", "message", "databases", "exclude", "labels")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "checkpoint"}, {Type: "snapshot"}, {Type: "sync"}, {Type: "verify"},
		{Type: "tune", LabelNames: []string{"name"}}}
	content := p.Content(b.Body, schema)
	a := content.Attributes
	pol := &Policy{Name: b.Labels[0], Range: b.DefRange}
	pol.Selection = selection.Read(&p.Decoder, a)
	p.action(pol, content)
	p.set.program.Tunes = map[string]lang.Unit{}
	p.tunes(pol, content.Blocks.OfType("tune"))
	pol.Priority = p.Int(a["priority"], 0, -1000, 1000)
	pol.DryRun = p.Choice(a["mode"], "enforce", "enforce", "dry_run") == "dry_run"
	pol.Severity = p.Choice(a["severity"], "warning", "info", "warning", "critical")
	pol.For = p.Duration(a["for"], 0, 0, year)
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
	p.neverActs(pol, a)
	if pol.window == nil && a["max_defer"] != nil {
		p.Warnf(a["max_defer"].Range, "Nothing to defer", "max_defer has no effect without a window.")
	}
	if pol.until != nil && pol.Kind != ActCheckpoint {
		p.Errorf(a["until"].Range, "until without checkpoint",
			"until goes with a checkpoint block; without it the policy rests for its cooldown and looks again.")
	}
	return pol
}

// neverActs reports what can be proven of a policy that will not do what it is for.
func (p *parsing) neverActs(pol *Policy, a hcl.Attributes) {
	for _, f := range proof.Of(p.set.program, proof.Policy{Name: pol.Name, When: pol.when, Until: pol.until,
		Unless: pol.unless, Checkpoint: pol.Kind == ActCheckpoint, Truncate: pol.Ladder != nil && pol.Ladder.Truncates(),
		MaxDefer: pol.MaxDefer, Window: p.set.spansOf(pol.window)}) {
		if f.Error {
			p.Errorf(a[f.Attribute].Expr.Range(), f.Summary, "%s", f.Detail)
		} else {
			p.Warnf(a[f.Attribute].Expr.Range(), f.Summary, "%s", f.Detail)
		}
	}
	if x := a["window"]; x != nil {
		if _, tuple := x.Expr.(*hclsyntax.TupleConsExpr); tuple {
			p.Errorf(x.Expr.Range(), "Not a window", "A list is no window; write any_of(window.A, window.B).")
		} else if v, diags := x.Expr.Value(nil); !diags.HasErrors() && v.IsNull() {
			p.Errorf(x.Expr.Range(), "Not a window",
				"null is no window, and the policy would never act; leave window out for any time.")
		}
	}
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

// nobody reports whether a notify attribute names none.
func nobody(a *hcl.Attribute) bool {
	if a == nil {
		return true
	}
	list, diags := hcl.ExprList(a.Expr)
	return !diags.HasErrors() && len(list) == 0
}

func (p *parsing) tunes(pol *Policy, blocks hcl.Blocks) {
	for _, b := range blocks {
		a := p.Content(b.Body, hcldecode.Attributes("goal!", "mode", "start", "min", "max")).Attributes
		t := &Tune{Name: b.Labels[0], Range: b.DefRange}
		t.Mode = TuneMode(p.Choice(a["mode"], string(TuneSuggest), string(TuneSuggest), string(TuneShadow), string(TuneApply),
			string(TuneFreeze), "auto"))
		if t.Mode == "auto" { // as it was called once
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
		p.name(b)
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
	set, _ := builtIn() // without a mistake, as a test knows
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
