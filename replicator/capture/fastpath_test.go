package capture

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
)

// oneMoment is so short that no whole Step comes due in it.
const oneMoment = pace.Active

// clocked returns a scene whose clock only pass moves, and an application that has already written.
func clocked(t *testing.T) (s *scene, a *app, pass func(time.Duration)) {
	s = newScene(t)
	now := time.Now()
	s.options.Clock = func() time.Time { return now }
	s.options.BatchAge = time.Hour
	a = startApp(t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	s.open()
	s.settle()
	return s, a, func(d time.Duration) { now = now.Add(d) }
}

// TestFastPath: between whole Steps, commits may stay unread while our read mark keeps them in the
// WAL. They are reported as pending from the first one on, and none is lost.
func TestFastPath(t *testing.T) {
	t.Parallel()
	t.Run("few commits wait", func(t *testing.T) {
		t.Parallel()
		s, a, pass := clocked(t)
		for range 3 {
			a.do("commit(1)")
			pass(oneMoment)
			if r := s.step(false); r.Commits != 0 || r.Pending.IsZero() || r.Complete {
				t.Errorf("step after a commit: %+v, want the commit unread and pending", r)
			}
		}
		pass(wholeEvery)
		if r := s.step(false); r.Commits != 3 {
			t.Errorf("step a second later: %+v, want three commits", r)
		}
		a.do("commit(2)")
		pass(oneMoment)
		if r := s.step(true); r.Commits != 2 || !r.Spooled || !r.Complete {
			t.Errorf("forced step: %+v, want two commits, and all of them spooled", r)
		}
		s.checkEqual()
		s.wantLost(nil)
	})
	t.Run("many do not", func(t *testing.T) {
		t.Parallel()
		s, a, pass := clocked(t)
		a.do("commit(1)")
		pass(oneMoment)
		s.step(false)
		a.do("commit(1, 20, 200000)")
		pass(oneMoment)
		if r := s.step(false); r.Commits != 2 {
			t.Errorf("step after a commit of two megabytes: %+v, want it read", r)
		}
		s.checkEqual()
		s.wantLost(nil)
	})
	t.Run("a checkpoint of the application's is let through", func(t *testing.T) {
		t.Parallel()
		s, a, pass := clocked(t)
		a.do("commit(1)")
		pass(oneMoment)
		s.step(false)
		a.do("commit(3)")
		answer := a.during("db.execute('pragma wal_checkpoint(truncate)').fetchone()[0]", func() {
			pass(time.Millisecond) // no whole Step comes due
			s.step(false)
			time.Sleep(time.Millisecond)
		})
		if answer != "0" {
			t.Errorf("wal_checkpoint(truncate) answered busy=%s, want 0", answer)
		}
		a.do("commit(3)")
		s.checkEqual()
		s.wantLost(nil)
	})
	t.Run("D15 the -shm file is removed", func(t *testing.T) {
		t.Parallel()
		s, a, pass := clocked(t)
		pass(oneMoment)
		s.step(false)
		a.kill()
		if err := os.Remove(s.path + "-shm"); err != nil {
			t.Fatal(err)
		}
		startApp(t, s.path).do("commit(5)")
		pass(oneMoment)
		if r := s.step(false); r.Reason == "" {
			t.Errorf("step after the -shm was replaced: %+v, want a comparison", r)
		}
		s.checkEqual()
	})
}

// TestFastPathSeesOtherFiles: a step must not report that everything is captured when other files
// are at the database's path than the ones it has open.
func TestFastPathSeesOtherFiles(t *testing.T) {
	t.Parallel()
	t.Run("the application was closed and opened again", func(t *testing.T) {
		t.Parallel()
		s, a, pass := clocked(t)
		for range 20 {
			pass(wholeIdle)
			s.mainFileAges()
			s.step(false)
		}
		if s.capture.hold.isOpen() {
			t.Fatal("connections are still open after twenty idle periods")
		}
		last := s.capture.Spool().Last()
		a.quit() // removes -wal and -shm
		b := startApp(t, s.path)
		b.do("commit(5)")
		pass(oneMoment)
		if r := s.step(false); r.Complete && r.TXID == last {
			t.Errorf("step after commits to new files: %+v claims that all is captured", r)
		}
		s.checkEqual()
	})
	t.Run("another database was moved here", func(t *testing.T) {
		t.Parallel()
		s, _, pass := clocked(t)
		output(t, "sh", "-c", `cp "$0" "$0.new" && mv "$0" "$0.old" && mv "$0.new" "$0"`, s.path)
		pass(oneMoment)
		if r, err := s.capture.Step(s.ctx, false); !errors.Is(err, ErrReplaced) {
			t.Errorf("step after the file was replaced: %+v, %v, want ErrReplaced", r, err)
		}
	})
}

// TestFastPathAtRest: a database at rest is polled once a second, and that poll finds the next
// commit.
func TestFastPathAtRest(t *testing.T) {
	t.Parallel()
	s, a, pass := clocked(t)
	for range 20 {
		pass(wholeEvery)
		s.mainFileAges()
		s.step(false)
	}
	if !s.capture.hold.isOpen() || !s.capture.hold.zero {
		t.Fatal("after twenty quiet seconds, want connections that are open and on READ0")
	}
	whole := s.capture.whole
	pass(pace.Level)
	if r := s.step(false); !r.Complete || s.capture.whole != whole || r.Next != pace.Rhythmic(s.options.Clock(),
		pace.Idle) {
		t.Errorf("step at rest: %+v, want the fast path, which finds everything spooled", r)
	}
	a.do("commit(7)")
	pass(pace.Level)
	if r := s.step(false); r.Commits != 7 || r.Pending.IsZero() {
		t.Errorf("step after commits: %+v, want seven, pending", r)
	}
	s.checkEqual()
	s.wantLost(nil)
}
