package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

const shrinking = `policy "p" {
  when     = wal.bytes > bytes("100MB")
  cooldown = "1m"
  checkpoint { stall_budget = "500ms" }
}`

// A machine that was suspended, a process that was stopped, one slow fsync: the
// truncations that follow must not wait for hours to be forgiven.
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
				st.Started = w.now
				st = w.set.Finished(st, p, w.now, ActionResult{Outcome: sqlite.OutcomeTruncated, Reclaimed: reclaimed,
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

// What has been learned is forgotten: nothing slow is done meanwhile that could
// teach better.
func TestStallForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shrinking)
	p := w.set.Policies[0]
	st := PolicyState{Ended: w.now, StallCosts: stallCosts{15, 15, 15}}
	wal := sample(w.now, 200e6).WAL
	var foreseen []time.Duration
	for _, age := range []time.Duration{0, forget, 2 * forget, 20 * forget} {
		foreseen = append(foreseen, predictStall(p, st, wal, w.now.Add(age)).Round(time.Millisecond))
	}
	want := []time.Duration{3 * time.Second, 1550 * time.Millisecond, 825 * time.Millisecond, 100 * time.Millisecond}
	if !slices.Equal(foreseen, want) {
		t.Errorf("foreseen after 0, 1, 2 and 20 half-lives: %v, want %v", foreseen, want)
	}
}

func TestStallCostsLearn(t *testing.T) {
	t.Parallel()
	good := ActionResult{Outcome: sqlite.OutcomeTruncated, Reclaimed: 4 << 20, WriterStall: 4 << 20}
	tests := []struct {
		name string
		edit func(*ActionResult)
		want stallCosts
	}{
		{"a truncation", func(*ActionResult) {}, stallCosts{1, 7, 8}},
		{"a small WAL", func(r *ActionResult) { r.Reclaimed = learnFrom - 1 }, stallCosts{7, 8, 9}},
		{"not measured", func(r *ActionResult) { r.WriterStall = 0 }, stallCosts{7, 8, 9}},
		{"pinned", func(r *ActionResult) { r.Outcome = sqlite.OutcomePinned }, stallCosts{7, 8, 9}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, c := good, stallCosts{7, 8, 9}
			test.edit(&r)
			if c.learn(r); c != test.want {
				t.Errorf("learned %v, want %v", c, test.want)
			}
		})
	}
}

// The state of the release that kept one running estimate is read; what that
// one believed is not taken over.
func TestStateWithOneEstimateIsRead(t *testing.T) {
	t.Parallel()
	var st PolicyState
	text := `{"version":1,"phase":"cooldown","ended":"2026-03-10T12:00:00Z","stall_per_byte":900,"outcome":"truncated"}`
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	if st.Phase != Cooldown || st.Outcome != "truncated" || st.StallCosts != (stallCosts{}) {
		t.Errorf("read %+v", st)
	}
	w := newWorld(t, shrinking)
	if got := predictStall(w.set.Policies[0], st, collector.WAL{SizeBytes: 1e9}, start); got != 500*time.Millisecond {
		t.Errorf("foreseen %s, want what an unknown disk costs", got)
	}
}

// A notice beside a checkpoint keeps the floor of notices, and says how it ended.
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
			r := ActionResult{Outcome: sqlite.OutcomePartial, WriterStall: 12 * time.Millisecond}
			if got := a.Told(r).Message; !strings.HasSuffix(got, "[checkpoint partial, writers held up 12ms, gave back 0 B]") {
				t.Fatalf("told %q", got)
			}
			if got := a.Told(ActionResult{Err: errors.New("no space")}).Message; !strings.HasSuffix(got,
				"[checkpoint failed: no space]") {
				t.Fatalf("told %q", got)
			}
			w.finish(sqlite.OutcomePartial)
		}
	}
	if acted < 25 || told > 6 {
		t.Errorf("%d checkpoints in a minute, %d notices", acted, told)
	}
}
