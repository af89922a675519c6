package policytest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// nobody is the value of refused_by in a test if no guard refuses.
const nobody = "none"

// maxTicks bounds the evaluations of one test.
const maxTicks = 200_000

const year = 366 * 24 * time.Hour

// Parse reads the test blocks of a file, for the policies of a set. If a diagnostic is an
// error, the tests must not be run.
func Parse(set *policy.Set, body hcl.Body) ([]*Test, hcl.Diagnostics) {
	d := &testDecoder{Decoder: hcldecode.Decoder{Scope: set.Scope()}, set: set}
	content := d.Content(body, &hcl.BodySchema{
		Blocks: []hcl.BlockHeaderSchema{{Type: "test", LabelNames: []string{"name"}}}})
	places := map[string]hcl.Range{}
	var tests []*Test
	for _, b := range content.Blocks {
		if first, dup := places[b.Labels[0]]; dup {
			d.Errorf(b.DefRange, "Duplicate test", "Test %q is already defined at %s.", b.Labels[0], first)
		}
		places[b.Labels[0]] = b.DefRange
		tests = append(tests, d.test(b))
	}
	return tests, d.Diags
}

// testDecoder is the state of one call of Parse.
type testDecoder struct {
	hcldecode.Decoder
	set *policy.Set
}

func (d *testDecoder) test(b *hcl.Block) *Test {
	schema := hcldecode.Attributes("policy!", "start!", "step", "always", "never")
	schema.Blocks = append([]hcl.BlockHeaderSchema{{Type: "database"}}, scriptBlocks...)
	content := d.Content(b.Body, schema)
	a := content.Attributes
	t := &Test{Name: b.Labels[0], Range: b.DefRange, set: d.set, program: lang.NewProgram(d.Scope)}
	for name := range d.set.Windows {
		t.program.Windows = append(t.program.Windows, name)
	}
	t.policy = d.policy(a["policy"])
	t.step = d.Duration(a["step"], 10*time.Second, time.Second, 5*time.Minute)
	if a["start"] != nil {
		start, err := time.Parse(time.RFC3339, d.Plain(a["start"], ""))
		if err != nil {
			d.Errorf(a["start"].Expr.Range(), "Not a time",
				"start must be as in \"2026-03-28T01:00:00Z\" or \"2026-03-28T02:00:00+01:00\".")
		}
		t.start = start
	}
	d.database(t, d.Single(content.Blocks, "database"))
	if t.policy != nil && !t.policy.AppliesTo(t.db.name, t.labels) {
		d.Errorf(b.DefRange, "Not watched", "policy.Policy %q does not watch a database named %q; its databases are %s. "+
			"Give the database block a name.", t.policy.Name, t.db.name, strings.Join(t.policy.Databases, ", "))
	}
	t.rules = d.rules(t, a)
	d.script(t, content.Blocks, b)
	return t
}

// scriptBlocks are the blocks that a script consists of.
var scriptBlocks = []hcl.BlockHeaderSchema{{Type: "during", LabelNames: []string{"length"}}, {Type: "expect"},
	{Type: "repeat", LabelNames: []string{"times"}}}

// rules reads the attributes always and never.
func (d *testDecoder) rules(t *Test, a hcl.Attributes) (rules []*rule) {
	for _, r := range []rule{{name: "always", wrong: policy.False}, {name: "never", wrong: policy.True}} {
		if x := a[r.name]; x != nil {
			compiled, diags := t.program.Compile(x.Expr, lang.Bool)
			d.Diags = append(d.Diags, diags...)
			r.expr, r.place = compiled, x.Range
			rules = append(rules, &r)
		}
	}
	return rules
}

// policy finds the policy that a test is about.
func (d *testDecoder) policy(a *hcl.Attribute) *policy.Policy {
	name := d.Plain(a, "")
	var names []string
	for _, p := range d.set.Policies {
		if p.Name == name {
			return p
		}
		names = append(names, p.Name)
	}
	if a != nil {
		d.Errorf(a.Expr.Range(), "Unknown policy", "There is no policy %q.%s", name, lang.Suggest(name, names))
	}
	return nil
}

// database reads the database block: the state at the start.
func (d *testDecoder) database(t *Test, b *hcl.Block) {
	t.db = simulated{name: "app", bytes: 1e9, disk: 100e9}
	if b == nil {
		return
	}
	a := d.Content(b.Body, hcldecode.Attributes("name", "labels", "bytes", "wal", "disk", "replicas",
		"autocheckpoint")).Attributes
	t.db.name = d.Plain(a["name"], t.db.name)
	t.db.bytes = d.Size(a["bytes"], t.db.bytes, 0, 1<<44)
	t.db.firstWAL = d.Size(a["wal"], 0, 0, 1<<43)
	t.db.auto = d.Size(a["autocheckpoint"], 0, 0, 1<<40)
	t.db.disk = d.Size(a["disk"], t.db.disk, 1, 1<<60)
	for _, name := range d.Refs(a["replicas"], "replica", d.Scope.Replicas) {
		t.db.replicas = append(t.db.replicas, collector.Replica{Name: name})
	}
	t.labels = d.TextMap(a["labels"])
	for name := range t.labels {
		if !slices.Contains(d.Scope.Labels, name) {
			d.Errorf(a["labels"].Expr.Range(), "Unknown label", "No database has a label %q.%s", name,
				lang.Suggest(name, slices.Clone(d.Scope.Labels)))
		}
	}
}

// script reads the during, expect and repeat blocks in file order.
func (d *testDecoder) script(t *Test, blocks hcl.Blocks, test *hcl.Block) {
	before := len(d.Diags)
	t.script = d.play(t, blocks, false)
	length, expects := time.Duration(0), len(t.timed)+len(t.rules)
	for _, sp := range t.script {
		length += sp.length
		expects += len(sp.expect) + len(sp.rules)
	}
	slices.SortStableFunc(t.timed, func(a, b *expectation) int { return a.at.Compare(b.at) })
	for _, x := range t.timed {
		if x.at.Before(t.start) || x.at.After(t.start.Add(length)) {
			d.Errorf(x.place, "Not reached", "The test goes from %s to %s.", t.start.Format(time.RFC3339),
				t.start.Add(length).Format(time.RFC3339))
		}
	}
	if expects == 0 && len(d.Diags) == before {
		d.Errorf(test.DefRange, "Nothing expected", "Test %q has no expect block that could fail.", t.Name)
	}
	if length/t.step > maxTicks {
		d.Errorf(test.DefRange, "Too long a test", "%s in steps of %s are more than %d evaluations; a step may be up to 5m.",
			amounts.HumanSeconds(length.Seconds()), t.step, maxTicks)
	}
}

// play reads the blocks of a test, or of a repeat block within it.
func (d *testDecoder) play(t *Test, blocks hcl.Blocks, repeated bool) (script []*stretch) {
	for _, b := range blocks {
		switch {
		case b.Type == "during":
			script = append(script, d.stretch(t, b))
		case b.Type == "repeat":
			script = append(script, d.repeat(t, b)...)
		case b.Type == "expect" && d.timed(b):
			if repeated {
				d.Errorf(b.DefRange, "At one time only", "What is repeated happens at several times: an expect block with `at` "+
					"belongs outside of repeat.")
			}
			t.timed = append(t.timed, d.expect(t, b))
		case b.Type == "expect" && len(script) == 0:
			d.Errorf(b.DefRange, "Nothing has happened",
				"An expect block looks at the moment that the during blocks above it lead to; there is none.")
		case b.Type == "expect":
			// After a repeat block it applies to the last repetition only. The repetitions are the same
			// stretch, so the last one becomes a copy.
			last := *script[len(script)-1]
			last.expect = append(slices.Clone(last.expect), d.expect(t, b))
			script[len(script)-1] = &last
		}
	}
	return script
}

// repeat reads a repeat block and returns its stretches as often as they happen.
func (d *testDecoder) repeat(t *Test, b *hcl.Block) (script []*stretch) {
	times, err := strconv.Atoi(b.Labels[0])
	if err != nil || times < 1 || times > 1000 {
		d.Errorf(b.LabelRanges[0], "Not a number of times", "%q must be a number from 1 to 1000.", b.Labels[0])
		times = 1
	}
	once := d.play(t, d.Content(b.Body, &hcl.BodySchema{Blocks: scriptBlocks}).Blocks, true)
	if len(once)*times > maxTicks {
		d.Errorf(b.DefRange, "Too long a test", "These are %d spans; a test has no more than %d evaluations.",
			len(once)*times, maxTicks)
		return once
	}
	for range times {
		script = append(script, once...)
	}
	return script
}

func (d *testDecoder) stretch(t *Test, b *hcl.Block) *stretch {
	sp := &stretch{diskFree: t.db.disk / 2, writeSpeed: usualSpeed, sync: usualSync}
	length, err := amounts.DurationValue(cty.StringVal(b.Labels[0]))
	if err != nil || length < time.Second || length > year {
		d.Errorf(b.LabelRanges[0], "Not a duration", "%q must be a duration such as \"5m\", from 1s to 366d.", b.Labels[0])
		length = time.Second
	}
	a := d.Content(b.Body, hcldecode.Attributes("write", "reader", "write_lock", "readable", "disk_free",
		"replica_lag", "pending", "replica_healthy", "reader_every", "reader_for", "write_speed", "sync", "fails",
		"takes", "always", "never")).Attributes
	sp.length = length
	sp.write = d.Size(a["write"], 0, 0, 10e9)
	sp.reader = d.Flag(a["reader"], false)
	sp.writeLock = d.Flag(a["write_lock"], false)
	sp.unreadable = !d.Flag(a["readable"], true)
	sp.diskFree = d.Size(a["disk_free"], sp.diskFree, 0, t.db.disk)
	sp.replicaLag = d.Duration(a["replica_lag"], 0, 0, year)
	sp.pending = d.Size(a["pending"], 0, 0, 1<<43)
	sp.unhealthy = !d.Flag(a["replica_healthy"], true)
	for _, name := range []string{"replica_lag", "pending", "replica_healthy"} {
		if a[name] != nil && len(t.db.replicas) == 0 {
			d.Errorf(a[name].Range, "No replica",
				"The database has no replica that could lag; give the database block replicas = [replica.TYPE.NAME].")
		}
	}
	d.disturbances(sp, a)
	sp.rules = d.rules(t, a)
	for _, r := range sp.rules {
		if sp.length <= t.step {
			d.Errorf(r.place, "Never looked at", "Between the beginning and the end of a span of %s nothing is looked at in "+
				"steps of %s.", sp.length, t.step)
		}
	}
	return sp
}

// disturbances reads what can go wrong: readers that come and go, slow disks, failing actions.
func (d *testDecoder) disturbances(sp *stretch, a hcl.Attributes) {
	sp.readerEvery = d.Duration(a["reader_every"], 0, time.Second, year)
	sp.readerFor = d.Duration(a["reader_for"], 0, time.Second, year)
	if (sp.readerEvery == 0) != (sp.readerFor == 0) || sp.readerFor > sp.readerEvery {
		for _, name := range []string{"reader_every", "reader_for"} {
			if a[name] != nil {
				d.Errorf(a[name].Range, "Incomplete reader", "reader_every and reader_for go together, the second the shorter.")
				break
			}
		}
		sp.readerEvery, sp.readerFor = 0, 0
	}
	sp.writeSpeed = d.Size(a["write_speed"], sp.writeSpeed, 1000, 1e12)
	sp.sync = d.Duration(a["sync"], sp.sync, 0, time.Hour)
	sp.takes = d.Duration(a["takes"], 0, 0, year)
	kinds := []string{string(policy.ActCheckpoint), string(policy.ActSnapshot), string(policy.ActSync),
		string(policy.ActVerify), string(policy.ActNotify)}
	for _, kind := range d.Texts(a["fails"]) {
		if !slices.Contains(kinds, kind) {
			d.Errorf(a["fails"].Expr.Range(), "Unknown action", "There is no action %q.%s", kind,
				lang.Suggest(kind, slices.Clone(kinds)))
		}
		sp.fails = append(sp.fails, kind)
	}
}

// timed reports whether an expect block has a time of its own.
func (d *testDecoder) timed(b *hcl.Block) bool {
	content, _, _ := b.Body.PartialContent(hcldecode.Attributes("at"))
	return content.Attributes["at"] != nil
}

// moment reads when an expect block is checked: a time, or a duration after the start. It
// returns zero if the block does not say.
func (d *testDecoder) moment(a *hcl.Attribute, start time.Time) time.Time {
	if a == nil {
		return time.Time{}
	}
	text := d.Plain(a, "")
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at
	}
	if after, err := amounts.ParseDuration(text); err == nil {
		return start.Add(after)
	}
	d.Errorf(a.Expr.Range(), "Not a time", "at must be as in \"2026-03-28T02:00:00+01:00\", or a duration after the "+
		"start.")
	return start
}

func (d *testDecoder) expect(t *Test, b *hcl.Block) *expectation {
	a := d.Content(b.Body, hcldecode.Attributes("phase", "refused_by", "runs", "holds", "at")).Attributes
	x := &expectation{place: b.DefRange, runs: -1, at: d.moment(a["at"], t.start)}
	before := len(d.Diags)
	var phases []string
	for _, p := range policy.Phases() {
		phases = append(phases, string(p))
	}
	guards := []string{nobody}
	for _, g := range policy.Guards() {
		guards = append(guards, string(g))
	}
	x.phase = d.Choice(a["phase"], "", phases...)
	x.refusedBy = d.Choice(a["refused_by"], "", guards...)
	if a["runs"] != nil {
		x.runs = d.Int(a["runs"], 0, 0, maxTicks)
	}
	if holds := a["holds"]; holds != nil {
		var diags hcl.Diagnostics
		x.holds, diags = t.program.Compile(holds.Expr, lang.Bool)
		d.Diags = append(d.Diags, diags...)
	}
	if x.phase == "" && x.refusedBy == "" && x.runs < 0 && x.holds == nil && len(d.Diags) == before {
		d.Errorf(b.DefRange, "Nothing expected", "An expect block says at least one of phase, refused_by, runs and holds.")
	}
	return x
}
