package capture

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

func TestCapture(t *testing.T) {
	t.Parallel()
	t.Run("every commit of a live WAL", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		s.open()
		n := 0
		start := s.step(true)
		if start.Reason != tail.ReasonFirst || start.TXID != 1 {
			t.Fatalf("first step: %+v, want TXID 1 for reason first", start)
		}
		for range 20 {
			n += commits(t, a.do("commit(30, 3)"))
			s.step(true)
		}
		s.checkEqual()
		s.wantLost(nil)
		if last := s.capture.Spool().Last(); last < 21 {
			t.Errorf("last TXID %s, want one for each of 20 batches", last)
		}
	})
	t.Run("flat-out writer with its own autocheckpoint, restarted and truncated by us", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.options.RestartAt = 128 << 10
		s.options.StallBudget = time.Second // the test is about lost commits, not about the speed of this machine
		s.options.BatchAge = 50 * time.Millisecond
		a := startApp(t, s.path)
		a.do("schema()")
		s.open()
		s.step(true)
		steps, restarts, truncated := 0, 0, 0
		for round := 0; round < 5 || round < 50 && (restarts == 0 || truncated == 0); round++ {
			a.during(flat(0.3), func() {
				if s.step(false).Restart {
					restarts++
				}
				if steps++; steps%60 == 0 && s.truncate().Reclaimed > 0 {
					truncated++
				}
			})
		}
		s.checkEqual()
		s.wantLost(nil)
		t.Logf("%d steps, %d restarts, %d truncations, last txid %s", steps, restarts, truncated, s.capture.Spool().Last())
		if restarts == 0 || truncated == 0 {
			t.Error("no restart or no truncation succeeded")
		}
	})
}
