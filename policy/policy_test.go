package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy/stalls"
)

var start = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// parse parses policy blocks that may name two replicas, a notifier and a label.
func parse(src string) (*Set, hcl.Diagnostics) {
	parser := hclparse.NewParser()
	f, diags := parser.ParseHCL([]byte(src), "test.hcl")
	if diags.HasErrors() {
		return nil, diags
	}
	content, diags := f.Body.Content(&hcl.BodySchema{Blocks: Blocks()})
	if diags.HasErrors() {
		return nil, diags
	}
	return Parse(content.Blocks, &Scope{Files: parser.Files(), Replicas: []string{"file.local", "s3.main"},
		Notifiers: []string{"webhook.ops"}, Labels: []string{"tier"}})
}

func mustParse(t testing.TB, src string) *Set {
	t.Helper()
	set, diags := parse(src)
	if diags.HasErrors() {
		t.Fatalf("parse: %v", diags)
	}
	return set
}

// sample returns a healthy sample with a WAL of the given size, nothing of it backfilled.
func sample(at time.Time, walBytes int64) *collector.Sample {
	frames := uint32(walBytes / 4096)
	return &collector.Sample{
		At: at, DB: "app", Path: "/srv/app/app.db", State: collector.StateUp,
		Database: collector.Database{SizeBytes: 1e9, PageSize: 4096, Pages: 244140, EngineVersion: "3.46.1"},
		WAL: collector.WAL{Known: true, SizeBytes: walBytes, PageSize: 4096, Frames: frames,
			LagSince: at.Add(-time.Minute), Restarted: start.Add(-time.Hour)},
		Disk: collector.Disk{Known: true, FreeBytes: 4e9, SizeBytes: 10e9},
	}
}

// world evaluates a set of policies over time, as the watchdog does.
type world struct {
	t      testing.TB
	set    *Set
	now    time.Time
	states map[string]PolicyState
	hist   *History
	last   Decision
}

func newWorld(t testing.TB, src string) *world {
	set := mustParse(t, src)
	return &world{t: t, set: set, now: start, hist: set.NewHistory()}
}

// tick advances the clock, evaluates a sample of that moment and returns the
// decision on the first policy.
func (w *world) tick(d time.Duration, edit func(*collector.Sample)) PolicyDecision {
	w.now = w.now.Add(d)
	s := sample(w.now, 200e6)
	if edit != nil {
		edit(s)
	}
	w.hist.Add(s)
	w.last = w.set.Evaluate(Input{Now: w.now, Sample: s, History: w.hist, Gap: 5 * time.Minute}, w.states)
	w.states = w.last.Next
	return w.last.Policies[0]
}

// finish ends the running action of the first policy.
func (w *world) finish(o checkpoint.Outcome) {
	p := w.set.Policies[0]
	w.states[p.Name] = w.set.Finished(w.states[p.Name], p, w.now,
		ActionResult{Outcome: o, WriterStall: 10 * time.Millisecond})
}

const shrink = `
policy "shrink" {
  when     = wal.bytes > bytes("100MB")
  for      = "2m"
  cooldown = "30m"
  checkpoint {}
}`

func TestEvaluatePhases(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shrink)
	small := func(s *collector.Sample) { s.WAL.SizeBytes = 1e6 }
	want := func(d PolicyDecision, phase Phase, refused Guard, acts bool) {
		t.Helper()
		if d.Phase != phase || d.Refused != refused || (w.last.Action != nil) != acts {
			t.Fatalf("at %s: phase %s refused %q acts %v (%s), want %s %q %v", w.now.Format(time.TimeOnly), d.Phase, d.Refused,
				w.last.Action != nil, d.Reason, phase, refused, acts)
		}
	}
	want(w.tick(0, small), Inactive, GuardNone, false)
	d := w.tick(time.Second, nil)
	want(d, Pending, GuardNone, false)
	if got, want := d.Earliest, w.now.Add(2*time.Minute); !got.Equal(want) {
		t.Errorf("earliest %s, want %s", got, want)
	}
	want(w.tick(119*time.Second, nil), Pending, GuardNone, false)
	want(w.tick(time.Second, nil), Running, GuardNone, true)
	if a := w.last.Action; a.Kind != ActCheckpoint || a.Checkpoint.StallBudget != checkpoint.DefaultStall ||
		!strings.Contains(a.Why, "wal.bytes = 200 MB") {
		t.Errorf("action %+v", a)
	}
	want(w.tick(time.Second, nil), Running, GuardNone, false) // still at work: nothing new begins
	w.finish(checkpoint.OutcomeTruncated)
	want(w.tick(time.Second, small), Cooldown, GuardNone, false)
	want(w.tick(2*time.Minute, nil), Cooldown, GuardNone, false)
	d = w.tick(2*time.Minute, nil)
	want(d, Cooldown, GuardCooldown, false)
	want(w.tick(4*time.Minute, nil), Cooldown, GuardCooldown, false)
	if !d.Earliest.Equal(w.states["shrink"].ReadyAt) {
		t.Errorf("earliest %s, want the end of the cooldown %s", d.Earliest, w.states["shrink"].ReadyAt)
	}
	for w.now.Before(w.states["shrink"].ReadyAt.Add(-4 * time.Minute)) {
		want(w.tick(4*time.Minute, nil), Cooldown, GuardCooldown, false)
	}
	want(w.tick(4*time.Minute, nil), Running, GuardNone, true)
}

func TestEvaluateBackoffDoubles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when = wal.bytes > bytes("100MB")
  checkpoint {
    on_busy {
      backoff = "10s"
      max     = "30s"
    }
  }
}`)
	for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second} {
		if w.tick(time.Second, nil); w.last.Action == nil {
			t.Fatalf("no action: %s", w.last.Policies[0].Reason)
		}
		w.finish(checkpoint.OutcomeWriterBusy)
		if got := w.states["p"].ReadyAt.Sub(w.now); got != pause {
			t.Errorf("pause %s, want %s", got, pause)
		}
		if d := w.tick(pause-time.Second, nil); d.Refused != GuardBackoff {
			t.Errorf("refused by %q, want backoff", d.Refused)
		}
	}
	w.tick(time.Second, nil)
	before := w.states["p"].Attempt
	w.finish(checkpoint.OutcomeContended)
	if got := w.states["p"]; got.Attempt != before || got.ReadyAt.Sub(w.now) != MinCheckpointInterval {
		t.Errorf("contended counts as attempt %d (was %d), pause %s", got.Attempt, before, got.ReadyAt.Sub(w.now))
	}
}

func TestEvaluateUntil(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when     = wal.bytes > bytes("100MB")
  until    = wal.bytes < bytes("8MB")
  cooldown = "1h"
  checkpoint {
    on_busy { backoff = "10s" }
  }
}`)
	w.tick(0, nil)
	w.finish(checkpoint.OutcomeTruncated)
	half := func(s *collector.Sample) { s.WAL.SizeBytes = 50e6 } // below when, not yet at until
	if d := w.tick(5*time.Second, half); d.Phase != Backing || d.When != True || d.Refused != GuardBackoff {
		t.Fatalf("engaged: %s %s %q", d.Phase, d.When, d.Refused)
	}
	if w.tick(6*time.Second, half); w.last.Action == nil {
		t.Fatalf("does not continue: %s", w.last.Policies[0].Reason)
	}
	w.finish(checkpoint.OutcomeTruncated)
	if d := w.tick(time.Second, func(s *collector.Sample) { s.WAL.SizeBytes = 0 }); d.When != False ||
		w.states["p"].Engaged || d.Phase != Cooldown {
		t.Fatalf("goal reached: when %s, engaged %v, phase %s", d.When, w.states["p"].Engaged, d.Phase)
	}
	if d := w.tick(30*time.Minute, nil); d.Refused != GuardCooldown {
		t.Errorf("refused by %q, want cooldown", d.Refused)
	}
}

func TestEvaluateGuards(t *testing.T) {
	t.Parallel()
	with := func(attrs string) string {
		return `window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
policy "p" {
  when = wal.bytes > bytes("100MB")
  ` + attrs + `
}`
	}
	pinned := func(s *collector.Sample) {
		s.Readers = collector.Readers{Active: 1, OldestFrame: 10, OldestPID: 4711, OldestCommand: "python3",
			PinnedSince: s.At.Add(-time.Minute)}
	}
	tests := []struct {
		name, attrs string
		edit        func(*collector.Sample)
		want        Guard
		reason      string
	}{
		{"dry run comes first", "mode = \"dry_run\"\nunless = wal.frames > 0\nwindow = window.night\ncheckpoint {}", pinned,
			GuardMode, "dry run"},
		{"unless before window", "unless = wal.frames > 0\nwindow = window.night\ncheckpoint {}", pinned, GuardUnless,
			"holds"},
		{"unknown unless refuses", "unless = checkpoint.stall > duration(\"1s\")\ncheckpoint {}", nil, GuardUnless,
			"unknown"},
		{"window before reader", "window = window.night\ncheckpoint {}", pinned, GuardWindow, "opens in 14h00m"},
		{"reader is named", "checkpoint {}", pinned, GuardReader, "reader 4711 (python3)"},
		{"a short reader is not", "checkpoint {}", func(s *collector.Sample) { pinned(s); s.Readers.PinnedSince = s.At },
			GuardNone, ""},
		{"a passive ladder minds no reader", "checkpoint {\nstep \"passive\" {}\n}", pinned, GuardNone, ""},
		{"floor", "priority = 1\ncheckpoint {}", func(s *collector.Sample) { s.WAL.SizeBytes = 100<<20 + 1 }, GuardNone, ""},
		{"sync minds no reader", "sync {}", pinned, GuardNone, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, with(test.attrs))
			d := w.tick(0, test.edit)
			if d.Refused != test.want || !strings.Contains(d.Reason, test.reason) {
				t.Errorf("refused by %q (%s), want %q (%s)", d.Refused, d.Reason, test.want, test.reason)
			}
			if acts := w.last.Action != nil; acts != (test.want == GuardNone) {
				t.Errorf("acts: %v", acts)
			}
		})
	}
}

func TestEvaluateTinyWAL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "policy \"p\" {\n  when = wal.bytes > 0\n  checkpoint {}\n}")
	if d := w.tick(0, func(s *collector.Sample) { s.WAL.SizeBytes = 4096 }); d.Refused != GuardFloor {
		t.Errorf("refused by %q, want floor", d.Refused)
	}
}

func TestEvaluateMaxDefer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
policy "p" {
  when      = wal.bytes > bytes("100MB")
  window    = window.night
  max_defer = "10m"
  checkpoint {}
}`)
	d := w.tick(0, nil)
	if d.Refused != GuardWindow || !d.Earliest.Equal(w.now.Add(10*time.Minute)) {
		t.Fatalf("refused by %q, earliest %s", d.Refused, d.Earliest)
	}
	if d = w.tick(5*time.Minute, nil); d.Refused != GuardWindow {
		t.Fatalf("refused by %q", d.Refused)
	}
	if w.tick(5*time.Minute, nil); w.last.Action == nil {
		t.Errorf("still refused: %s", w.last.Policies[0].Reason)
	}
}

func TestEvaluateOneActionPerLane(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
policy "first" {
  when = true
  sync {}
}
policy "second" {
  when = true
  snapshot {}
}
policy "third" {
  when     = true
  priority = 5
  verify {}
}`)
	w.tick(0, nil)
	if w.last.Action == nil || w.last.Action.Policy != "third" {
		t.Fatalf("action %+v, want the higher priority's", w.last.Action)
	}
	for _, d := range w.last.Policies[:2] {
		if d.Refused != GuardTurn || !strings.Contains(d.Reason, "third") {
			t.Errorf("%s refused by %q: %s", d.Policy, d.Refused, d.Reason)
		}
	}
	if w.tick(time.Second, nil); w.last.Action != nil {
		t.Errorf("%s acts beside a running action", w.last.Action.Policy)
	}
	third := w.set.Policies[2]
	w.states["third"] = w.set.Finished(w.states["third"], third, w.now, ActionResult{})
	if w.tick(time.Second, nil); w.last.Action == nil || w.last.Action.Policy != "first" {
		t.Errorf("action %+v, want the first in file order", w.last.Action)
	}
}

// A running drill delays neither a checkpoint nor a notice. A pause does not stop notices.
func TestEvaluateLanes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
policy "drill" {
  when = true
  verify {}
}
policy "shrink" {
  when = wal.bytes > bytes("300MB")
  checkpoint {}
}
policy "tell" {
  when     = wal.bytes > bytes("300MB")
  notify   = [notifier.webhook.ops]
  cooldown = "1m"
}
policy "tell-too" {
  when   = wal.bytes > bytes("300MB")
  notify = [notifier.webhook.ops]
}`)
	acts := func() (names []string) {
		for _, a := range w.last.Actions {
			names = append(names, a.Policy)
		}
		return names
	}
	w.tick(0, nil)
	if got := acts(); !slices.Equal(got, []string{"drill"}) {
		t.Fatalf("acts: %v", got)
	}
	large := func(s *collector.Sample) { s.WAL.SizeBytes = 350e6 }
	w.tick(time.Hour, large)
	if got := acts(); !slices.Equal(got, []string{"tell", "tell-too", "shrink"}) {
		t.Errorf("beside a drill act: %v", got)
	}
	if w.last.Action.Policy != "shrink" {
		t.Errorf("the main action is %s", w.last.Action.Policy)
	}
	w.states["tell"] = w.set.Finished(w.states["tell"], w.set.Policies[2], w.now, ActionResult{})
	w.now = w.now.Add(2 * time.Minute)
	s := sample(w.now, 350e6)
	d := w.set.Evaluate(Input{Now: w.now, Sample: s, PausedUntil: w.now.Add(time.Minute)}, w.states)
	if len(d.Actions) != 1 || d.Actions[0].Policy != "tell" {
		t.Errorf("in a pause act: %+v", d.Actions)
	}
	d = w.set.Evaluate(Input{Now: w.now, Sample: s, PausedUntil: w.now.Add(time.Minute)}, nil)
	for _, p := range d.Policies[:2] {
		if p.Refused != GuardPause || p.Phase == Running || !p.Earliest.Equal(w.now.Add(time.Minute)) {
			t.Errorf("paused: %+v", p)
		}
	}
}

// If a TRUNCATE would exceed the stall budget, the WAL is backfilled all the same, again and
// again without growing pauses, and the policy says that TRUNCATE is left out.
func TestEvaluateLeavesTruncateOut(t *testing.T) {
	t.Parallel()
	for name, ladder := range map[string]string{"default": "checkpoint {}",
		"truncate only": "checkpoint {\n step \"truncate\" {}\n }"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "policy \"p\" {\n when = wal.bytes > bytes(\"100MB\")\n until = wal.bytes < bytes(\"8MB\")\n "+
				"cooldown = \"1h\"\n "+ladder+"\n}")
			huge := func(s *collector.Sample) { s.WAL.SizeBytes, s.WAL.Frames = 4e9, 1e6 }
			w.states = map[string]PolicyState{"p": {Version: StateVersion, Phase: Inactive, Truncation: w.now,
				Stalls: stalls.Stalls{2 * time.Second, 2 * time.Second, 0}}}
			for round := range 5 {
				d := w.tick(30*time.Second, huge)
				a := w.last.Action
				if a == nil {
					t.Fatalf("round %d: nothing is done: %s", round, d.Reason)
				}
				if a.Checkpoint.Truncates() || len(a.Checkpoint.Steps) == 0 || a.LeftOut == "" || d.Hindered != a.LeftOut {
					t.Fatalf("round %d: %+v, hindered %q", round, a, d.Hindered)
				}
				w.finish(checkpoint.OutcomeComplete)
				if st := w.states["p"]; st.Phase != Backing || st.Attempt != 0 || st.Engaged {
					t.Fatalf("round %d: afterwards %+v", round, st)
				}
			}
			d := w.tick(30*time.Second, func(s *collector.Sample) { huge(s); s.WAL.CheckpointedFrames = s.WAL.Frames })
			if w.last.Action != nil || d.Refused != GuardStall || !strings.Contains(d.Hindered, "budget") {
				t.Errorf("with nothing to drain: refused by %q, hindered %q", d.Refused, d.Hindered)
			}
			// TRUNCATE is tried again as soon as the slow ones are forgotten, and not before.
			for wait := d.Earliest.Sub(w.now); wait > 0; wait -= time.Minute {
				if w.tick(min(wait, time.Minute), huge); w.last.Action != nil && w.last.Action.Checkpoint.Truncates() != (wait <=
					time.Minute) {
					t.Fatalf("%s before %s: %+v", wait, d.Earliest, w.last.Action)
				} else if w.last.Action != nil {
					w.finish(checkpoint.OutcomeComplete)
				}
			}
		})
	}
}

func TestEvaluateUnknown(t *testing.T) {
	t.Parallel()
	down := func(s *collector.Sample) { s.State, s.Err = collector.StateUnreadable, "permission denied" }
	tests := []struct {
		name, when string
		edit       func(*collector.Sample)
		want       Truth
	}{
		{"nothing measured", `wal.bytes > bytes("1MB")`, down, Unknown},
		{"unknown and false", `wal.bytes > bytes("1MB") && disk.free_ratio > 0.9`, down, False},
		{"false and unknown", `disk.free_ratio > 0.9 && wal.bytes > bytes("1MB")`, down, False},
		{"unknown and true", `wal.bytes > bytes("1MB") && disk.free_ratio < 0.9`, down, Unknown},
		{"unknown or true", `wal.bytes > bytes("1MB") || disk.free_ratio < 0.9`, down, True},
		{"unknown or false", `wal.bytes > bytes("1MB") || disk.free_ratio > 0.9`, down, Unknown},
		{"not unknown", `!(wal.bytes > bytes("1MB"))`, down, Unknown},
		{"one sample is no rate", `rate(wal.frames_written, "1m") < 5`, nil, Unknown},
		{"unknown is not zero", `checkpoint.stall < duration("1h")`, nil, Unknown},
		{"coalesce says so explicitly", `coalesce(checkpoint.stall, duration("0s")) < duration("1h")`, nil, True},
		{"division by zero", `wal.bytes / readers.active > bytes("1MB")`, nil, Unknown},
		{"a replica without a report", `replica["s3.main"].lag < duration("1h")`, nil, Unknown},
		{"no replicas, no lag", `replica.lag == duration("0s") && replica.healthy`, nil, True},
		{"a label nobody set", `db.labels.tier == "gold"`, nil, False},
		{"stale", `wal.bytes > bytes("1MB")`, func(s *collector.Sample) { s.At = s.At.Add(-time.Minute) }, Unknown},
		{"from the future", `wal.bytes > bytes("1MB")`, func(s *collector.Sample) { s.At = s.At.Add(time.Minute) }, Unknown},
		{"an overflowing number", `wal.bytes * 1e300 * 1e300 * 1e300 > 0`, nil, True},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "policy \"p\" {\n  when = "+test.when+"\n  sync {}\n}")
			d := w.tick(0, test.edit)
			if d.When != test.want {
				t.Errorf("when is %s (%s), want %s", d.When, d.Reason, test.want)
			}
			if (w.last.Action != nil) != (test.want == True) {
				t.Errorf("acts: %v", w.last.Action != nil)
			}
		})
	}
}

func TestEvaluate_P8_clock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shrink)
	w.tick(0, nil)
	w.tick(2*time.Minute, nil)
	w.finish(checkpoint.OutcomeWriterBusy)
	w.tick(-time.Hour, nil) // the clock is set back
	deadline := w.now.Add(5 * time.Minute)
	for w.last.Action == nil && w.now.Before(deadline) {
		w.tick(10*time.Second, nil)
	}
	if w.last.Action == nil {
		t.Errorf("wedged after the clock went back: %s", w.last.Policies[0].Reason)
	}
	w.finish(checkpoint.OutcomeTruncated)
	w.tick(time.Second, func(s *collector.Sample) { s.WAL.SizeBytes = 0 })
	if w.tick(24*time.Hour, nil); w.last.Action != nil {
		t.Error("acts on one sample after a jump forward: `for` was not observed")
	}
}

func TestStateRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shrink)
	w.tick(0, nil)
	w.tick(2*time.Minute, nil)
	got := roundTrip(t, w.states["shrink"])
	if got.Phase != Backing || got.Outcome != "interrupted" || got.Attempt != 1 {
		t.Errorf("a run cut short comes back as %+v", got)
	}
	w.finish(checkpoint.OutcomeTruncated)
	if got := roundTrip(t, w.states["shrink"]); got.Phase != Cooldown || !got.ReadyAt.Equal(w.states["shrink"].ReadyAt) {
		t.Errorf("cooldown comes back as %+v", got)
	}
	var st PolicyState
	if err := st.UnmarshalJSON([]byte(`{"version":99}`)); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("unknown version: %v", err)
	}
}

func TestNotifyMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "stale" {
  when     = replica.lag > duration("30s")
  severity = "critical"
  notify   = [notifier.webhook.ops]
  message  = "${db.name}: ${human_duration(replica.lag)} behind, stall ${checkpoint.stall}"
}`)
	w.tick(0, func(s *collector.Sample) {
		s.Replicas = []collector.Replica{{Name: "s3.main", LagSeconds: 95}, {Name: "file.local"}}
	})
	a := w.last.Action
	if a == nil || a.Kind != ActNotify || a.Message != "app: 1m35s behind, stall unknown" || a.Severity != "critical" ||
		a.Notify[0] != "webhook.ops" {
		t.Errorf("action %+v", a)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when = wal.bytes > bytes("100MB") && readers.oldest_age < duration("5m")
  sync {}
}`)
	got := w.tick(0, nil).Tree.String()
	want := `policy: p = running
  when: wal.bytes > bytes("100MB") && readers.oldest_age < duration("5m") = true
    wal.bytes > bytes("100MB") = true
      wal.bytes = 200 MB
      bytes("100MB") = 100 MB
    readers.oldest_age < duration("5m") = true
      readers.oldest_age = 0s
      duration("5m") = 5m00s
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	set, diags := builtIn()
	if len(diags) > 0 {
		t.Fatalf("built-in policies: %v", diags)
	}
	if got := Defaults(); len(got.Policies) != 3 || len(set.Policies) != 3 || got.Policies[0].Cooldown != 5*time.Minute {
		t.Errorf("defaults %+v", got.Policies)
	}
	var h = Defaults().NewHistory()
	h.Add(sample(start, 1))
	if !h.Oldest().IsZero() {
		t.Error("the built-in policies read no past, yet it is kept")
	}
}

// WALLimit is the size from which some policy makes the WAL smaller, if that can be proven.
func TestWALLimit(t *testing.T) {
	t.Parallel()
	const truncate = "\n  checkpoint {}\n"
	for text, want := range map[string]float64{
		"policy \"p\" {\n  when = wal.bytes > 5e6" + truncate + "}":                                 5e6,
		"policy \"p\" {\n  when = wal.bytes > 5e6 && replica.healthy" + truncate + "}":              5e6,
		"policy \"p\" {\n  when = wal.bytes > 5e6 || wal.age > 60" + truncate + "}":                 0,
		"policy \"p\" {\n  when = wal.bytes > 5e6\n  mode = \"dry_run\"" + truncate + "}":           0,
		"policy \"p\" {\n  when = wal.bytes > 5e6\n  databases = [\"another\"]" + truncate + "}":    0,
		"policy \"p\" {\n  when = wal.bytes > 5e6\n  checkpoint {\n    step \"passive\" {}\n  }\n}": 0,
		"policy \"p\" {\n  when = wal.bytes > 9e6" + truncate + "}\n" +
			"policy \"q\" {\n  when = wal.bytes > 7e6" + truncate + "}": 7e6,
	} {
		set := mustParse(t, text)
		in := Input{Now: start, Sample: sample(start, 1), History: set.NewHistory()}
		if got := set.Evaluate(in, nil).WALLimit; got != want {
			t.Errorf("%s\nis full at %g, want %g", text, got, want)
		}
	}
	if got := Defaults().Evaluate(Input{Now: start, Sample: sample(start, 1)}, nil).WALLimit; got != 64e6 {
		t.Errorf("by the policies that are built in: %g", got)
	}
}
