package policy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy/stalls"
)

const shrinking = `policy "p" {
  when     = wal.bytes > bytes("100MB")
  cooldown = "1m"
  checkpoint { stall_budget = "500ms" }
}`

// A single long stall (the machine was suspended, the process stopped, an fsync slow) must
// not keep later runs from truncating for hours.
func TestStallLearned_P4(t *testing.T) {
	t.Parallel()
	const reclaimed, usual, slow = 200e6, 120 * time.Millisecond, 3 * time.Second
	tests := []struct {
		name   string
		stalls []time.Duration // oldest first
		want   Guard
	}{
		{"none", nil, GuardNone},
		{"one outlier, nothing else known", []time.Duration{slow}, GuardNone},
		{"one outlier, the latest", []time.Duration{usual, usual, slow}, GuardNone},
		{"one outlier, the first", []time.Duration{slow, usual, usual}, GuardNone},
		{"one outlier of two", []time.Duration{usual, slow}, GuardNone},
		{"two slow", []time.Duration{slow, slow}, GuardStall},
		{"two slow of three", []time.Duration{slow, usual, slow}, GuardStall},
		{"two slow, long ago", []time.Duration{slow, slow, usual, usual}, GuardNone},
		{"all slow", []time.Duration{slow, slow, slow}, GuardStall},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shrinking)
			st := PolicyState{Version: StateVersion, Phase: Armed, ArmedSince: w.now}
			p := w.set.Policies[0]
			for _, stall := range test.stalls {
				st.Started, st.Truncation = w.now, w.now
				st = w.set.Finished(st, p, w.now, ActionResult{Outcome: checkpoint.OutcomeTruncated, Reclaimed: reclaimed,
					WriterStall: stall})
				w.now = w.now.Add(2 * time.Minute)
			}
			w.states = map[string]PolicyState{p.Name: roundTrip(t, st)}
			d := w.tick(0, nil)
			if a := w.last.Action; a == nil || (a.LeftOut != "") != (test.want == GuardStall) {
				t.Errorf("refused by %q (%s), acts %+v, want the TRUNCATE left out by %q", d.Refused, d.Reason, a, test.want)
			}
		})
	}
}

// The state of an early release, which kept one running estimate, can be read. Its estimate
// is dropped.
func TestStateWithOneEstimateIsRead(t *testing.T) {
	t.Parallel()
	var st PolicyState
	text := `{"version":1,"phase":"cooldown","ended":"2026-03-10T12:00:00Z","stall_per_byte":900,"outcome":"truncated"}`
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	if st.Phase != Cooldown || st.Outcome != "truncated" || st.Stalls != (stalls.Stalls{}) {
		t.Errorf("read %+v", st)
	}
	if got := st.Stalls.Expect(0); got != 0 {
		t.Errorf("expects a stall of %s, want none", got)
	}
}

// A notice that comes with a checkpoint says how the checkpoint ended, and keeps the least
// interval between notices.
func TestNoticeBesideACheckpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when     = true
  cooldown = "1s"
  notify   = [notifier.webhook.ops]
  checkpoint {
    step "passive" {}
  }
}`)
	told, acted := 0, 0
	for range 60 {
		w.tick(time.Second, nil)
		if a := w.last.Action; a != nil {
			acted++
			if len(a.Notify) > 0 {
				told++
			}
			r := ActionResult{Outcome: checkpoint.OutcomePartial, WriterStall: 12 * time.Millisecond}
			const want = "[checkpoint partial, writers stalled for 12ms, reclaimed 0 B]"
			if got := a.Told(r).Message; !strings.HasSuffix(got, want) {
				t.Fatalf("told %q", got)
			}
			if got := a.Told(ActionResult{Err: errors.New("no space")}).Message; !strings.HasSuffix(got,
				"[checkpoint failed: no space]") {
				t.Fatalf("told %q", got)
			}
			w.finish(checkpoint.OutcomePartial)
		}
	}
	if acted < 25 || told > 6 {
		t.Errorf("%d checkpoints in a minute, %d notices", acted, told)
	}
}

// Cutting a WAL file in portions is no failure: the next portion follows soon, and the
// pauses do not grow.
func TestShortenedGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when  = wal.bytes > bytes("100MB")
  until = wal.bytes < bytes("8MB")
  checkpoint {}
}`)
	size := int64(100e9)
	runs := 0
	for size > 0 && runs < 100 {
		w.tick(10*time.Second, func(s *collector.Sample) { s.WAL.SizeBytes = size })
		if w.last.Action == nil {
			continue
		}
		if runs++; w.last.Action.LeftOut != "" {
			t.Fatalf("run %d: %s", runs, w.last.Action.LeftOut)
		}
		size -= 6e9
		r := ActionResult{Outcome: checkpoint.OutcomeShortened, Reclaimed: 6e9, WriterStall: 190 * time.Millisecond}
		if size <= 0 {
			r.Outcome = checkpoint.OutcomeTruncated
		}
		w.states["p"] = w.set.Finished(w.states["p"], w.set.Policies[0], w.now, r)
		if st := w.states["p"]; st.Attempt != 0 {
			t.Fatalf("run %d counts as a failure: %+v", runs, st)
		}
	}
	if took := w.now.Sub(start); runs != 17 || took > 10*time.Minute || w.states["p"].Phase != Cooldown {
		t.Errorf("%d runs in %s, then %+v", runs, took, w.states["p"])
	}
}
