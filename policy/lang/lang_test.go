package lang

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/collector"
)

var start = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

func scope() *Scope {
	return &Scope{Replicas: []string{"file.local", "s3.main"}, Labels: []string{"tier"},
		Variables: map[string]cty.Value{"local": cty.ObjectVal(map[string]cty.Value{
			"zero": cty.Zero, "none": cty.NullVal(cty.DynamicPseudoType)})}}
}

// compile compiles an expression as if it began in the second line of a file.
func compile(p *Program, src string, want Unit) (hclsyntax.Expression, hcl.Diagnostics) {
	x, diags := hclsyntax.ParseExpression([]byte(src), "test.hcl", hcl.Pos{Line: 2, Column: 1})
	if diags.HasErrors() {
		return nil, diags
	}
	return p.Compile(x, want)
}

// sample returns a healthy sample with a WAL of the given size, nothing of it backfilled.
func sample(at time.Time, walBytes int64) *collector.Sample {
	return &collector.Sample{
		At: at, DB: "app", Path: "/srv/app/app.db", State: collector.StateUp,
		Database: collector.Database{SizeBytes: 1e9, PageSize: 4096, Pages: 244140, EngineVersion: "3.46.1"},
		WAL: collector.WAL{Known: true, SizeBytes: walBytes, PageSize: 4096, Frames: uint32(walBytes / 4096),
			LagSince: at.Add(-time.Minute), Restarted: start.Add(-time.Hour)},
		Disk: collector.Disk{Known: true, FreeBytes: 4e9, SizeBytes: 10e9},
	}
}

func TestCheckExpressions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, when string
		severity   hcl.DiagnosticSeverity // DiagInvalid: no diagnostic
		want       string
	}{
		{"F1_good", `wal.bytes > bytes("1MB")`, hcl.DiagInvalid, ""},
		{"F1_unknown_group", `wall.bytes > 0`, hcl.DiagError, `Did you mean "wal"?`},
		{"F1_unknown_name", `wal.byts > 0`, hcl.DiagError, `Did you mean "bytes"?`},
		{"F1_unknown_name_right_of_unknown", `wal.bytes > 0 && wal.framez > 1`, hcl.DiagError, `Did you mean "frames"?`},
		{"F1_unknown_function", `wal.bytes > byte("1MB")`, hcl.DiagError, `Did you mean "bytes"?`},
		{"F1_unknown_replica", `replica["s3.mian"].lag > duration("1m")`, hcl.DiagError, `Did you mean "s3.main"?`},
		{"F1_unknown_label", `db.labels.teir == "gold"`, hcl.DiagError, `Did you mean "tier"?`},
		{"F1_unknown_window", `window.night.open`, hcl.DiagError, `There is no window.night`},
		{"F1_text_for_number", `db.name > 5`, hcl.DiagError, "A number is needed"},
		{"F1_number_for_truth", `wal.bytes`, hcl.DiagError, "must be true or false, it is bytes"},
		{"F1_truth_for_number", `locks.writer_held > 1`, hcl.DiagError, "A number is needed"},
		{"F1_beyond_a_name", `wal.bytes.foo > 1`, hcl.DiagError, "nothing can follow"},
		{"minus_in_a_name", `wal.bytes-5 > 0`, hcl.DiagError, "`wal.bytes - 5`"},
		{"bare_bytes", `wal.bytes > 100`, hcl.DiagWarning, `did you mean bytes("100MB")?`},
		{"bare_bytes_on_the_left", `100 < wal.bytes`, hcl.DiagWarning, `did you mean bytes("100MB")?`},
		{"bare_seconds", `replica.lag > 30`, hcl.DiagWarning, `did you mean duration("30s")?`},
		{"ratio_above_one", `disk.free_ratio < 10`, hcl.DiagWarning, `did you mean percent("10%")?`},
		{"zero_needs_no_unit", `wal.bytes > 0`, hcl.DiagInvalid, ""},
		{"count_needs_no_unit", `wal.frames > 100`, hcl.DiagInvalid, ""},
		{"bytes_against_seconds", `wal.bytes > replica.lag`, hcl.DiagError,
			"The left side is bytes, the right side is seconds."},
		{"bytes_against_duration", `wal.bytes > duration("1m")`, hcl.DiagError, "bytes"},
		{"bytes_plus_seconds", `wal.bytes + replica.lag > bytes("1MB")`, hcl.DiagError, "Units do not match"},
		{"bytes_by_bytes", `wal.bytes / db.bytes > 0.5`, hcl.DiagInvalid, ""},
		{"bytes_scaled", `wal.bytes > db.bytes * 0.5`, hcl.DiagInvalid, ""},
		{"max_of_mixed", `max(wal.bytes, replica.lag) > 0`, hcl.DiagError, "One part is bytes, another is seconds."},
		{"through_over_time", `max_over(wal.bytes, "5m") > replica.lag`, hcl.DiagError, "bytes"},
		{"rate_is_free", `rate(wal.frames_written, "1m") > 100`, hcl.DiagInvalid, ""},
		{"bad_amount", `wal.bytes > bytes("1 apple")`, hcl.DiagError, "not an amount of bytes"},
		{"bad_duration", `replica.lag > duration("soon")`, hcl.DiagError, "not a duration"},
		{"bad_window_of_time", `rate(wal.frames, "0s") > 1`, hcl.DiagError, "between 1s and 10d"},
		{"missing_window_of_time", `rate(wal.frames) > 1`, hcl.DiagError, "needs 2 arguments"},
		{"quantile_out_of_range", `quantile_over(wal.bytes, "1h", 2) > bytes("1MB")`, hcl.DiagError, "from 0 to 1"},
		{"over_time_of_text", `max_over(db.name, "1h") > 1`, hcl.DiagError, "needs a number"},
		{"over_time_of_one_replica", `max_over(replica["s3.main"].lag, "1h") > duration("1s")`, hcl.DiagError,
			"past of replica is not kept"},
		{"over_time_nested_twice", `max_over(rate(wal.frames, "1m"), "1h") > 1`, hcl.DiagInvalid, ""},
		{"over_time_nested_thrice", `max_over(max_over(rate(wal.frames, "1m"), "1h"), "1h") > 1`, hcl.DiagError,
			"Too deeply nested"},
		{"never_equal", `db.name == 5`, hcl.DiagWarning, "compares text with a plain number"},
		{"division_by_zero", `wal.bytes / 0 > bytes("1MB")`, hcl.DiagError, "by zero"},
		{"F1_rest_by_zero", `wal.frames % 0 == 1`, hcl.DiagError, "by zero"},
		{"F1_division_by_what_is_zero", `wal.bytes / (5 - 5) > bytes("1MB")`, hcl.DiagError, "by zero"},
		{"F1_division_by_a_zero_local", `wal.bytes / local.zero > bytes("1MB")`, hcl.DiagError, "by zero"},
		{"F1_null", `wal.bytes > null`, hcl.DiagError, "This is null"},
		{"F1_null_alone", `5 > null`, hcl.DiagError, "This is null"},
		{"F1_local_that_is_null", `local.none < wal.bytes`, hcl.DiagError, "This is null"},
		{"equal_to_null", `db.labels.tier == null`, hcl.DiagInvalid, ""},
		{"F1_bad_pattern", `regex("^v(", db.name) == "a"`, hcl.DiagError, "missing closing )"},
		{"pattern_that_is_measured", `regex(db.name, "v1") == "a"`, hcl.DiagInvalid, ""},
		{"wide_format", `format("%99999999d", 1) == ""`, hcl.DiagError, "widths above 999"},
		{"F3_for_explosion", `length([for a in "x": 1]) > 0`, hcl.DiagError, "no function"},
		{"bracketed", `(wal.bytes > bytes("1MB")) ? true : false`, hcl.DiagInvalid, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, diags := compile(NewProgram(scope()), test.when, Bool)
			if test.severity == hcl.DiagInvalid {
				if len(diags) > 0 {
					t.Fatalf("diagnostics: %v", diags)
				}
				return
			}
			if len(diags) == 0 {
				t.Fatal("no diagnostic")
			}
			d := diags[0]
			if d.Severity != test.severity || !strings.Contains(d.Summary+" "+d.Detail, test.want) {
				t.Errorf("got %v %s: %s; want %v with %q", d.Severity, d.Summary, d.Detail, test.severity, test.want)
			}
			if d.Subject == nil || d.Subject.Filename != "test.hcl" || d.Subject.Start.Line != 2 {
				t.Errorf("place %v, want line 2", d.Subject)
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	for _, when := range []string{
		`bytes("64MB") == 64000000`, `bytes("1MiB") == 1048576`, `bytes(5) == 5`, `duration("1d12h") == 129600`,
		`duration("1w") == 604800`,
		`duration("1.5h") == 5400`, `duration(90) == 90`, `percent("15%") == 0.15`, `human_bytes(1500000) == "1.5 MB"`,
		`human_duration(5400) == "1h30m"`,
		`human_duration(600) == "10m00s"`, `human_duration(259200) == "3.0d"`, `human_duration(0.0125) == "12.5ms"`,
		`min(3, 1, 2) == 1`, `max(3, 1) == 3`, `abs(-4) == 4`,
		`coalesce(null, 3) == 3`, `try(db.labels.tier, "none") == null`, `format("%s-%d", "a", 5) == "a-5"`,
		`join("-", ["a", "b"]) == "a-b"`,
		`regex("[a-z]+", "12abc") == "abc"`, `path_element("/srv/tenants/acme/data.db", -2) == "acme"`,
		`path_element("/srv/x", 0) == "srv"`,
		`jsonencode({a = 1}) == "{\"a\":1}"`, `db.name == "app" && db.path == "/srv/app/app.db" && db.engine_version == ` +
			`"3.46.1"`, `wal.age == duration("1h")`,
		`checkpoint.lag == duration("1m")`, `checkpoint.backlog_bytes > bytes("199MB")`, `disk.free_ratio == percent("40%")`,
	} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			p := NewProgram(scope())
			x, diags := compile(p, when, Bool)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			e := p.At(Moment{Now: start, Sample: sample(start, 200e6)})
			if got, why := e.Truth(x); got != True {
				t.Errorf("%s %s\n%s", got, why, e.Tree(x))
			}
		})
	}
}
