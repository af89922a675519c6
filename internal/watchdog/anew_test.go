package watchdog

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Once a command has returned, the status shows its result, even for a database that has turns
// only every five seconds. A turn that hangs delays neither the command nor the pause.
func TestCommandsAreShownAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, hanging := &scene{}, make(chan struct{})
		board := health.NewBoard()
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink), Health: board})
		shows := func(after string, paused bool, phase policy.Phase, refused policy.Guard) {
			t.Helper()
			d, err := w.Database("app")
			if err != nil {
				t.Fatal(err)
			}
			known := func(c health.Condition) bool { return c.ID == "paused" }
			if slices.ContainsFunc(d.Conditions, known) != paused || slices.ContainsFunc(board.Of("app"), known) != paused ||
				d.PausedUntil.IsZero() == paused {
				t.Errorf("%s: paused until %v with %v, on the board %v", after, d.PausedUntil, d.Conditions, board.Of("app"))
			}
			if p := d.Decision.Policies[0]; p.Phase != phase || p.Refused != refused {
				t.Errorf("%s: the policy is %s, refused by %q, want %s and %q", after, p.Phase, p.Refused, phase, refused)
			}
		}
		pause := func(length time.Duration) (took time.Duration) {
			t.Helper()
			began := time.Now()
			if err := w.Pause("", length); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		time.Sleep(2*time.Minute + 300*time.Millisecond)
		s.set(func(s *scene) { s.walBytes = 8 << 20 })
		pause(time.Hour)
		shows("pause", true, policy.Armed, policy.GuardPause)
		if _, err := w.Checkpoint(context.Background(), "app", "truncate"); err != nil {
			t.Fatal(err)
		}
		shows("checkpoint", true, policy.Inactive, policy.GuardNone)
		time.Sleep(2*time.Minute + 300*time.Millisecond)
		pause(0)
		shows("resume", false, policy.Inactive, policy.GuardNone)

		s.set(func(s *scene) { s.onSample = func() { <-hanging } })
		time.Sleep(10 * time.Second)
		if took := pause(time.Hour); took > 5*time.Second {
			t.Errorf("a turn that hangs kept the command for %s", took)
		}
		shows("pause while a turn hangs", true, policy.Inactive, policy.GuardNone)
		close(hanging)
	})
}
