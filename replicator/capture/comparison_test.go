package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
)

// updates is the format of a line that changes rows all over the database.
const updates = `[(db.execute("begin immediate"), [db.execute("update t set v=? where id=?", (rnd.randbytes(1000), ` +
	`rnd.randrange(1500))) for _ in range(20)], db.execute("commit")) for _ in range(%d)] and 1`

// TestComparison_D78_whileWriting: the first capture and every comparison are exact while the
// application writes and the WAL is restarted. What is too large for a segment is not staged at
// all: replicas then begin with a snapshot.
func TestComparison_D78_whileWriting(t *testing.T) {
	t.Parallel()
	for _, stage := range []int64{64 << 20, 128 << 10} {
		t.Run(fmt.Sprintf("stage %d kB", stage>>10), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.patiently()
			s.options.RestartAt, s.options.StallBudget = 1<<20, time.Second
			a := startApp(t, s.path)
			a.do("schema()")
			a.do(
				`[db.execute("begin"), [db.execute("insert into t(k,v) values(?,?)", (i, rnd.randbytes(1000))) for i in ` +
					`range(1500)], db.execute("commit")] and 1`)
			s.open()
			s.capture.comparer.stage, s.capture.comparer.portion = stage, 128<<10
			restarts, largest := 0, int64(0)
			for round := range 3 {
				if round > 0 {
					s.capture.continuity.lose(tail.ReasonFrames, "the test says so")
				}
				compared := false
				for !compared {
					a.during(fmt.Sprintf(updates, 40), func() {
						p := s.step(false)
						if compared = compared || p.Reason != ""; p.Restart {
							restarts++
						}
						if x, err := s.files.WALIndex(); err == nil {
							largest = max(largest, int64(x.MaxFrame)*int64(x.PageSize+dbfile.FrameHeaderSize))
						}
					})
				}
				if stage != 64<<20 && round == 0 {
					if n := s.capture.Spool().Pressure(); s.capture.Spool().List() != nil && s.capture.Spool().List()[0].Snapshot() {
						t.Errorf("the first capture was staged: %d bytes in the spool", n)
					}
				}
				s.settle()
				if next := s.capture.Spool().After(s.copies.last); len(next) == 0 || next[0].MinTXID > s.copies.last+1 {
					s.copySnapshot()
				}
				s.checkEqual()
			}
			t.Logf("%d restarts, at most %d kB in the wal", restarts, largest>>10)
			s.wantLost(map[Reason]uint64{tail.ReasonFrames: 2})
		})
	}
}

// patiently gives the scene more time, for a loaded machine.
func (s *scene) patiently() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	s.t.Cleanup(cancel)
	s.ctx = ctx
}

// copySnapshot replaces the content of the copy with a new snapshot of the source.
func (s *scene) copySnapshot() {
	s.t.Helper()
	r, err := s.capture.OpenSnapshot(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	if err := r.WriteLTX(s.ctx, &out, ""); err != nil {
		s.t.Fatal(err)
	}
	if err := s.copies.file.Truncate(0); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.copies.file.Seek(0, io.SeekStart); err != nil {
		s.t.Fatal(err)
	}
	if err := ltx.NewDecoder(bytes.NewReader(out.Bytes())).DecodeDatabaseTo(s.copies.file); err != nil {
		s.t.Fatal(err)
	}
	s.copies.last = r.Header().MaxTXID
	clear(s.copies.sums)
	content, err := os.ReadFile(s.copies.path)
	if err != nil {
		s.t.Fatal(err)
	}
	size := int(r.Header().PageSize)
	for page := uint32(1); page <= r.Header().Commit; page++ {
		s.copies.sums[page] = ltx.ChecksumPage(page, content[int(page-1)*size:int(page)*size])
	}
}

// TestComparison_D78_otherSizes: the application shrinks, grows and vacuums its database during
// comparisons.
func TestComparison_D78_otherSizes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.patiently()
	s.options.RestartAt, s.options.StallBudget = 256<<10, time.Second
	a := startApp(t, s.path)
	a.do(`db.execute("pragma auto_vacuum=full")`)
	a.do(`db.execute("vacuum")`)
	a.do("schema()")
	a.do("commit(100, 30)")
	s.open()
	s.capture.comparer.portion = 8 << 10
	for round := range 5 {
		s.capture.continuity.lose(tail.ReasonFrames, "the test says so")
		a.during(
			`[db.execute("delete from t where id%3>0"), commit(100, 20), db.execute("delete from t where id%2"), commit(20, `+
				`10)] and 1`, func() { s.step(false) })
		if round%2 == 1 {
			s.capture.continuity.lose(tail.ReasonFrames, "the test says so")
			a.during(`db.execute("vacuum")`, func() { s.step(false) })
		}
		s.checkEqual()
	}
}

// TestPadding_D75: with psow=0 SQLite pads a sector with copies of a commit's last frame, including
// its commit mark. These copies do not count as commits, but two commits that write the same row
// do.
func TestPadding_D75(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do(
		`[db.close(), globals().update(db=sqlite3.connect("file:"+path+"?psow=0", uri=True, isolation_level=None, ` +
			`timeout=20)), db.execute("pragma synchronous=full").fetchall()] and 1`)
	a.do("commit(5)")
	s.open()
	s.settle()
	for range 5 {
		before := s.capture.tail.Frames
		a.do(`[(db.execute("update t set k=7, v=x'00' where id=1")) for _ in range(3)] and 1`)
		a.do("commit(3)")
		if s.step(true).Commits != 6 {
			t.Errorf("not six commits, in %d frames", s.capture.tail.Frames-before)
		}
	}
	s.wantLost(nil)
	s.checkEqual()
}

// TestFailedSync_S20: when the page-checksum map could not be synced, it is written anew instead of
// being synced again, and until then no segment is released.
func TestFailedSync_S20(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	s.copies.apply(s.capture.Spool().List())
	for range 3 {
		a.do("commit(20, 5)")
		s.settle()
		s.copies.apply(s.capture.Spool().List())
		held, failed := len(s.capture.Spool().List()), s.capture.state.Sums()
		if err := failed.Close(); err != nil { // so that its sync fails
			t.Fatal(err)
		}
		for range 2 {
			if err := s.capture.Spool().Release(s.capture.Spool().Last()); err == nil {
				t.Error("released although the map is not durable")
			}
		}
		if n := len(s.capture.Spool().List()); n != held {
			t.Errorf("%d segments of %d are left", n, held)
		}
		s.capture.Step(s.ctx, true) // may report that the old file is closed
		s.step(true)
		if s.capture.state.Sums() == failed {
			t.Error("the map is still the one that failed")
		}
		if err := s.capture.Spool().Release(s.capture.Spool().Last()); err != nil {
			t.Error(err)
		}
		s.crash()
		s.open()
	}
	s.checkEqual()
	s.wantLost(nil)
}

// TestComparisonNeverEnds_D4: a comparison that is disturbed again and again is reported as an
// error, or else a caller waiting for a sync would wait forever.
func TestComparisonNeverEnds_D4(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var late atomic.Int64 // how far ahead the clock is
	s.options.Clock = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(5)")
	s.open()
	s.settle()
	s.capture.continuity.lose(tail.ReasonReplaced, "for the test")
	keepBounded := s.capture.comparer.between
	s.capture.comparer.between = func(context.Context) error { return view.ErrNone }
	if got, err := s.capture.Step(s.ctx, true); err != nil || got.Complete || got.Pending.IsZero() {
		t.Errorf("disturbed once: %+v, %v; want it pending, without an error", got, err)
	}
	late.Add(int64(time.Minute))
	if got, err := s.capture.Step(s.ctx, true); !errors.Is(err, view.ErrNone) || got.Complete {
		t.Errorf("disturbed for a minute: %+v, %v; want %v", got, err, view.ErrNone)
	}
	s.capture.comparer.between = keepBounded
	a.do("commit(5)")
	s.checkEqual()
}

// TestCopiedOver_D4_duringComparison: while the database is compared, a copy is written over the
// file after it was read. No checkpoint of a connected process can explain the write, so what was
// read is not what is there now.
func TestCopiedOver_D4_duringComparison(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"at_rest": false, "connected": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(50)")
			a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
			old := s.path + ".old"
			output(t, "cp", s.path, old)
			a.do(`db.execute("update t set k = k + 1")`)
			a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
			if !running {
				a.quit()
			}
			s.open()
			calls := 0
			s.capture.comparer.between = func(ctx context.Context) error {
				if calls++; calls == 2 { // the whole file was read, because it fits in one portion
					output(t, "cp", old, s.path)
				}
				return s.capture.keepBounded(ctx)
			}
			s.captured()
			if calls < 2 {
				t.Fatalf("between was called %d times during the comparison, want at least 2", calls)
			}
			s.checkEqual()
		})
	}
}

// TestComparison_D78_checkpointWaits: the application's own TRUNCATE comes while a comparison reads a long WAL with a
// read mark. The comparison begins again at once, so that the application need not wait, with WRITE locked, until all
// of the WAL has been read.
func TestComparison_D78_checkpointWaits(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do(`db.execute("pragma wal_autocheckpoint=0").fetchone()`)
	a.do("commit(20, 100, 9000)")
	s.open()
	answered, met := make(chan string, 1), false
	// The reading of the WAL asks its context every some frames.
	s.ctx = &asked{s.ctx, func() {
		if met || !s.capture.hold.active() {
			return
		}
		met = true
		a.do("commit(1)")
		a.send(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
		go func() { answered <- a.answer() }()
		for deadline := time.Now().Add(10 * time.Second); !s.capture.hold.waitedFor(); {
			if time.Sleep(time.Millisecond); time.Now().After(deadline) {
				t.Fatal("the application does not checkpoint")
			}
		}
	}}
	if p := s.step(false); !met || p.Complete || s.capture.continuity.lost == "" {
		t.Fatalf("the WAL was read to its end although a checkpoint waits: %+v, %v", p, met)
	}
	for got := ""; got == ""; {
		s.step(false)
		select {
		case got = <-answered:
			if got != "(0, 0, 0)" {
				t.Errorf("the application's checkpoint: %s", got)
			}
		case <-time.After(time.Millisecond):
		}
	}
	s.checkEqual()
}

// TestComparison_D78_checkpointBehindReader: the application's own TRUNCATE waits for a forgotten reader, and so does
// the WAL, which only grows. A comparison that began again at each of them would never end.
func TestComparison_D78_checkpointBehindReader(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do(`db.execute("pragma wal_autocheckpoint=0").fetchone()`)
	a.do("commit(1)")
	b := startApp(t, s.path)
	b.do(`(db.execute("begin"), db.execute("select count(*) from t").fetchone())`)
	a.do("commit(20, 100, 9000)")
	a.do(`db.execute("pragma busy_timeout=3000").fetchone()`)
	s.open()
	met := false
	s.ctx = &asked{s.ctx, func() {
		if met || !s.capture.hold.active() {
			return
		}
		met = true
		a.do("commit(1)")
		a.send(`db.execute("pragma wal_checkpoint(truncate)").fetchone()[0]`)
		for deadline := time.Now().Add(10 * time.Second); !s.capture.hold.waitedFor(); {
			if time.Sleep(time.Millisecond); time.Now().After(deadline) {
				t.Fatal("the application does not checkpoint")
			}
		}
	}}
	if s.step(false); !met || s.capture.continuity.lost != "" {
		t.Errorf("met the checkpoint: %v; the comparison has not ended: %q", met, s.capture.continuity.lost)
	}
	if got := a.answer(); got != "1" {
		t.Errorf("the checkpoint behind a reader: %s, want it busy", got)
	}
	b.quit()
	s.checkEqual()
}

// asked is a context that calls a function whenever it is asked for its error.
type asked struct {
	context.Context
	hook func()
}

func (a *asked) Err() error {
	a.hook()
	return a.Context.Err()
}
