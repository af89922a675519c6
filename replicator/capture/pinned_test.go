package capture

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
)

// A reader that stays for long is no reason to hold writers up, and no commit
// is lost over it; once it is gone the WAL is restarted.
func TestPinned(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.RestartAt = 128 << 10
	s.options.StallBudget = time.Second // of a machine that is busy with other tests
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50, 5)")
	s.open()
	s.settle()
	a.do(`reader = sqlite3.connect(path, isolation_level=None)`)
	a.do("commit(5)")
	a.do(`(reader.execute("begin"), reader.execute("select count(*) from t").fetchall())`)
	restarted, gone := false, false
	step := func() {
		r := s.step(false)
		restarted = restarted || r.Restart
		if r.Stall > 0 && !r.Restart && !gone {
			t.Fatalf("D25: writers had to wait for %v while a reader is in the way", r.Stall)
		}
	}
	a.during("commit(500, 5)", step)
	for range 20 {
		if got := s.truncate(); got.Outcome != sqlite.OutcomePinned || got.WriterStall != 0 {
			t.Fatalf("D25: truncate with a reader in the way: %v with a stall of %v, want pinned without", got.Outcome,
				got.WriterStall)
		}
		step()
	}
	a.do(`reader.execute("rollback")`)
	gone = true
	for n := 0; !restarted; n++ {
		if n == 100 {
			t.Fatal("D25: the WAL is not restarted after the reader has gone")
		}
		a.during("commit(50)", step)
	}
	s.checkEqual()
	s.wantLost(nil)
}

// A TRUNCATE that gives up because a transaction stays open has kept new transactions waiting, and says for how long.
func TestTruncateGivenUp_D26(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50, 5)")
	s.open()
	s.settle()
	a.do(`reader = sqlite3.connect(path, isolation_level=None)`)
	a.do(`(reader.execute("begin"), reader.execute("select count(*) from t").fetchall())`)
	got := s.truncate()
	if got.Outcome != sqlite.OutcomeWriterBusy || got.WriterStall == 0 {
		t.Errorf("truncate beside an open transaction: %v with a stall of %v, want writer_busy with some", got.Outcome,
			got.WriterStall)
	}
	a.do(`reader.execute("rollback")`)
	s.checkEqual()
}

// While no segment can be made durable, the WAL is the application's own again.
func TestBrokenSpoolHoldsNothing_S20(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	s.capture.flusher.Store = func(*segments.Commit) error { return errors.New("read-only file system") }
	for deadline := time.Now().Add(time.Minute); s.capture.hold.isOpen(); {
		a.do("commit(1)")
		if _, err := s.capture.Step(s.ctx, true); err == nil {
			t.Fatal("a step succeeded")
		}
		if time.Now().After(deadline) {
			t.Fatal("the WAL is held for a minute, and nothing is copied")
		}
	}
	if got := output(t, "sqlite3", s.path, "pragma wal_checkpoint(truncate)"); !strings.HasPrefix(string(got), "0|") {
		t.Errorf("the application's checkpoint: %s", got)
	}
	s.capture.flusher.Store = (*segments.Commit).Run
	s.settle()
	s.checkEqual()
}

// Another database is copied into the file while the application is away and our
// connections keep its WAL: that is noticed.
func TestCopiedOver_D4(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(200, 5)")
	s.open()
	s.settle()
	output(t, "sqlite3", s.path, "vacuum into '"+s.path+".backup'")
	a.do("commit(400, 5)")
	s.settle()
	for deadline := time.Now().Add(time.Minute); s.capture.continuity.level.main.Size == 0; <-time.After(
		50 * time.Millisecond) {
		s.step(false)
		if time.Now().After(deadline) {
			t.Fatal("the WAL is not level after a minute")
		}
	}
	a.kill()
	output(t, "cp", s.path+".backup", s.path)
	for deadline := time.Now().Add(time.Minute); s.capture.Discontinuities()["replaced"] == 0; <-time.After(
		50 * time.Millisecond) {
		_, _ = s.capture.Step(s.ctx, false) // the WAL may speak of pages that the new file does not have
		if time.Now().After(deadline) {
			t.Fatal("not noticed within a minute")
		}
	}
}
