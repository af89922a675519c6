package watchdog

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

const tells = `
policy "tell" {
  when     = wal.bytes > bytes("4MB")
  severity = "critical"
  cooldown = "1h"
  notify   = [notifier.webhook.ops]
  message  = "${db.name} is large"
}`

// A notice succeeds if it was delivered, and fails otherwise; its end is reported once, even
// across a restart.
func TestNoticesAndTheirEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, n := &scene{walBytes: 8 << 20}, &notices{answer: errors.New("the hook answers 404")}
		o := Options{Targets: []Target{n.target(s, "app")}, Policies: policies(t, tells),
			StateFile: filepath.Join(t.TempDir(), "state.json")}
		w := run(t, o)
		pass := func(d time.Duration) {
			s.set(func(s *scene) { s.commits++ })
			time.Sleep(d)
			synctest.Wait()
		}
		last := func() ActionRecord {
			status, err := w.Database("app")
			if err != nil || len(status.Actions) == 0 {
				t.Fatalf("no action: %v", err)
			}
			return status.Actions[0]
		}
		pass(3 * time.Second)
		if r := last(); r.OK || r.Outcome != "failed" || !strings.Contains(r.Err, "404") {
			t.Errorf("a notice that nobody took: %+v", r)
		}
		s.set(func(s *scene) { s.walBytes = 0 })
		pass(3 * time.Second)
		if got := n.all(); slices.Contains(got, "end of tell") {
			t.Errorf("the end of what was not told is told: %v", got)
		}
		n.mu.Lock()
		n.answer, n.sent = nil, nil
		n.mu.Unlock()
		s.set(func(s *scene) { s.walBytes = 8 << 20 })
		pass(2 * time.Hour)
		if r := last(); !r.OK || !slices.Contains(n.all(), "tell") {
			t.Errorf("a notice that was taken: %+v, sent %v", r, n.all())
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		n.mu.Lock()
		n.sent = nil
		n.mu.Unlock()
		s.set(func(s *scene) { s.walBytes = 0 })
		var held []string
		o.Holds = func(db, policy string, notify []string) { held = append(held, db, policy, notify[0]) }
		w = run(t, o)
		pass(10 * time.Second)
		pass(10 * time.Second)
		if !slices.Equal(held, []string{"app", "tell", "webhook.ops"}) {
			t.Errorf("after the restart it holds for %v", held)
		}
		if got := n.all(); !slices.Equal(got, []string{"end of tell"}) {
			t.Errorf("after the restart, told %v", got)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		w = run(t, o)
		pass(10 * time.Second)
		if got := n.all(); len(got) != 1 {
			t.Errorf("after another, told %v", got)
		}
	})
}

// The notice of another kind of action contains the action's outcome.
func TestNoticeHasTheOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, n := &scene{walBytes: 8 << 20}, &notices{}
		text := strings.Replace(shrink, "cooldown", "notify   = [notifier.webhook.ops]\n  cooldown", 1)
		run(t, Options{Targets: []Target{n.target(s, "app")}, Policies: policies(t, text)})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(n.said) != 1 || !strings.Contains(n.said[0], "[checkpoint truncated, ") ||
			!strings.Contains(n.said[0], "reclaimed 8.4 MB") {
			t.Errorf("said %q", n.said)
		}
	})
}

// Every changed decision is one entry with the values that were read, and every action is one
// with its end; what an earlier run did is shown.
func TestDecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var entries []Entry
		s := &scene{walBytes: 8 << 20}
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink),
			Decided: func(e Entry) { entries = append(entries, e) },
			Recently: func(db string) Recent {
				return Recent{Actions: []ActionRecord{{Policy: "shrink", Action: "checkpoint", Outcome: "pinned"}},
					Changes: []ChangeRecord{{Policy: "shrink", Phase: "armed"}}}
			}})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		status, err := w.Database("app")
		if err != nil || len(status.Actions) != 2 || status.Actions[1].Outcome != "pinned" ||
			status.Changes[len(status.Changes)-1].Phase != "armed" {
			t.Errorf("shown: %+v, %v", status, err)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		var phases []string
		for _, e := range entries {
			switch {
			case e.DB != "app" || e.At.IsZero():
				t.Errorf("entry %+v", e)
			case e.Action != nil:
				phases = append(phases, e.Action.Outcome)
			default:
				phases = append(phases, e.Change.Phase)
				if e.Inputs["wal.bytes"] == "" {
					t.Errorf("%+v was not read from anything", e)
				}
			}
		}
		if want := []string{"running", "truncated", "cooldown"}; !slices.Equal(phases, want) {
			t.Errorf("decided %v, want %v", phases, want)
		}
	})
}

// The notice of an action is sent after a restart if the shutdown came before it. An action that
// only met a wrong moment sends none.
func TestNoticeOfAnActionOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, n := &scene{walBytes: 8 << 20}, &notices{}
		text := strings.Replace(shrink, "cooldown", "notify   = [notifier.webhook.ops]\n  cooldown", 1)
		target := n.target(s, "app")
		open := target.Open
		hang := true
		target.Open = func(ctx context.Context) (Parts, error) {
			parts, err := open(ctx)
			notify := parts.Actions.Notify
			parts.Actions.Notify = func(ctx context.Context, notice Notice) error {
				if hang {
					<-ctx.Done()
					return ctx.Err()
				}
				return notify(ctx, notice)
			}
			return parts, err
		}
		s.outcomes, s.failWith = []sqlite.Outcome{sqlite.OutcomeFailed}, ErrAway
		o := Options{Targets: []Target{target}, Policies: policies(t, text),
			StateFile: filepath.Join(t.TempDir(), "state.json")}
		w := run(t, o)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		if len(n.all()) != 0 {
			t.Fatalf("sent %v", n.said)
		}
		hang = false
		w = run(t, o)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(n.said) != 1 || !strings.Contains(n.said[0], "[checkpoint truncated, ") {
			t.Errorf("after the restart: %q", n.said)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		run(t, o)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(n.said) != 1 {
			t.Errorf("after another: %q", n.said)
		}
	})
}

// A tuned value that an operator reset or froze stays so across a restart.
func TestRetune(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		o := Options{Targets: []Target{s.target("app")}, Policies: policies(t, tuned),
			StateFile: filepath.Join(t.TempDir(), "state.json")}
		w := run(t, o)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, wrong := range [][3]string{{"app", "tuned", "other"}, {"app", "other", "stall"},
			{"nobody", "tuned", "stall"}} {
			if _, err := w.Retune(t.Context(), wrong[0], wrong[1], wrong[2], true); err == nil {
				t.Errorf("%v is taken", wrong)
			}
		}
		said, err := w.Retune(t.Context(), "app", "tuned", "stall", false)
		if err != nil || !strings.Contains(said, "an operator") {
			t.Errorf("%q, %v", said, err)
		}
		for range 2 {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			d, err := w.Database("app")
			if err != nil || len(d.Decision.Tunes) != 1 || d.Decision.Tunes[0].Frozen.Before(time.Now().Add(6*24*time.Hour)) {
				t.Errorf("%+v, %v", d.Decision.Tunes, err)
			}
			if err := w.end(); err != nil {
				t.Fatal(err)
			}
			w = run(t, o)
		}
	})
}

// PASSIVE checkpoints that succeed are one line in ten minutes; one that does not is logged at
// once.
func TestRoutineIsSaidSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		journal := &journalOf{}
		s := &scene{walBytes: 8 << 20}
		run(t, Options{Targets: []Target{s.target("app")}, Logger: journal.logger(), Policies: policies(t, `
policy "keep" {
  when     = wal.bytes > bytes("1MB")
  cooldown = "10s"
  checkpoint {
    step "passive" {}
  }
}`)})
		lines := func(what string) int { return strings.Count(journal.String(), what) }
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if n := lines("checkpoint complete"); n != 1 {
			t.Errorf("%d lines in nine minutes: %s", n, journal)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if lines("checkpoint complete") != 2 || lines("× since the last such line") != 1 {
			t.Errorf("after twelve minutes: %s", journal)
		}
		s.set(func(s *scene) { s.outcomes = []sqlite.Outcome{sqlite.OutcomePinned} })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if lines("checkpoint pinned") != 1 {
			t.Errorf("after one that failed: %s", journal)
		}
	})
}
