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
	{"engine", "At most one per configuration.", []Attribute{
		{"mode", "`enforce`", "`dry_run`: every policy only decides and reports"},
	}, nil},
	{`policy "NAME"`, "A condition, and one action: a block `checkpoint`, `snapshot`, `sync` or `verify`, or " +
		"`notify` alone.",
		[]Attribute{
			{"when!", "", "the condition under which the policy acts"},
			{"for", "`0s`", "how long the condition must have been true without a break; time without measurements " +
				"does not count"},
			{"until", "one run is enough", "once the policy has acted, it repeats its action at the pace of `on_busy` " +
				"until this is true; only with `checkpoint`"},
			{"unless", "", "the policy does not act while this is true or unknown"},
			{"window", "any time", "the policy acts only while this window is open"},
			{"max_defer", "never", "after waiting this long for its window, the policy acts outside it"},
			{"cooldown", "`1m` for checkpoints, `1h` for the rest", "how long it pauses after a success, at least `1s`"},
			{"hold_off", "none", "how long the policy waits after measuring began (a start, or a database that could not " +
				"be read before) and after another policy acted on the database, until what has just changed can be judged"},
			{"mode", "`enforce`", "`dry_run`: the policy only decides and reports"},
			{"databases", "all", "patterns of database names, as `[\"tenant-*\"]`"},
			{"exclude", "none", "patterns of database names that are left out"},
			{"labels", "any", "labels the databases must carry, as `{ tier = \"gold\" }`"},
			{"priority", "`0`", "if two policies could act, the higher one does; with equal priorities, the first in the file"},
			{"severity", "`warning`", "`info`, `warning`, `critical`"},
			{"notify", "nobody", "whom to tell, as `[notifier.slack.ops]`; together with an action, its outcome is sent"},
			{"message", "a sentence made from `when`", "what to tell"},
			{"for_each", "one policy", "a list of texts or an object: makes one policy for each element, named `NAME-KEY`"},
		}, []string{"checkpoint", "snapshot", "sync", "verify", "tune"}},
	{"checkpoint", "A ladder of steps. Without steps: passive three times, then truncate.", []Attribute{
		{"stall_budget", "`200ms`", "how long one run may keep writers waiting in total"},
	}, []string{"step", "on_busy"}},
	{`step "passive"|"truncate"`, "`passive` copies most of the WAL and keeps nobody waiting; `truncate` empties the " +
		"WAL and keeps writers waiting while it copies the rest.",
		[]Attribute{
			{"repeat", "`1`", "how often the step is repeated, unless everything was copied before"},
			{"busy_timeout", "`0s`", "how long a truncate waits for readers and writers to finish"},
		}, nil},
	{"on_busy", "The pause after a run without effect; it doubles each time, from `backoff` to `max`.", []Attribute{
		{"backoff", "`30s`", "the first pause"},
		{"max", "`30m`", "the longest pause"},
	}, nil},
	{`tune "NAME"`, "A number that is learned: `tune.NAME`; one named `stall` becomes the ladder's `stall_budget`.",
		[]Attribute{
			{"goal!", "", "a condition, judged after each run"},
			{"mode", "`suggest`", "`suggest`, `shadow`, `apply` or `freeze`"},
			{"start", "required, except for `stall`", "the value before anything is learned"},
			{"min", "a quarter of `start`", "the smallest value"},
			{"max", "`start`", "the largest value"},
		}, nil},
	{`window "NAME"`, "Either a schedule, or a block `learn`.", []Attribute{
		{"cron", "", "when it opens, as the five fields of cron"},
		{"duration", "", "how long it stays open, `1m` to `7d`"},
		{"timezone", "`UTC`", "such as `Europe/Berlin`"},
	}, []string{"learn"}},
	{"learn", "A window that is learned: the times at which a signal is usually low.", []Attribute{
		{"signal!", "", "an expression, such as `rate(wal.frames_written, \"1m\")`"},
		{"quantile", "`0.2`", "the share of the week that counts as quiet"},
		{"min_history", "`72h`", "how much history is needed before the learned window is used"},
		{"fallback", "closed", "the window that is used until then"},
		{"except", "none", "windows during which it is closed"},
		{"timezone", "that of `fallback`, or `UTC`", "the time zone of the learned week"},
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
	{"bytes", `bytes("64MB")`, measured.Bytes, "a number of bytes; MB is 10⁶, MiB is 2²⁰"},
	{"duration", `duration("1h30m")`, measured.Seconds, "a length of time; also `d` and `w`"},
	{"percent", `percent("15%")`, measured.Ratio, "a share, here 0.15"},
	{"human_bytes", "human_bytes(n)", measured.Text, "`104 MB`, for messages"},
	{"human_duration", "human_duration(n)", measured.Text, "`2m30s`, for messages"},
	{"min", "min(a, b, …)", measured.AnyUnit, "the smallest"},
	{"max", "max(a, b, …)", measured.AnyUnit, "the largest"},
	{"abs", "abs(a)", measured.AnyUnit, "the absolute value"},
	{"coalesce", "coalesce(a, b, …)", measured.AnyUnit, "the first that is known and not null"},
	{"try", "try(a, b, …)", measured.AnyUnit, "the first that can be evaluated"},
	{"format", `format("%s: %d", a, b)`, measured.Text, "as printf"},
	{"join", `join(", ", list)`, measured.Text, "the texts of a list, joined"},
	{"regex", `regex("^v([0-9]+)", text)`, measured.AnyUnit, "what a pattern matches"},
	{"path_element", "path_element(path, i)", measured.Text, "the i-th name in a path; from its end if negative"},
	{"jsonencode", "jsonencode(value)", measured.Text, "as JSON"},
	{"toset", `toset(["a", "b"])`, measured.AnyUnit, "a list without its order and repetitions"},
	{"env", `env("NAME", default)`, measured.Text, "an environment variable"},
	{"file", `file("/path")`, measured.Text, "a file's text, without the line break at its end"},
	{"secret", "secret(text)", measured.Text, "the same text, shown nowhere"},
	{"rate", `rate(x, "5m")`, measured.AnyUnit, "how much a counter increased per second"},
	{"increase", `increase(x, "5m")`, measured.AnyUnit, "how much a counter increased"},
	{"delta", `delta(x, "5m")`, measured.AnyUnit, "the last value minus the first"},
	{"avg_over", `avg_over(x, "5m")`, measured.AnyUnit, "the mean; of a condition, the share of time it was true"},
	{"min_over", `min_over(x, "5m")`, measured.AnyUnit, "the smallest value"},
	{"max_over", `max_over(x, "5m")`, measured.AnyUnit, "the largest value"},
	{"p50_over", `p50_over(x, "1h")`, measured.AnyUnit, "the median"},
	{"p95_over", `p95_over(x, "1h")`, measured.AnyUnit, "the 95th percentile"},
	{"p99_over", `p99_over(x, "1h")`, measured.AnyUnit, "the 99th percentile"},
	{"quantile_over", `quantile_over(x, "1h", 0.9)`, measured.AnyUnit, "any quantile"},
	{"ewma", `ewma(x, "5m")`, measured.AnyUnit, "the mean, with weights that halve with every half window of age"},
	{"predict", `predict(x, "1h", "4h")`, measured.AnyUnit, "the value in four hours if this trend continues"},
	{"any_of", "any_of(window.a, window.b)", measured.WindowUnit, "open while one of them is"},
	{"all_of", "all_of(window.a, window.b)", measured.WindowUnit, "open while all of them are"},
	{"quiet", `quiet(x, 0.1, "24h")`, measured.WindowUnit, "open while x is in the lowest tenth of its last 24 hours"},
}

// Guard is one guard, with the reason why it keeps a policy from acting.
type Guard struct{ Name, Doc string }

// Guards is every guard, in the order in which they are checked.
var Guards = []Guard{
	{"mode", "dry run"},
	{"paused", "an operator has paused actions; notices continue"},
	{"unless", "`unless` is true or unknown"},
	{"window", "the window is not open, and `max_defer` has not passed"},
	{"cooldown", "the policy pauses after a success"},
	{"backoff", "the policy pauses after a run without effect"},
	{"hold_off", "measuring has just begun, or another policy has just acted on the database"},
	{"reader", "a reader has pinned the WAL for more than a second: TRUNCATE would stall every writer to wait for it"},
	{"stall", "the TRUNCATE would probably keep writers waiting longer than `stall_budget`, and PASSIVE has nothing " +
		"left to do"},
	{"floor", "it would be too soon, or the WAL is too small: these limits hold for every policy"},
	{"turn", "another policy is acting on this database"},
}
