package proof

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/selection"
)

// compiled returns the compiled condition; nil for "".
func compiled(t *testing.T, program *lang.Program, text string) hclsyntax.Expression {
	t.Helper()
	if text == "" {
		return nil
	}
	x, diags := hclsyntax.ParseExpression([]byte(text), "test.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	e, diags := program.Compile(x, lang.Bool)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return e
}

func newProgram() *lang.Program { return lang.NewProgram(&lang.Scope{Replicas: []string{"s3.main"}}) }

// shrinking returns a policy that truncates and has no faults but those of its conditions.
func shrinking(t *testing.T, program *lang.Program, when, until, unless string) Policy {
	t.Helper()
	return Policy{Name: "p", Kind: "checkpoint", Checkpoint: true, Truncate: true, Floor: 1e6, Cooldown: time.Minute,
		When: compiled(t, program, when), Until: compiled(t, program, until), Unless: compiled(t, program, unless),
		Selection: &selection.Selection{}, Given: func(string) bool { return false }}
}

// What is proven about conditions, alone and together. Next to each is a condition that
// differs slightly and about which nothing can be proven.
func TestConditions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ when, until, unless, want string }{
		{`wal.bytes > bytes("100MB")`, "", "", ""},
		{`wal.bytes > bytes("100MB") && wal.bytes < bytes("50MB")`, "", "", "when: Never true!"},
		{`wal.bytes > bytes("100MB") && wal.bytes < bytes("150MB")`, "", "", ""},
		{`wal.bytes > bytes("100MB") || wal.bytes < bytes("50MB")`, "", "", ""},
		{`wal.bytes < bytes("0B")`, "", "", "when: Never true!"},
		{`disk.free_ratio > percent("120%")`, "", "", "when: Never true!"},
		{`disk.free_ratio < percent("20%")`, "", "", ""},
		{`wal.bytes >= bytes("0B")`, "", "", "when: Always true"},
		{`max_over(wal.bytes, "1h") < bytes("0B")`, "", "", "when: Never true!"},
		{`avg_over(delta(disk.free_bytes, "1m"), "1h") < bytes("0B")`, "", "", ""},
		{`min_over(predict(disk.free_bytes, "1h", "4h"), "10m") < bytes("0B")`, "", "", ""},
		{`false`, "", "", "when: Never true!"},
		{`true`, "", "", ""}, // written on purpose
		{`wal.bytes > bytes("100MB")`, "", `wal.bytes > bytes("50MB")`, "unless: Contradiction!"},
		{`wal.bytes > bytes("100MB")`, "", `wal.bytes > bytes("500MB")`, ""},
		{`wal.bytes > bytes("100MB")`, "", `true`, "unless: Always true!"},
		{`wal.bytes > bytes("100MB")`, "", `false`, "unless: Never true"},
		{`wal.bytes > bytes("100MB")`, `wal.bytes > bytes("50MB")`, "", "until: Reached before"},
		{`wal.bytes > bytes("100MB")`, `wal.bytes < bytes("50MB")`, "", ""},
		{`wal.bytes > bytes("100MB")`, `wal.bytes < bytes("0B")`, "", "until: Never true"},
		{`wal.bytes < bytes("500kB")`, "", "", "when: Below the floor!"},
		{`wal.bytes < bytes("5MB")`, "", "", ""},
	} {
		program := newProgram()
		got := ""
		for _, f := range Of(program, shrinking(t, program, tt.when, tt.until, tt.unless)) {
			got += fmt.Sprintf("%s: %s%s", f.Attribute, f.Summary, map[bool]string{true: "!"}[f.Error])
		}
		if got != tt.want {
			t.Errorf("when %s, until %s, unless %s: %q, want %q", tt.when, tt.until, tt.unless, got, tt.want)
		}
	}
}

// WALLimit is the size below which a policy never makes the WAL smaller: the largest that
// its condition demands in every case. With alternatives it is 0.
func TestWALLimit(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]float64{
		`wal.bytes > bytes("100MB")`:                                                                100e6,
		`wal.bytes > bytes("100MB") && disk.free_ratio < percent("20%")`:                            100e6,
		`wal.bytes > bytes("100MB") || wal.bytes > bytes("30MB")`:                                   0,
		`wal.bytes > bytes("100MB") && wal.bytes > bytes("300MB")`:                                  300e6,
		`disk.free_ratio < percent("20%")`:                                                          0,
		`wal.bytes > bytes("100MB") || disk.free_ratio < percent("20%")`:                            0,
		`wal.bytes > bytes("100MB") && wal.bytes < bytes("50MB")`:                                   0,
		`!(wal.bytes < bytes("100MB"))`:                                                             100e6,
		`wal.bytes > bytes("100MB") || disk.free_ratio < percent("1%") && wal.bytes > bytes("8MB")`: 0,
	} {
		program := newProgram()
		p := shrinking(t, program, when, "", "")
		if got := WALLimit(program, p); math.Abs(got-want) > 1 {
			t.Errorf("%s: %g, want %g", when, got, want)
		}
		p.DryRun = true
		if got := WALLimit(program, p); got != 0 {
			t.Errorf("%s in a dry run: %g, want 0", when, got)
		}
	}
}

// Of two policies with the same action, the second never acts if the first acts in every
// case in which the second would.
func TestShadowed(t *testing.T) {
	t.Parallel()
	program := newProgram()
	some := &selection.Selection{Databases: []string{"a"}}
	lagging := compiled(t, program, `replica.lag > duration("1m")`)
	policies := func(change func(first, second *Policy)) []Policy {
		first, second := shrinking(t, program, `wal.bytes > bytes("100MB")`, "", ""),
			shrinking(t, program, `wal.bytes > bytes("200MB")`, "", "")
		first.Name, second.Name = "first", "second"
		change(&first, &second)
		return []Policy{first, second}
	}
	for name, tt := range map[string]struct {
		change func(first, second *Policy)
		want   []int // those that are shadowed
	}{
		"a larger limit": {func(_, _ *Policy) {}, []int{1}},
		"a smaller limit": {func(first, second *Policy) {
			first.When, second.When = second.When, first.When
		}, nil},
		"a higher priority":          {func(_, second *Policy) { second.Priority = 1 }, nil},
		"another action":             {func(first, _ *Policy) { first.Kind, first.Checkpoint = "sync", false }, nil},
		"notices":                    {func(first, second *Policy) { first.Kind, second.Kind = "notify", "notify" }, nil},
		"the first is a dry run":     {func(first, _ *Policy) { first.DryRun = true }, nil},
		"the first waits longer":     {func(first, _ *Policy) { first.For = time.Minute }, nil},
		"the first rests longer":     {func(first, _ *Policy) { first.Cooldown = time.Hour }, nil},
		"the first is for others":    {func(first, _ *Policy) { first.Selection = some }, nil},
		"the second is for some":     {func(_, second *Policy) { second.Selection = some }, []int{1}},
		"the first does less":        {func(first, _ *Policy) { first.Truncate = false }, nil},
		"the first has an exception": {func(first, _ *Policy) { first.Unless = lagging }, nil},
	} {
		var got []int
		for i := range Shadowed(program, policies(tt.change)) {
			got = append(got, i)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v are shadowed, want %v", name, got, tt.want)
		}
	}
}

// A policy that needs a replica is reported only if none of its databases has it.
func TestReach(t *testing.T) {
	t.Parallel()
	program := newProgram()
	copied, bare := lang.Database{Name: "a", Replicas: []string{"s3.main"}}, lang.Database{Name: "b"}
	const lag = `replica["s3.main"].lag > duration("1m")`
	for name, tt := range map[string]struct {
		kind, when string
		databases  []lang.Database
		want       string
	}{
		"a sync":                     {"sync", `wal.bytes > bytes("9MB")`, []lang.Database{copied, bare}, ""},
		"a sync of what has none":    {"sync", `wal.bytes > bytes("9MB")`, []lang.Database{bare}, "No replica"},
		"a lag":                      {"checkpoint", lag, []lang.Database{copied, bare}, ""},
		"a lag of what is not there": {"checkpoint", lag, []lang.Database{bare}, "Not replicated there"},
		"nothing is known of them":   {"sync", `wal.bytes > bytes("9MB")`, nil, ""},
	} {
		p := shrinking(t, program, tt.when, "", "")
		p.Kind, p.Checkpoint, p.Truncate = tt.kind, tt.kind == "checkpoint", tt.kind == "checkpoint"
		p.Databases = tt.databases
		got := ""
		for _, f := range Of(program, p) {
			got += f.Summary
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A window that never opens keeps the policy from acting. A max_defer that is shorter than
// the usual wait makes it act outside of the window.
func TestWindow(t *testing.T) {
	t.Parallel()
	program := newProgram()
	monday := time.Date(2026, 1, 5, 2, 0, 0, 0, time.UTC)
	openings := []time.Time{monday, monday.AddDate(0, 0, 7), monday.AddDate(0, 0, 14)}
	for name, tt := range map[string]struct {
		open     lang.Truth
		maxDefer time.Duration
		want     string
	}{
		"opens":                      {lang.True, 0, ""},
		"never opens":                {lang.False, 0, "Never open!"},
		"never opens, may be late":   {lang.False, time.Hour, "Never open"},
		"does not wait for the week": {lang.True, 26 * time.Hour, "Shorter than the wait"},
		"waits for most of the week": {lang.True, 5 * 24 * time.Hour, ""},
	} {
		p := shrinking(t, program, `wal.bytes > bytes("100MB")`, "", "")
		p.Window, p.MaxDefer = Window{Open: func(time.Time) lang.Truth { return tt.open }, Openings: openings}, tt.maxDefer
		got := ""
		for _, f := range Of(program, p) {
			got += f.Summary + map[bool]string{true: "!"}[f.Error]
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
