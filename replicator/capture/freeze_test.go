package capture

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// TestRestart_D81_neverBusy: an application that meets no lock when it is alone meets none while
// sqlwatch restarts and truncates its WAL. With rare commits a moment between two of them is used;
// with dense ones the application is kept waiting, but not refused.
func TestRestart_D81_neverBusy(t *testing.T) {
	t.Parallel()
	for name, rate := range map[string]string{
		"tens a second":     "0.002, 0.02",
		"hundreds a second": "0.0005, 0.002",
		"flat out":          "0, 0",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.options.RestartAt = 128 << 10
			s.options.StallBudget = 5 * time.Second
			a := startApp(t, s.path)
			a.do("schema()")
			s.open()
			s.settle()
			restarts, truncated, still := 0, 0, 0
			outcomes := map[sqlite.Outcome]int{}
			patient := sqlite.Budget{BusyTimeout: time.Second, Stall: 5 * time.Second}
			for round := 0; round < 3 || round < 20 && (restarts == 0 || truncated == 0); round++ {
				n := 0
				answer := a.during(fmt.Sprintf("deferred(0.8, %s)", rate), func() {
					if r := s.step(false); r.Restart {
						restarts++
						if r.Stall == 0 {
							still++
						}
					}
					if n++; round%2 == 1 && n%5 == 1 { // at least once in each such round, however few steps it has
						r, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, patient)
						if err != nil {
							t.Error(err)
						}
						if r.Outcome == sqlite.OutcomeTruncated {
							truncated++
						}
						outcomes[r.Outcome]++
					}
				})
				if !strings.Contains(answer, " 0 errors") {
					t.Fatalf("D81: the application beside us: %s", answer)
				}
				t.Log(answer)
			}
			t.Logf("%d restarts, %d of them without anybody waiting, %d truncations", restarts, still, truncated)
			if restarts == 0 || truncated == 0 {
				t.Errorf("D81: no restart or no truncation, %v: this test proved nothing", outcomes)
			}
			s.checkEqual()
			s.wantLost(nil)
		})
	}
}

// TestLargeCommitBeforeFreeze_C11: a commit that is written just before a freeze, and is too large
// to be read within the budget, is not read during the freeze, and is not lost.
func TestLargeCommitBeforeFreeze_C11(t *testing.T) {
	t.Parallel()
	const budget = 50 * time.Millisecond
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	s.open()
	s.settle()
	s.capture.tail.Rate = 4e9 // as if nothing slow had been measured yet
	for range 2 {
		a.do(
			`(db.execute("begin immediate"), [db.execute("insert into t(k,v) values(1,?)", (rnd.randbytes(100000),)) for _ in ` +
				`range(400)], db.execute("commit"))`)
		freeze, err := s.capture.hold.freeze(s.ctx, sqlite.Budget{BusyTimeout: time.Second, Stall: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		end := s.capture.flusher.Hurry(budget)
		err = s.capture.flusher.AbsorbTail()
		if err == nil {
			err = s.capture.flusher.Begin()
		}
		took := time.Since(start)
		end()
		if thawed := s.capture.hold.thaw(s.ctx, freeze, false); thawed != nil {
			t.Fatal(thawed)
		}
		t.Logf("C11: %v after %v", err, took)
		if took > 4*budget {
			t.Errorf("C11: %v of a budget of %v", took, budget)
		}
		if !s.capture.hold.active() || s.capture.hold.zero {
			t.Error("C11: the WAL is not held any more")
		}
		s.checkEqual()
	}
	s.wantLost(nil)
}
