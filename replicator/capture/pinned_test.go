package capture

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
)

// TestPinned: writers are not kept waiting because of a long-lived reader, and no commit is lost
// because of it. Once the reader has gone, the WAL is restarted.
func TestPinned(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.RestartAt = 128 << 10
	s.options.StallBudget = time.Second // other tests keep the machine busy
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

// TestShortReader_D25: a transaction that began after a TRUNCATE did is not in its way: an application that
// commits all the time nearly always has one that is a frame or two behind the head.
func TestShortReader_D25(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	writer, reader := startApp(t, s.path), startApp(t, s.path)
	writer.do("schema()")
	s.open()
	s.settle()
	writer.do("commit(50, 5)")
	var once sync.Once
	s.capture.flusher.Store = func(p *segments.Commit) error {
		once.Do(func() { // in the time that the first part of the checkpoint takes
			reader.do(`(db.execute("begin"), db.execute("select count(*) from t").fetchall())`)
			writer.do("commit(2)")
			reader.send(`(time.sleep(0.3), db.execute("rollback"))`)
		})
		return p.Run()
	}
	got, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{BusyTimeout: 20 * time.Second})
	if err != nil || got.Outcome != sqlite.OutcomeTruncated {
		t.Errorf("D25: TRUNCATE beside a transaction that is just ending: %v, %v, want truncated", got.Outcome, err)
	}
	reader.answer()
	s.settle()
	s.checkEqual()
	s.wantLost(nil)
}

// TestTruncateGivenUp_D26: a truncate checkpoint that gives up because a transaction stays open has
// kept new transactions waiting, and reports for how long.
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

// TestBrokenSpoolHoldsNothing_S20: while no segment can be made durable, the WAL is not held, and
// the application can reset it.
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
			t.Fatal("the WAL is still held after a minute in which no segment could be stored")
		}
	}
	if got := output(t, "sqlite3", s.path, "pragma wal_checkpoint(truncate)"); !strings.HasPrefix(string(got), "0|") {
		t.Errorf("the application's checkpoint: %s", got)
	}
	s.capture.flusher.Store = (*segments.Commit).Run
	s.settle()
	s.checkEqual()
}

// TestCopiedOver_D4: another database is copied into the file while no application is connected and
// our connections keep its WAL. That is noticed.
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
			t.Fatal("the WAL is not fully backfilled after a minute")
		}
	}
	a.kill()
	output(t, "cp", s.path+".backup", s.path)
	for deadline := time.Now().Add(time.Minute); s.capture.Discontinuities()["replaced"] == 0; <-time.After(
		50 * time.Millisecond) {
		_, _ = s.capture.Step(s.ctx, false) // the WAL may refer to pages that the new file does not have
		if time.Now().After(deadline) {
			t.Fatal("not noticed within a minute")
		}
	}
}
