package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
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

// TestFreeze_S25_file: the file for pages that a snapshot or a comparison keeps is made before a freeze, in which the
// application would wait for a slow disk to make it. Here no file can be made from then on.
func TestFreeze_S25_file(t *testing.T) {
	t.Parallel()
	newScene := func(t *testing.T) (*scene, *app) {
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(20, 100, 9000)")
		a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
		a.do(`db.execute("pragma wal_autocheckpoint=0").fetchone()`)
		s.open()
		s.settle()
		return s, a
	}
	// more lets the application change more pages than are kept in memory, after a freeze, as if it had done so just
	// before, and calls read, which keeps them.
	more := func(s *scene, a *app, read func() error) {
		freeze, err := s.capture.hold.freeze(s.ctx, sqlite.Budget{BusyTimeout: time.Second, Stall: 5 * time.Second})
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.capture.hold.thaw(s.ctx, freeze, false); err != nil {
			s.t.Fatal(err)
		}
		dir := s.options.StateDir
		if err := os.Rename(dir, dir+".elsewhere"); err != nil {
			s.t.Fatal(err)
		}
		a.do(`db.execute("update t set v=zeroblob(length(v))")`)
		if err := errors.Join(read(), os.Rename(dir+".elsewhere", dir)); err != nil {
			s.t.Error(err)
		}
	}
	t.Run("snapshot", func(t *testing.T) {
		t.Parallel()
		s, a := newScene(t)
		r, err := s.capture.OpenSnapshot(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		more(s, a, func() error { s.capture.hold.keepAside(); return nil })
		if err := errors.Join(r.WriteLTX(s.ctx, io.Discard, ""), r.Close()); err != nil {
			t.Errorf("the snapshot: %v", err)
		}
		s.checkEqual()
	})
	t.Run("comparison", func(t *testing.T) {
		t.Parallel()
		s, a := newScene(t)
		s.capture.continuity.lose(tail.ReasonReplaced, "for the test")
		met := false
		s.capture.comparer.between = func(ctx context.Context) error {
			if !met {
				met = true
				more(s, a, s.capture.flusher.CaptureHead)
			}
			return s.capture.keepBounded(ctx)
		}
		s.checkEqual()
		if !met {
			t.Error("no comparison")
		}
	})
}

// TestFreeze_S25_log: nothing is logged in a freeze, since whoever reads the log may be slow. Here the backfill in one
// does not end within its budget.
func TestFreeze_S25_log(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lines := 0
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	s.open()
	s.settle()
	r := s.capture.restarter
	r.log = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { lines++; return len(p), nil }), nil))
	a.do("commit(20)")
	freeze, err := s.capture.hold.freeze(s.ctx, sqlite.Budget{BusyTimeout: time.Second, Stall: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.copyAndBackfill(s.ctx, time.Nanosecond, nil)
	during := lines
	if err := errors.Join(s.capture.hold.thaw(s.ctx, freeze, false), s.capture.flusher.Wait()); err != nil {
		t.Error(err)
	}
	if r.report(); during != 0 || lines != 1 {
		t.Errorf("%d lines in the freeze and %d after it, want 0 and 1 (%v)", during, lines-during, err)
	}
	s.checkEqual()
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }
