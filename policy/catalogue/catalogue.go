// Package catalogue lists what the policy language offers: the attributes of its blocks,
// its functions and its guards, each with its meaning. The parser takes the schemas of
// blocks from it, and the second part of docs/policy.md is generated from it.
package catalogue

import (
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
)

// Attribute is one attribute of a block.
type Attribute struct {
	Name    string // ends with a ! if it is required
	Default string // as the reference shows it; "": none
	Doc     string
}

// Block is one kind of block.
type Block struct {
	Name       string // with its labels, as it is written
	Doc        string
	Attributes []Attribute
	Blocks     []string // that it may contain
}

// Schema returns the schema of a block's attributes.
func Schema(block string) *hcl.BodySchema {
	schema := &hcl.BodySchema{}
	for _, b := range Blocks {
		if kind, _, _ := strings.Cut(b.Name, " "); kind != block {
			continue
		}
		for _, a := range b.Attributes {
			name, required := strings.CutSuffix(a.Name, "!")
			schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name, Required: required})
		}
	}
	return schema
}

// Blocks is every block of the policy language.
var Blocks = []Block{
	{"engine", "At most one.", []Attribute{
		{"mode", "`enforce`", "`dry_run`: every policy decides and reports only"},
	}, nil},
	{`policy "NAME"`, "A condition, and one action: a block `checkpoint`, `snapshot`, `sync` or `verify`, or " +
		"`notify` alone.",
		[]Attribute{
			{"when!", "", "the condition: it must be true"},
			{"for", "`0s`", "how long it must have held without a break; time in which nobody looked does not count"},
			{"until", "one run is enough", "once the policy has acted it continues, at the pace of `on_busy`, until this " +
				"is true; with `checkpoint` only"},
			{"unless", "", "refuses while true or unknown"},
			{"window", "any time", "refuses outside"},
			{"max_defer", "never", "having waited for its window this long, it acts outside"},
			{"cooldown", "`1m` for checkpoints, `1h` for the rest", "rest after a success of its own, at least `1s`"},
			{"hold_off", "none", "it does not act for so long after the watch began (a start, or a database that could " +
				"not be read), and after another policy acted on the database: what has just changed is not judged yet"},
			{"mode", "`enforce`", "`dry_run`: it decides and reports only"},
			{"databases", "all", "patterns of database names, as `[\"tenant-*\"]`"},
			{"exclude", "none", "patterns of database names that are left out"},
			{"labels", "any", "labels the databases must carry, as `{ tier = \"gold\" }`"},
			{"priority", "`0`", "of two that could act, the higher goes first; of equals the first in file order"},
			{"severity", "`warning`", "`info`, `warning`, `critical`"},
			{"notify", "nobody", "whom to tell, as `[notifier.slack.ops]`; beside an action with its outcome"},
			{"message", "a sentence made from `when`", "what to tell"},
			{"for_each", "one policy", "a list of texts, or an object: a policy for each, named `NAME-KEY`"},
		}, []string{"checkpoint", "snapshot", "sync", "verify", "tune"}},
	{"checkpoint", "A ladder of steps. Without any it is three times passive, then truncate.", []Attribute{
		{"stall_budget", "`200ms`", "what one run may cost writers in all"},
	}, []string{"step", "on_busy"}},
	{`step "passive"|"truncate"`, "`passive` drains the bulk and holds nobody up, `truncate` keeps writers waiting " +
		"for the tail.",
		[]Attribute{
			{"repeat", "`1`", "how often, unless it was complete before"},
			{"busy_timeout", "`0s`", "how long a truncate waits for readers and writers to leave"},
		}, nil},
	{"on_busy", "The pause after a run that bore no fruit doubles from `backoff` to `max`.", []Attribute{
		{"backoff", "`30s`", "the first pause"},
		{"max", "`30m`", "the longest"},
	}, nil},
	{`tune "NAME"`, "A number that is learned: `tune.NAME`; one named `stall` is the ladder's `stall_budget`.",
		[]Attribute{
			{"goal!", "", "a condition, judged after each run"},
			{"mode", "`suggest`", "`suggest`, `shadow`, `apply` or `freeze`"},
			{"start", "required, but for `stall`", "the value before anything is learned"},
			{"min", "a quarter of `start`", "the least"},
			{"max", "`start`", "the most"},
		}, nil},
	{`window "NAME"`, "Either a schedule, or a block `learn`.", []Attribute{
		{"cron", "", "five fields: when it opens"},
		{"duration", "", "for how long, `1m` to `7d`"},
		{"timezone", "`UTC`", "as `Europe/Berlin`"},
	}, []string{"learn"}},
	{"learn", "A window that is learned from when a signal is low.", []Attribute{
		{"signal!", "", "an expression, as `rate(wal.frames_written, \"1m\")`"},
		{"quantile", "`0.2`", "what share of the week counts as quiet"},
		{"min_history", "`72h`", "how much must have been seen"},
		{"fallback", "closed", "the window that holds until then"},
		{"except", "none", "windows during which it is closed"},
		{"timezone", "that of `fallback`, or `UTC`", "by whose clock the week goes"},
	}, nil},
}

// Function is one function of expressions.
type Function struct {
	Name  string
	Usage string
	Unit  measured.Unit // of its result; AnyUnit: that of its arguments, or none
	Doc   string
}

// UnitOf returns the unit of a function's result, AnyUnit if it depends on the arguments.
func UnitOf(function string) measured.Unit {
	for i := range Functions {
		if Functions[i].Name == function {
			return Functions[i].Unit
		}
	}
	return measured.AnyUnit
}

// Functions is every function of expressions.
var Functions = []Function{
	{"bytes", `bytes("64MB")`, measured.Bytes, "an amount of bytes; MB is 10⁶, MiB 2²⁰"},
	{"duration", `duration("1h30m")`, measured.Seconds, "a length of time; also `d` and `w`"},
	{"percent", `percent("15%")`, measured.Ratio, "a share, here 0.15"},
	{"human_bytes", "human_bytes(n)", measured.Text, "`104 MB`, for messages"},
	{"human_duration", "human_duration(n)", measured.Text, "`2m30s`, for messages"},
	{"min", "min(a, b, …)", measured.AnyUnit, "the least"},
	{"max", "max(a, b, …)", measured.AnyUnit, "the greatest"},
	{"abs", "abs(a)", measured.AnyUnit, "without its sign"},
	{"coalesce", "coalesce(a, b, …)", measured.AnyUnit, "the first that is known and not null"},
	{"try", "try(a, b, …)", measured.AnyUnit, "the first that can be evaluated"},
	{"format", `format("%s: %d", a, b)`, measured.Text, "as printf"},
	{"join", `join(", ", list)`, measured.Text, "texts in one"},
	{"regex", `regex("^v([0-9]+)", text)`, measured.AnyUnit, "what a pattern matches"},
	{"path_element", "path_element(path, i)", measured.Text, "the i-th name in a path; from its end if negative"},
	{"jsonencode", "jsonencode(value)", measured.Text, "as JSON"},
	{"toset", `toset(["a", "b"])`, measured.AnyUnit, "a list without its order and repetitions"},
	{"env", `env("NAME", default)`, measured.Text, "an environment variable"},
	{"file", `file("/path")`, measured.Text, "a file's text, without the line break at its end"},
	{"secret", "secret(text)", measured.Text, "the same text, shown nowhere"},
	{"rate", `rate(x, "5m")`, measured.AnyUnit, "what a counter rose by each second"},
	{"increase", `increase(x, "5m")`, measured.AnyUnit, "what a counter rose by"},
	{"delta", `delta(x, "5m")`, measured.AnyUnit, "the last value less the first"},
	{"avg_over", `avg_over(x, "5m")`, measured.AnyUnit, "the mean; of a truth the share of time"},
	{"min_over", `min_over(x, "5m")`, measured.AnyUnit, "the least"},
	{"max_over", `max_over(x, "5m")`, measured.AnyUnit, "the greatest"},
	{"p50_over", `p50_over(x, "1h")`, measured.AnyUnit, "the median"},
	{"p95_over", `p95_over(x, "1h")`, measured.AnyUnit, "the 95th percentile"},
	{"p99_over", `p99_over(x, "1h")`, measured.AnyUnit, "the 99th percentile"},
	{"quantile_over", `quantile_over(x, "1h", 0.9)`, measured.AnyUnit, "any quantile"},
	{"ewma", `ewma(x, "5m")`, measured.AnyUnit, "the mean with weights that halve every half window"},
	{"predict", `predict(x, "1h", "4h")`, measured.AnyUnit, "the line through the last hour, four hours on"},
	{"any_of", "any_of(window.a, window.b)", measured.WindowUnit, "open while one of them is"},
	{"all_of", "all_of(window.a, window.b)", measured.WindowUnit, "open while all of them are"},
	{"quiet", `quiet(x, 0.1, "24h")`, measured.WindowUnit, "open while x is at most that quantile of its last day"},
}

// Guard is one guard, with the reason for which it refuses.
type Guard struct{ Name, Doc string }

// Guards is every guard, in the order in which they are checked.
var Guards = []Guard{
	{"mode", "dry run"},
	{"paused", "an operator has paused actions; notices continue"},
	{"unless", "`unless` is true or unknown"},
	{"window", "the window is not open, and `max_defer` is not over"},
	{"cooldown", "it rests after a success"},
	{"backoff", "it rests after a run that bore no fruit"},
	{"hold_off", "the watch has just begun, or another policy has just acted on the database"},
	{"reader", "a reader has pinned the WAL for more than a second: TRUNCATE would stall every writer to wait for it"},
	{"stall", "the TRUNCATE is foreseen to cost more than `stall_budget`, and there is nothing for PASSIVE to do"},
	{"floor", "too soon, or too little, for the floors that no policy can undo"},
	{"turn", "another policy is at work on this database"},
}
