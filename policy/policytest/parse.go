package policytest

import (
	"slices"
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

// nobody is how a test says that no guard refuses.
const nobody = "none"

// maxTicks bounds the evaluations of one test.
const maxTicks = 200_000

const year = 366 * 24 * time.Hour

// Parse reads the test blocks of a file, for the policies of a set. The tests are
// of use only if no diagnostic is an error.
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

// testDecoder is one call of Parse.
type testDecoder struct {
	hcldecode.Decoder
	set *policy.Set
}

func (d *testDecoder) test(b *hcl.Block) *Test {
	schema := hcldecode.Attributes("policy!", "start!", "step")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "database"}, {Type: "during", LabelNames: []string{"length"}},
		{Type: "expect"}}
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
	d.script(t, content.Blocks, b)
	return t
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

// database reads what the database is like at the start.
func (d *testDecoder) database(t *Test, b *hcl.Block) {
	t.db = simulated{name: "app", bytes: 1e9, disk: 100e9}
	if b == nil {
		return
	}
	a := d.Content(b.Body, hcldecode.Attributes("name", "labels", "bytes", "wal", "disk", "replicas")).Attributes
	t.db.name = d.Plain(a["name"], t.db.name)
	t.db.bytes = d.Size(a["bytes"], t.db.bytes, 0, 1<<44)
	t.db.firstWAL = d.Size(a["wal"], 0, 0, 1<<43)
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

// script reads the during and expect blocks in file order.
func (d *testDecoder) script(t *Test, blocks hcl.Blocks, test *hcl.Block) {
	length, expects := time.Duration(0), 0
	for _, b := range blocks {
		switch {
		case b.Type == "during":
			t.script = append(t.script, d.stretch(t, b))
			length += t.script[len(t.script)-1].length
		case b.Type == "expect" && len(t.script) == 0:
			d.Errorf(b.DefRange, "Nothing has happened",
				"An expect block looks at the moment that the during blocks above it lead to; there is none.")
		case b.Type == "expect":
			last := t.script[len(t.script)-1]
			last.expect = append(last.expect, d.expect(t, b))
			expects++
		}
	}
	if expects == 0 {
		d.Errorf(test.DefRange, "Nothing expected", "Test %q has no expect block that could fail.", t.Name)
	}
	if length/t.step > maxTicks {
		d.Errorf(test.DefRange, "Too long a test", "%s in steps of %s are more than %d evaluations; a step may be up to 5m.",
			amounts.HumanSeconds(length.Seconds()), t.step, maxTicks)
	}
}

func (d *testDecoder) stretch(t *Test, b *hcl.Block) *stretch {
	sp := &stretch{diskFree: t.db.disk / 2}
	length, err := amounts.DurationValue(cty.StringVal(b.Labels[0]))
	if err != nil || length < time.Second || length > year {
		d.Errorf(b.LabelRanges[0], "Not a duration", "%q must be a duration such as \"5m\", from 1s to 366d.", b.Labels[0])
		length = time.Second
	}
	a := d.Content(b.Body, hcldecode.Attributes("write", "reader", "write_lock", "readable", "disk_free",
		"replica_lag")).Attributes
	sp.length = length
	sp.write = d.Size(a["write"], 0, 0, 10e9)
	sp.reader = d.Flag(a["reader"], false)
	sp.writeLock = d.Flag(a["write_lock"], false)
	sp.unreadable = !d.Flag(a["readable"], true)
	sp.diskFree = d.Size(a["disk_free"], sp.diskFree, 0, t.db.disk)
	sp.replicaLag = d.Duration(a["replica_lag"], 0, 0, year)
	if a["replica_lag"] != nil && len(t.db.replicas) == 0 {
		d.Errorf(a["replica_lag"].Range, "No replica",
			"The database has no replica that could lag; give the database block replicas = [replica.TYPE.NAME].")
	}
	return sp
}

func (d *testDecoder) expect(t *Test, b *hcl.Block) *expectation {
	a := d.Content(b.Body, hcldecode.Attributes("phase", "refused_by", "runs", "holds")).Attributes
	x := &expectation{at: b.DefRange, runs: -1}
	before := len(d.Diags)
	var phases []string
	for _, p := range policy.Phases() {
		if p != policy.Running { // an action takes no simulated time
			phases = append(phases, string(p))
		}
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
