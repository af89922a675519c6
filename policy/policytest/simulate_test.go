package policytest

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/policy"
)

const tested = `
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
policy "shrink" {
  when     = wal.bytes > bytes("100MB")
  for      = "1m"
  window   = window.night
  cooldown = "10m"
  checkpoint {
    on_busy { backoff = "1m" }
  }
}
policy "drain" {
  databases = ["drained"]
  when      = checkpoint.backlog_bytes > bytes("10MB")
  checkpoint {
    step "passive" {}
  }
}
policy "tell" {
  when     = replica.lag > duration("1m")
  cooldown = "1h"
  notify   = [notifier.webhook.ops]
}
policy "drill" {
  databases = ["drilled"]
  when      = coalesce(replica.last_verified_age, duration("365d")) > duration("7d")
  cooldown  = "1h"
  verify {}
}
`

// mustParse parses policy blocks that may name two replicas, a notifier and a label.
func mustParse(t testing.TB, src string) *policy.Set {
	t.Helper()
	parser := hclparse.NewParser()
	f, diags := parser.ParseHCL([]byte(src), "test.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := f.Body.Content(&hcl.BodySchema{Blocks: policy.Blocks()})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	set, diags := policy.Parse(content.Blocks,
		&policy.Scope{Files: parser.Files(), Replicas: []string{"file.local", "s3.main"},
			Notifiers: []string{"webhook.ops"}, Labels: []string{"tier"}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return set
}

func parseTests(t *testing.T, src string) ([]*Test, hcl.Diagnostics) {
	t.Helper()
	set := mustParse(t, tested)
	f, diags := hclparse.NewParser().ParseHCL([]byte(src), "x_test.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return Parse(set, f.Body)
}

// night returns a test of a policy that starts when the window opens.
func night(name, rest string) string {
	return "test \"t\" {\n policy = \"" + name + "\"\n start = \"2026-05-05T02:00:00Z\"\n" + rest + "\n}"
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	const large = "database {\n wal = \"200MB\"\n}\n"
	const drained = "database {\n name = \"drained\"\n wal = \"20MB\"\n}\n"
	const replicated = "database {\n replicas = [replica.s3.main]\n}\n"
	tests := []struct{ name, policy, script string }{
		{"a truncation empties the WAL", "shrink", large + `during "1m" {}
			expect {
				runs  = 1
				phase = "cooldown"
				holds = wal.bytes == 0 && wal.resets == 1 && checkpoint.backlog_frames == 0 && checkpoint.stall > 0
			}`},
		{"writes grow it again", "shrink", large + `during "1m" {}
			during "100s" { write = "1MB" }
			expect { holds = wal.bytes > bytes("99MB") && wal.bytes < bytes("101MB") && rate(wal.frames_written, "1m") > 200 }`},
		{"a reader forbids it", "shrink", large + `during "10m" {
				write  = "1KB"
				reader = true
			}
			expect {
				runs       = 0
				refused_by = "reader"
				holds      = readers.active == 1 && readers.oldest_age > duration("9m")
			}`},
		{"a reader that came before the last write keeps its frames", "drain", drained + `during "1m" {
				write  = "1MB"
				reader = true
			}
			expect { holds = checkpoint.backlog_bytes > bytes("58MB") && wal.resets == 0 }`},
		{"a passive checkpoint keeps the file, the next write begins it anew", "drain", drained + `during "10s" {}
			expect {
				runs  = 1
				holds = wal.bytes == bytes("20MB") && checkpoint.backlog_frames == 0 && wal.resets == 0
			}
			during "10s" { write = "1KB" }
			expect { holds = wal.bytes == bytes("20MB") && wal.frames == 2 && wal.resets == 1 }`},
		{"the write lock makes it fail", "shrink", large + `during "1m" { write_lock = true }
			expect {
				runs  = 1
				phase = "backoff"
				holds = wal.bytes == bytes("200MB") && locks.writer_held
			}`},
		{"what cannot be read is not acted upon", "shrink", large + `during "10m" { readable = false }
			expect {
				runs       = 0
				refused_by = "none"
				phase      = "inactive"
				holds      = coalesce(wal.bytes, bytes("7MB")) == bytes("7MB")
			}`},
		{"outside the window", "shrink", large + `during "10s" {}
			during "4h" { readable = false }
			during "30m" {}
			expect { refused_by = "window" }`},
		{"a lagging replica", "tell", replicated + `during "1m" { replica_lag = "1m" }
			expect { runs = 0 }
			during "10s" { replica_lag = "5m" }
			expect {
				runs  = 1
				holds = replica.lag == duration("5m") && replica.healthy && replica["s3.main"].lag == replica.lag
			}`},
		{"a verification", "drill", "database {\n name = \"drilled\"\n replicas = [replica.s3.main]\n}\n" + `during "6h" {}
			expect {
				runs  = 1
				holds = replica.last_verified_age == duration("6h")
			}`},
		{"disk", "shrink", "database {\n disk = \"10GB\"\n}\n" + `during "10s" { disk_free = "1GB" }
			expect { holds = disk.free_ratio == percent("10%") && disk.free_bytes == bytes("1GB") }`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			parsed, diags := parseTests(t, night(test.policy, test.script))
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			for range 2 { // a test can be run again
				if r := parsed[0].Run(); len(r.Failures) > 0 {
					t.Errorf("%+v", r.Failures)
				}
			}
		})
	}
}

func TestSimulateFails(t *testing.T) {
	t.Parallel()
	parsed, diags := parseTests(t, night("shrink", `database {
  wal = "200MB"
}
during "1m" {}
expect {
  phase      = "armed"
  refused_by = "window"
  runs       = 0
  holds      = wal.bytes > bytes("1MB")
}
during "1m" {}
expect { runs = 0 }`))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	r := parsed[0].Run()
	if len(r.Failures) != 1 || r.Runs != 1 || r.Length.String() != "2m0s" {
		t.Fatalf("%+v", r)
	}
	f := r.Failures[0]
	if f.Place != (Place{"x_test.hcl", 8, 1}) || f.After.String() != "1m0s" || !strings.Contains(f.Reason, "just acted") {
		t.Errorf("%+v", f)
	}
	want := []Mismatch{{"phase", "armed", "cooldown"}, {"refused_by", "window", "none"}, {"runs", "0", "1"}}
	if len(f.Mismatches) != 4 || f.Mismatches[0] != want[0] || f.Mismatches[1] != want[1] || f.Mismatches[2] != want[2] ||
		!strings.HasPrefix(f.Mismatches[3].Got, "false: ") {
		t.Errorf("%+v", f.Mismatches)
	}
}

func TestParseTests(t *testing.T) {
	t.Parallel()
	const fine = "during \"1m\" {}\nexpect { runs = 0 }"
	tests := []struct {
		name, src, want string
		line            int
	}{
		{"unknown policy", night("shrimp", fine), `Did you mean "shrink"?`, 2},
		{"unknown attribute", night("shrink", "stepp = \"1s\"\n"+fine), `"step"`, 4},
		{"unknown block", night("shrink", "durin \"1m\" {}\n"+fine), `"during"`, 4},
		{"unknown in during", night("shrink", "during \"1m\" { wrte = 1 }\nexpect { runs = 0 }"), `"write"`, 4},
		{"unknown in expect", night("shrink", "during \"1m\" {}\nexpect { fase = 1 }"), `"phase"`, 5},
		{"unknown phase", night("shrink", "during \"1m\" {}\nexpect { phase = \"arm\" }"), `"armed"`, 5},
		{"unknown guard", night("shrink", "during \"1m\" {}\nexpect { refused_by = \"windows\" }"), `"window"`, 5},
		{"unknown name", night("shrink", "during \"1m\" {}\nexpect { holds = wal.byts > 1 }"), `"bytes"`, 5},
		{"mixed units", night("shrink", "during \"1m\" {}\nexpect { holds = wal.bytes > replica.lag }"), "Units do not match",
			5},
		{"no truth", night("shrink", "during \"1m\" {}\nexpect { holds = wal.bytes }"), "must be true or false", 5},
		{"unknown replica", night("shrink", "database { replicas = [replica.s3.mian] }\n"+fine), `"replica.s3.main"`, 4},
		{"unknown label", night("shrink", "database { labels = { teir = \"gold\" } }\n"+fine), `"tier"`, 4},
		{"bad length", night("shrink", "during \"soon\" {}\nexpect { runs = 0 }"), "must be a duration", 4},
		{"bad start", strings.Replace(night("shrink", fine), "T02:00:00Z", "", 1), "start must be as in", 3},
		{"null start", strings.Replace(night("shrink", fine), "\"2026-05-05T02:00:00Z\"", "null", 1), "start must be as in",
			3},
		{"no start", "test \"t\" {\n policy = \"shrink\"\n" + fine + "\n}", `"start" is required`, 1},
		{"expect first", night("shrink", "expect { runs = 0 }\n"+fine), "Nothing has happened", 4},
		{"no expect", night("shrink", "during \"1m\" {}"), "no expect block", 1},
		{"empty expect", night("shrink", "during \"1m\" {}\nexpect {}"), "at least one of", 5},
		{"null expect", night("shrink", "during \"1m\" {}\nexpect { phase = null }"), "at least one of", 5},
		{"not watched", night("drain", fine), "drained", 1},
		{"lag of no replica", night("shrink", "during \"1m\" { replica_lag = \"5m\" }\nexpect { runs = 0 }"),
			"no replica that could lag", 4},
		{"too long", night("shrink", "during \"360d\" {}\nexpect { runs = 0 }"), "Too long", 1},
		{"bad repeat", night("shrink", "repeat \"0\" {\n during \"1m\" {}\n}\n"+fine), "a number from 1 to 1000", 4},
		{"many repeats", night("shrink", "repeat \"1000\" {\n repeat \"1000\" {\n during \"1s\" {}\n}\n}\n"+fine),
			"1000000 spans", 4},
		{"repeated moment", night("shrink", "repeat \"2\" {\n during \"1m\" {}\n expect {\n at = \"1m\"\n runs = 0\n}\n}"),
			"At one time only", 6},
		{"rule of a moment", night("shrink", "during \"10s\" { never = wal.bytes > 0 }\n"+fine), "nothing is looked at", 4},
		{"rule of no truth", night("shrink", "during \"1m\" { never = wal.bytes }\n"+fine), "must be true or false", 4},
		{"duplicate", night("shrink", fine) + "\n" + night("shrink", fine), "already defined", 7},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, diags := parseTests(t, test.src)
			if !diags.HasErrors() {
				t.Fatal("no error")
			}
			for _, d := range diags {
				if strings.Contains(d.Summary+" "+d.Detail, test.want) && d.Subject != nil && d.Subject.Start.Line == test.line &&
					d.Subject.Start.Column > 0 {
					return
				}
			}
			t.Errorf("got %v, want %q in line %d", diags, test.want, test.line)
		})
	}
}

// What can go wrong: applications that checkpoint, readers that come and go, slow disks,
// actions that fail or take long.
func TestSimulateHardships(t *testing.T) {
	t.Parallel()
	const large = "database {\n wal = \"200MB\"\n}\n"
	const replicated = "database {\n replicas = [replica.s3.main]\n}\n"
	for _, test := range []struct{ name, policy, script string }{
		{"an application that checkpoints keeps its WAL", "drain", `never = wal.bytes > bytes("5MB")
			database {
				name           = "drained"
				autocheckpoint = "4MB"
			}
			during "1h" { write = "1MB" }
			expect {
				runs  = 0
				holds = wal.resets > 800
			}`},
		{"but not behind a reader", "drain", `database {
				name           = "drained"
				autocheckpoint = "4MB"
			}
			during "1m" {
				write  = "1MB"
				reader = true
			}
			expect { holds = wal.bytes > bytes("58MB") && checkpoint.backlog_bytes > bytes("58MB") }`},
		{"readers that come and go", "shrink", large + `during "65s" {
				write        = "1KB"
				reader_every = "1m"
				reader_for   = "20s"
			}
			expect {
				at    = "30s"
				holds = readers.active == 0
			}
			expect {
				at    = "10s"
				holds = readers.active == 1
			}
			expect { holds = readers.active == 1 }`},
		{"a disk that is too slow to sync", "shrink", large + `during "1m" { sync = "1s" }
			expect {
				runs  = 1
				phase = "backoff"
				holds = wal.bytes == bytes("200MB") && checkpoint.stall == duration("200ms")
			}`},
		{"a checkpoint that fails", "shrink", large + `during "1m" { fails = ["checkpoint"] }
			expect {
				runs  = 1
				phase = "backoff"
			}`},
		{"an action that takes its time", "drill", `database {
				name     = "drilled"
				replicas = [replica.s3.main]
			}
			during "10m" { takes = "5m" }
			expect {
				at    = "4m"
				phase = "running"
				runs  = 1
			}
			expect {
				phase = "cooldown"
				runs  = 0
			}`},
		{"an action that fails", "drill", `database {
				name     = "drilled"
				replicas = [replica.s3.main]
			}
			during "20s" { fails = ["verify"] }
			expect { phase = "backoff" }`},
		{"what the replicas lack", "tell", replicated + `during "10m" {
				pending         = "64MB"
				replica_healthy = false
			}
			expect { holds = replica.pending_bytes == bytes("64MB") && !replica.healthy }`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tests, diags := parseTests(t, night(test.policy, test.script))
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			for _, f := range tests[0].Run().Failures {
				t.Errorf("line %d after %s: %+v: %s", f.Place.Line, f.After, f.Mismatches, f.Reason)
			}
		})
	}
}

// A broken always or never is reported once, with its place and the values.
func TestSimulateRules(t *testing.T) {
	t.Parallel()
	tests, diags := parseTests(t, night("shrink", `always = wal.bytes < bytes("150MB")
		never = max_over(wal.bytes, "1m") > bytes("1GB")
		during "150s" { write = "2MB" }`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r := tests[0].Run()
	if len(r.Failures) != 1 || r.Failures[0].Mismatches[0].Attribute != "always" || r.Failures[0].Place.Line != 4 ||
		r.Failures[0].After != 80*1e9 {
		t.Errorf("%+v", r.Failures)
	}
	if r.MaxWAL < 190e6 || r.MaxStall == 0 || r.Stalls < r.MaxStall {
		t.Errorf("WAL up to %d, stalls %s of %s", r.MaxWAL, r.MaxStall, r.Stalls)
	}
}

// The growth behind a reader that stays is reported apart from what policies could have
// prevented.
func TestSimulatePinned(t *testing.T) {
	t.Parallel()
	tests, diags := parseTests(t, night("drain", `database { name = "drained" }
		during "1h" { write = "100KB" }
		during "1h" {
			write  = "100KB"
			reader = true
		}
		during "1h" { write = "100KB" }
		expect { phase = "inactive" }`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r := tests[0].Run()
	var said strings.Builder
	r.Write(&said)
	if r.MaxWAL < 300e6 || r.FreeWAL > 400e6 || r.Pinned < 58*time.Minute || r.Pinned > time.Hour ||
		!strings.Contains(said.String(), "readers kept the WAL") {
		t.Errorf("WAL up to %d, otherwise %d, pinned for %s: %s", r.MaxWAL, r.FreeWAL, r.Pinned, &said)
	}
}

// A repeat block happens as often as it says. The rules of a during block apply within it
// only.
func TestSimulateRepeats(t *testing.T) {
	t.Parallel()
	tests, diags := parseTests(t, night("shrink", `repeat "3" {
			repeat "2" {
				during "10m" { write = "200KB" }
			}
			expect { runs = 2 }
			during "20m" {
				write  = "1KB"
				always = wal.bytes < bytes("40MB")
			}
		}
		expect { runs = 0 }
		during "10m" {
			write = "1MB"
			never = wal.bytes > bytes("40MB")
		}`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r := tests[0].Run()
	if len(r.Failures) != 1 || r.Failures[0].Mismatches[0].Attribute != "never" || r.Length != 130*time.Minute {
		t.Errorf("%s: %+v", r.Length, r.Failures)
	}
}

// The coverage names what the tests have not seen.
func TestCoverage(t *testing.T) {
	t.Parallel()
	tests, diags := parseTests(t, night("shrink", `database { wal = "200MB" }
		during "1m" {}
		expect { runs = 1 }`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	c := NewCoverage(tests[0].set)
	tests[0].RunCovered(c)
	gaps := strings.Join(c.Gaps(), "\n")
	for _, want := range []string{"policy shrink was never refused by reader", "policy tell never acted",
		"policy drill, when: `coalesce(replica.last_verified_age, duration(\"365d\")) > duration(\"7d\")` was never true"} {
		if !strings.Contains(gaps, want) {
			t.Errorf("%q is missing in\n%s", want, gaps)
		}
	}
	for _, wrong := range []string{"policy shrink never acted",
		"shrink, when: `wal.bytes > bytes(\"100MB\")` was never true",
		"paused", "by unless"} {
		if strings.Contains(gaps, wrong) {
			t.Errorf("%q is in\n%s", wrong, gaps)
		}
	}
}

// BenchmarkFortnight simulates a fortnight of one database, evaluated every ten seconds.
func BenchmarkFortnight(b *testing.B) {
	set := policy.Defaults()
	f, _ := hclparse.NewParser().ParseHCL([]byte(`test "t" {
  policy = "shrink-wal"
  start  = "2026-05-05T02:00:00Z"
  always = wal.bytes < bytes("1GB")
  during "336h" { write = "300KB" }
}`), "x_test.hcl")
	tests, diags := Parse(set, f.Body)
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	for b.Loop() {
		tests[0].Run()
	}
}
