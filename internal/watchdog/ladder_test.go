package watchdog

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/ladders"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/statefile"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/stalls"
)

func TestLadder(t *testing.T) {
	t.Parallel()
	const p, q = sqlite.Passive, sqlite.Truncate
	contended := slices.Repeat([]sqlite.Outcome{sqlite.OutcomeContended}, ladders.ContendedTries+1)
	tests := []struct {
		name     string
		pinned   time.Duration // for how long a reader has held its mark; 0: none
		outcomes []sqlite.Outcome
		calls    []sqlite.Mode
		want     string
		ok       bool
	}{
		{name: "PASSIVE until complete, then TRUNCATE", outcomes: []sqlite.Outcome{sqlite.OutcomePartial,
			sqlite.OutcomeComplete}, calls: []sqlite.Mode{p, p, q}, want: "truncated", ok: true},
		{name: "PASSIVE is not repeated for ever", outcomes: slices.Repeat([]sqlite.Outcome{sqlite.OutcomePartial}, 3),
			calls: []sqlite.Mode{p, p, p, q}, want: "truncated", ok: true},
		{name: "D25_a_reader_that_stays_means_no_TRUNCATE", pinned: time.Minute,
			outcomes: slices.Repeat([]sqlite.Outcome{sqlite.OutcomePartial}, 3), calls: []sqlite.Mode{p, p, p}, want: "pinned"},
		{name: "a reader that has just come is given its time", pinned: time.Millisecond, calls: []sqlite.Mode{p, q},
			want: "truncated", ok: true},
		{name: "another checkpointer is waited for", outcomes: []sqlite.Outcome{sqlite.OutcomeContended,
			sqlite.OutcomeContended}, calls: []sqlite.Mode{p, p, p, q}, want: "truncated", ok: true},
		{name: "but not for ever", outcomes: contended, calls: slices.Repeat([]sqlite.Mode{p}, ladders.ContendedTries+1),
			want: "contended"},
		{name: "D31_a_busy_writer_ends_it", outcomes: []sqlite.Outcome{sqlite.OutcomeComplete, sqlite.OutcomeWriterBusy},
			calls: []sqlite.Mode{p, q}, want: "writer_busy"},
		{name: "a spent budget ends it", outcomes: []sqlite.Outcome{sqlite.OutcomeComplete, sqlite.OutcomeBudgetSpent},
			calls: []sqlite.Mode{p, q}, want: "stall_budget"},
		{name: "an error ends it", outcomes: []sqlite.Outcome{sqlite.OutcomeFailed}, calls: []sqlite.Mode{p}, want: "io"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scene{walBytes: 8 << 20, outcomes: test.outcomes, failWith: errTorn}
				w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, "")})
				time.Sleep(2 * time.Second)
				if test.pinned > 0 {
					s.set(func(s *scene) { s.pinned = time.Now().Add(-test.pinned) })
				}
				record, err := w.Checkpoint(context.Background(), "app", "truncate")
				if err != nil {
					t.Fatal(err)
				}
				if record.Outcome != test.want || record.OK != test.ok {
					t.Errorf("outcome %s, ok %v; want %s, %v", record.Outcome, record.OK, test.want, test.ok)
				}
				if got := get(s, func(s *scene) []sqlite.Mode { return s.calls }); !slices.Equal(got, test.calls) {
					t.Errorf("checkpoints %v, want %v", got, test.calls)
				}
			})
		})
	}
}

func TestOperatorAsksForNonsense(t *testing.T) {
	t.Parallel()
	s := &scene{}
	w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, "")})
	eventually(t, "ready", w.Ready)
	for name, do := range map[string]func() error{
		"mode":       func() error { _, err := w.Checkpoint(t.Context(), "app", "full"); return err },
		"database":   func() error { _, err := w.Checkpoint(t.Context(), "nobody", "passive"); return err },
		"no replica": func() error { _, err := w.Do(t.Context(), "app", "sync"); return err },
	} {
		if err := do(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The status right after an action shows its result, without waiting for the next turn.
func TestStatusAfterAnAction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{}
		s.snapshot = func(context.Context) error { s.set(func(s *scene) { s.walBytes = 4096 }); return nil }
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, "")})
		time.Sleep(1500 * time.Millisecond) // the database is open, and it is between two turns
		if _, err := w.Do(t.Context(), "app", "snapshot"); err != nil {
			t.Fatal(err)
		}
		if got := w.Status().Databases[0].Sample.WAL.SizeBytes; got != 4096 {
			t.Errorf("the status shows a WAL of %d bytes after the snapshot, want 4096", got)
		}
	})
}

// A policy whose TRUNCATE is left out reports that: in its decision, as a condition of the
// database, and in a line of the log. The report ends when the TRUNCATE is no longer left out.
func TestHinderedIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		journal := &journalOf{}
		s := &scene{walBytes: 8 << 20}
		state := filepath.Join(t.TempDir(), "state.json")
		err := statefile.Write(state, map[string]savedDatabase{"app": {Policies: map[string]policy.PolicyState{
			"shrink": {Version: policy.StateVersion, Phase: policy.Inactive, Truncation: time.Now().Add(-10 * time.Second),
				Stalls: stalls.Stalls{time.Second, time.Second, time.Second}}}}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink), StateFile: state,
			Logger: journal.logger()})
		holds := func() (why string, condition bool) {
			d, err := w.Database("app")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range d.Conditions {
				condition = condition || c.ID == "policy_hindered"
			}
			return d.Decision.Policies[0].Hindered, condition
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if why, condition := holds(); !condition || !strings.Contains(why, "budget") ||
			!strings.Contains(journal.String(), "this policy cannot do everything it should") {
			t.Errorf("hindered by %q, a condition: %v, log: %s", why, condition, journal)
		}
		if calls := get(s, func(s *scene) []sqlite.Mode { return s.calls }); slices.Contains(calls, sqlite.Truncate) {
			t.Errorf("checkpoints %v", calls)
		}
		time.Sleep(4 * time.Hour) // the slow checkpoints are forgotten
		synctest.Wait()
		if why, condition := holds(); condition || why != "" ||
			!strings.Contains(journal.String(), "this policy is no longer hindered") {
			t.Errorf("afterwards hindered by %q, a condition: %v", why, condition)
		}
	})
}
