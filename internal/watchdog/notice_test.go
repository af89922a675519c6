package watchdog

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const tells = `
policy "tell" {
  when     = wal.bytes > bytes("4MB")
  severity = "critical"
  cooldown = "1h"
  notify   = [notifier.webhook.ops]
  message  = "${db.name} is large"
}`

// A notice is done when it was delivered, and failed otherwise; its end is told once,
// also after a restart.
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
		w = run(t, o)
		pass(10 * time.Second)
		pass(10 * time.Second)
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

// What an action of another kind tells has its outcome.
func TestNoticeHasTheOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, n := &scene{walBytes: 8 << 20}, &notices{}
		text := strings.Replace(shrink, "cooldown", "notify   = [notifier.webhook.ops]\n  cooldown", 1)
		run(t, Options{Targets: []Target{n.target(s, "app")}, Policies: policies(t, text)})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(n.said) != 1 || !strings.Contains(n.said[0], "[checkpoint truncated, ") ||
			!strings.Contains(n.said[0], "gave back 8.4 MB") {
			t.Errorf("said %q", n.said)
		}
	})
}

// Every change of mind is a line with what was read, and every action one with its
// end; what an earlier life did is shown.
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
