package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// TestContinuity: each case does something without the capture's knowledge, and says which
// discontinuities are counted for it. In every case the copy must equal the source afterwards.
func TestContinuity(t *testing.T) {
	t.Parallel()
	away := func(do func(s *scene, a *app)) func(*scene, *app) {
		return func(s *scene, a *app) {
			s.close()
			do(s, a)
			s.open()
		}
	}
	run := func(lines ...string) func(*scene, *app) {
		return func(_ *scene, a *app) {
			for _, line := range lines {
				a.do(line)
			}
		}
	}
	const truncate = `db.execute("pragma wal_checkpoint(truncate)").fetchall()`
	const reconnect = `db.close(); connect()`
	// An open reader pins the WAL, so that it is not restarted, however long the case takes.
	const pinned = `commit(3) and (globals().update(pin=sqlite3.connect(path)), pin.execute("begin"), ` +
		`pin.execute("select count(*) from t").fetchone())`
	for _, c := range []struct {
		name string
		do   func(*scene, *app)
		want map[Reason]uint64
	}{
		{"nothing while away", away(run()), nil},
		{"P2 commits while away", away(run("commit(50)")), nil},
		{"P2 crash with commits read and not spooled", func(s *scene, a *app) {
			a.do("commit(50)")
			s.step(false)
			s.crash()
			a.do("commit(5)")
			s.open()
		}, nil},
		{"D27 reset while away, everything before was captured", away(run(truncate, "commit(50)")),
			map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"D27 level, then reset while away, nothing in between", func(s *scene, a *app) {
			s.settle()
			if r, err := s.capture.Checkpoint(s.ctx, sqlite.Passive, sqlite.Budget{}); err != nil ||
				r.Outcome != sqlite.OutcomeComplete {
				s.t.Fatalf("passive checkpoint: %v, %v", r.Outcome, err)
			}
			s.mainFileAges()
			away(run("commit(50)"))(s, a)
		}, nil},
		{"everything killed, as many commits as the counter had said, a reset", func(s *scene, a *app) {
			s.settle()
			k := s.capture.state.Position().Change
			s.crash()
			a.kill()
			b := startApp(s.t, s.path) // rebuilds the wal-index in place
			b.do(`db.execute("pragma wal_autocheckpoint=0").fetchall()`)
			b.do(fmt.Sprintf("commit(%d)", k))
			b.do(truncate)
			b.do("commit(1)")
			s.open()
		}, map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"D30 everything killed, and the WAL goes on", func(s *scene, a *app) {
			a.do(pinned)
			s.settle()
			s.crash()
			a.do("commit(50)")
			a.kill()
			b := startApp(s.t, s.path) // rebuilds the wal-index in place, with its commit counter at 0
			b.do(`db.execute("pragma wal_autocheckpoint=0").fetchall()`)
			b.do("commit(5)")
			s.open()
		}, nil},
		{"D30 everything killed, and the WAL goes on beyond what the counter had said", func(s *scene, a *app) {
			a.do(pinned)
			s.settle()
			k := s.capture.state.Position().Change
			s.crash()
			a.kill()
			b := startApp(s.t, s.path)
			b.do(`db.execute("pragma wal_autocheckpoint=0").fetchall()`)
			b.do(fmt.Sprintf("commit(%d)", k+5))
			s.open()
		}, nil},
		{"D30 everything killed, and a torn WAL written over", func(s *scene, a *app) {
			a.do(pinned)
			s.settle()
			before := fmt.Sprint(s.capture.state.Position().Frames.Frame)
			a.do("commit(5)")
			s.settle()
			s.crash()
			a.kill()
			// As after a power cut, what had not reached the disk is gone.
			output(s.t, "sh", "-c", `truncate -s $((32 + ($1+1) * (24+4096))) "$0-wal"; rm "$0-shm"`, s.path, before)
			b := startApp(s.t, s.path)
			b.do(`db.execute("pragma wal_autocheckpoint=0").fetchall()`)
			b.do("commit(50)")
			s.open()
		}, map[Reason]uint64{tail.ReasonFrames: 1}},
		{"P10 an older wal-index beside the WAL, as after a power cut", func(s *scene, a *app) {
			a.do(pinned)
			s.settle()
			s.crash()
			output(s.t, "cp", s.path+"-shm", s.path+".on-disk") // SQLite never syncs the wal-index
			a.do("commit(5)")
			a.kill()
			output(s.t, "cp", s.path+".on-disk", s.path+"-shm")
			s.open()
		}, nil},
		{"D27 commits and a reset while away", away(run("commit(50)", truncate, "commit(5)")),
			map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"D27 commits and a reset to nothing while away", away(run("commit(50)", truncate)),
			map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"application closed and reopened while away", away(run("commit(50)", reconnect, "commit(5)")),
			map[Reason]uint64{tail.ReasonWALIndex: 1}},
		{"D27 application truncates while we look", func(s *scene, a *app) {
			for range 5 {
				a.do("commit(50)")
				began := time.Now()
				if got := a.during(truncate, func() { s.step(false) }); got != "[(0, 0, 0)]" {
					s.t.Errorf("application's truncate checkpoint: %s, want it to succeed", got)
				}
				if took := time.Since(began); took > 5*time.Second {
					s.t.Errorf("application's truncate checkpoint waited %v for us", took)
				}
			}
		}, nil},
		{"application closes and reopens while we look", run("commit(50)", reconnect, "commit(5)", reconnect), nil},
		{"D6 vacuum", run("commit(200, 5)", `db.execute("delete from t where id%3")`, `db.execute("vacuum")`, "commit(5)"),
			nil},
		{"D6 vacuum while away", away(run("commit(200, 5)", `db.execute("delete from t where id%3")`, `db.execute("vacuum")`,
			truncate)), map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"D8 shrink", run(`db.execute("pragma auto_vacuum=full").fetchall()`, `db.execute("vacuum")`, "commit(100, 9)",
			`db.execute("delete from t where id%2")`, "commit(3)"), nil},
		{"D12 spilled and rolled back", run(`db.execute("pragma cache_size=10")`, `db.execute("begin")`,
			`db.execute("update t set v=randomblob(900)")`, `db.execute("rollback")`, "commit(3)"), nil},
		{"D15 shm removed while running", func(s *scene, a *app) {
			s.settle()
			a.quit()
			output(s.t, "rm", s.path+"-shm")
			startApp(s.t, s.path).do("commit(9)")
		}, map[Reason]uint64{tail.ReasonWALIndex: 1}},
		{"D2 journal mode delete and back while away",
			away(run("commit(9)", `db.execute("pragma journal_mode=delete").fetchall()`, "commit(9)",
				`db.execute("pragma journal_mode=wal").fetchall()`, "commit(9)")),
			map[Reason]uint64{tail.ReasonWALIndex: 1}},
		{"D4 replaced by rename", func(s *scene, a *app) {
			s.close()
			a.quit()
			output(s.t, "sh", "-c", `cp "$0" "$0.new" && rm -f "$0-wal" "$0-shm" && mv "$0.new" "$0"`, s.path)
			b := startApp(s.t, s.path)
			b.do("commit(9)")
			s.open()
		}, map[Reason]uint64{tail.ReasonReplaced: 1}},
		{"D3 removed and made anew", func(s *scene, a *app) {
			s.close()
			a.quit()
			output(s.t, "sh", "-c", `mv "$0" "$0.old"; rm -f "$0-wal" "$0-shm"`, s.path)
			b := startApp(s.t, s.path)
			b.do("schema()")
			b.do("commit(9)")
			s.open()
		}, map[Reason]uint64{tail.ReasonReplaced: 1}},
		{"D4 replaced by a database that nobody has open", func(s *scene, a *app) {
			s.close()
			a.do("commit(9)")
			a.quit()
			output(s.t, "sh", "-c",
				`cp "$0" "$0.new" && sqlite3 "$0.new" "update t set k=k+1" && rm -f "$0-wal" "$0-shm" "$0.new-wal" "$0.new-shm" `+
					`&& mv "$0.new" "$0"`, s.path)
			s.open()
		}, map[Reason]uint64{tail.ReasonReplaced: 1}},
		{"application closed and never came back", away(func(s *scene, a *app) {
			a.do("commit(9)")
			a.quit()
		}), map[Reason]uint64{tail.ReasonWALIndex: 1}},
		{"D15 side files removed from under an idle database", func(s *scene, a *app) {
			s.atRest(a)
			s.close()
			output(s.t, "sh", "-c", `sqlite3 "$0" "update t set k=k+1" && rm -f "$0-wal" "$0-shm"`, s.path)
			s.open()
		}, map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"two lives of the application, the first one missed", func(s *scene, a *app) {
			s.atRest(a)
			s.close()
			b := startApp(s.t, s.path)
			b.do("commit(5)")
			b.quit()
			startApp(s.t, s.path).do("commit(3)")
			s.open()
		}, map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"application killed after a truncate, counter at 0 before and after", func(s *scene, a *app) {
			s.atRest(a)
			s.close()
			b := startApp(s.t, s.path)
			b.do("commit(5)")
			b.do(truncate)
			b.kill()
			s.open()
		}, map[Reason]uint64{tail.ReasonWALReset: 1}},
		{"nothing while away, counter at 0", func(s *scene, a *app) {
			s.atRest(a)
			s.close()
			s.open()
		}, nil},
		{"D7 page size", away(run(`db.execute("pragma journal_mode=delete").fetchall()`,
			`db.execute("pragma page_size=1024").fetchall()`, `db.execute("vacuum")`,
			`db.execute("pragma journal_mode=wal").fetchall()`, "commit(9)")),
			map[Reason]uint64{tail.ReasonPageSize: 1}},
		{"D18 pages of 512 bytes with reserved ones, auto_vacuum", func(s *scene, a *app) {
			s.close()
			a.quit()
			output(s.t, "sh", "-c", `printf 'pragma journal_mode=delete; pragma page_size=512;\n.filectrl reserve_bytes 32\n'`+
				`'pragma auto_vacuum=full; vacuum; pragma journal_mode=wal;' | sqlite3 "$0"`, s.path)
			s.open()
			b := startApp(s.t, s.path)
			for range 3 {
				b.during("commit(100, 5)", func() { s.step(false) })
				b.do(`db.execute("delete from t where id%2")`)
				b.during(truncate, func() { s.step(false) })
			}
			if got := b.do(`open(path, "rb").read(21)[16:]`); got != `b'\x02\x00\x02\x02 '` {
				s.t.Errorf("page size, versions and reserved bytes: %s", got)
			}
		}, map[Reason]uint64{tail.ReasonPageSize: 1}},
		{"P13 position corrupt", away(func(s *scene, a *app) { flip(s.t, lastRecord(s)) }),
			map[Reason]uint64{tail.ReasonState: 1}},
		{"P13 page checksums corrupt", away(func(s *scene, a *app) {
			flip(s.t, filepath.Join(s.options.StateDir, "pages.sum"))
		}), map[Reason]uint64{tail.ReasonState: 1}},
		{"P12 state removed", away(func(s *scene, a *app) { os.RemoveAll(s.options.StateDir) }),
			map[Reason]uint64{tail.ReasonState: 1}},
		{"D43 journal_size_limit", func(s *scene, a *app) {
			a.do(`db.execute("pragma journal_size_limit=0").fetchall()`)
			a.during("commit(2000)", func() { s.step(false) })
			a.during(truncate, func() { s.step(false) })
			a.do("commit(9)")
		}, nil},
		{"D34 a transaction over two databases", run(`db.execute("attach ? as other", (path + ".other",))`,
			`db.execute("pragma other.journal_mode=wal").fetchall()`, `db.execute("create table other.t(v)")`,
			`(db.execute("begin"), db.execute("update t set k=k+1"), db.execute("insert into other.t select v from t"), `+
				`db.execute("commit"))`, "commit(3)"), nil},
		{"D35 virtual and strict tables", run(`db.execute("create virtual table f using fts5(b)")`,
			`db.execute("create virtual table r using rtree(id, x0, x1)")`,
			`db.execute("create table s(a int primary key, b int as (a + 1) stored) strict, without rowid")`,
			`(db.execute("insert into f select hex(v) from t"), db.execute("insert into r select rowid, k, k+1 from t"), `+
				`db.execute("insert into s(a) select rowid from t"), db.execute("insert into f(f) values('optimize')"))`,
			"commit(3)"), nil},
		{"D32 transaction larger than memory for it", run("commit(1, 12000, 4000)"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(20, 10)")
			s.options.Recover = s.recoverFromCopy
			s.open()
			s.settle()
			s.copies.apply(s.capture.Spool().List())
			c.do(s, a)
			s.checkEqual()
			s.wantLost(c.want)
		})
	}
}

// atRest ends the application, empties the WAL and opens the capture again. SQLite has then rebuilt
// the wal-index, with its commit counter at 0.
func (s *scene) atRest(a *app) {
	s.t.Helper()
	s.close()
	a.do("commit(1)") // gives the capture something to do, however long the steps before took
	a.quit()
	output(s.t, "sqlite3", s.path, "pragma wal_checkpoint(truncate)")
	s.mainFileAges()
	s.open()
	s.settle()
	if x, err := s.files.WALIndex(); err != nil || x.Change != 0 || x.MaxFrame != 0 {
		s.t.Fatalf("wal-index of a database at rest: %+v, %v", x, err)
	}
}

// mainFileAges waits until another write to the main file is sure to change its modification time.
func (s *scene) mainFileAges() {
	s.t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	for time.Since(info.ModTime()) <= mainfile.Tick {
		runtime.Gosched()
	}
}

// TestAtRest: a database that no process has open is captured like any other. The whole database is
// captured once, and not again just because an empty WAL does not tell the page size.
func TestAtRest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50)")
	a.quit()
	s.open()
	if got := s.step(true); got.TXID != 1 || !got.Complete {
		t.Fatalf("first step: txid %s, settled %v; want 1 and settled", got.TXID, got.Complete)
	}
	s.checkEqual()
	s.wantLost(nil)
	for range 2 {
		s.close()
		output(t, "sqlite3", s.path, "update t set k=k+1; pragma wal_checkpoint(truncate)")
		s.open()
		s.checkEqual()
		s.wantLost(map[Reason]uint64{tail.ReasonWALReset: 1})
	}
	for _, segment := range s.capture.Spool().After(1) {
		if segment.Snapshot() {
			t.Errorf("segment %s holds the whole database, reason %s", segment.MaxTXID, segment.Reason)
		}
	}
}

// stateLost returns a scene whose capture has lost its state and has just taken its position from
// the replica. Since that position the database has changed, and no process has it open.
func stateLost(t *testing.T) *scene {
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.checkEqual()
	s.close()
	a.do("commit(50)")
	a.quit()
	if err := os.RemoveAll(s.options.StateDir); err != nil {
		t.Fatal(err)
	}
	s.options.Recover = s.recoverFromCopy
	s.open()
	return s
}

// TestKilledBeforeTheDiff_P12: when sqlwatch is killed between a discontinuity and the comparison
// that is due for it, the comparison still happens after the restart. It may then no longer be
// possible to see what was wrong: the wal-index of an empty WAL fits a position that came from the
// replica, and a file that was copied over looks like any other.
func TestKilledBeforeTheDiff_P12(t *testing.T) {
	t.Parallel()
	t.Run("state lost", func(t *testing.T) {
		t.Parallel()
		s := stateLost(t)
		s.crash()
		s.open()
		if got := s.step(true); got.Reason != tail.ReasonState || !got.Complete {
			t.Errorf("after the kill: %+v, want the comparison", got)
		}
		s.checkEqual()
	})
	t.Run("an error before it was looked at", func(t *testing.T) {
		t.Parallel()
		s := stateLost(t)
		s.capture.continuity.lost = "" // as if the discontinuity had not been recorded
		if err := errors.Join(s.capture.hold.open(s.ctx), s.capture.hold.begin(s.ctx)); err != nil {
			t.Fatal(err)
		}
		s.checkEqual()
	})
	t.Run("doubted while running", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		s.open()
		s.checkEqual()
		s.capture.continuity.lose(tail.ReasonWALReset, "says a test")
		s.crash()
		s.open()
		if got := s.step(true); got.Reason != tail.ReasonWALReset || !got.Complete {
			t.Errorf("after the kill: %+v, want the comparison", got)
		}
		s.crash()
		s.open()
		if got := s.step(true); got.Reason != "" {
			t.Errorf("once compared: %+v, want no comparison", got)
		}
		s.checkEqual()
	})
}

// recoverFromCopy is Options.Recover for a replica that holds what was applied to the copy.
func (s *scene) recoverFromCopy(context.Context) (ltx.TXID, store.PageSums, error) {
	sums := store.PageSums{PageSize: 4096, Sums: make([]ltx.Checksum, len(s.copies.sums))}
	for page, sum := range s.copies.sums {
		sums.Sums[page-1] = sum
	}
	return s.copies.last, sums, nil
}

// lastRecord returns the path of the spool record that holds the newest position.
func lastRecord(s *scene) string {
	paths, err := filepath.Glob(filepath.Join(s.options.StateDir, "spool", "*.json"))
	if err != nil || len(paths) == 0 {
		s.t.Fatalf("no records in the spool: %v", err)
	}
	return paths[len(paths)-1]
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if filepath.Base(path) == "pages.sum" {
		b[4096+17] ^= 4 // entries begin at offset 4096; the middle of the file is padding
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReplacedWhileRunning(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	output(t, "sh", "-c", `cp "$0" "$0.new" && mv "$0.new" "$0"`, s.path)
	if _, err := s.capture.Step(s.ctx, true); !errors.Is(err, ErrReplaced) {
		t.Fatalf("step after the file was replaced: %v, want ErrReplaced", err)
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	now := time.Now()
	s.options.Clock = func() time.Time { return now }
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50)")
	s.open()
	for range 5 {
		now = now.Add(30 * time.Second)
		s.mainFileAges()
		s.step(true)
	}
	if s.capture.hold.isOpen() {
		t.Fatal("connections are open after two idle minutes")
	}
	last := s.capture.Spool().Last()
	if r := s.step(true); r.TXID != last || s.capture.hold.isOpen() {
		t.Errorf("step of an idle database: txid %s after %s, connections open: %v", r.TXID, last, s.capture.hold.isOpen())
	}
	a.do("commit(9)")
	s.checkEqual()
	s.wantLost(nil)
	if got := s.capture.Spool().Last(); got != last+1 {
		t.Errorf("txid %s after waking, want %s", got, last+1)
	}
}

func TestSpoolLimit(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.SpoolLimit = 200 << 10
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	var err error
	for range 100 {
		a.do("commit(20, 20)")
		if _, err = s.capture.Step(s.ctx, true); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrSpoolFull) {
		t.Fatalf("steps beyond the limit: %v, want ErrSpoolFull", err)
	}
	if n := s.capture.Spool().Bytes(); n > 2*s.options.SpoolLimit {
		t.Errorf("spool holds %d bytes with a limit of %d", n, s.options.SpoolLimit)
	}
	r, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{})
	if err != nil || r.Outcome != sqlite.OutcomeTruncated {
		t.Errorf("checkpoint with a full spool: %v, %v; want truncated", r.Outcome, err)
	}
	s.copies.apply(s.capture.Spool().List())
	if err := s.capture.Spool().Release(s.copies.last); err != nil {
		t.Fatal(err)
	}
	s.checkEqual()
	s.wantLost(map[Reason]uint64{tail.ReasonSpool: 1})
}

func TestSpoolRelease(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	for range 6 {
		a.do("commit(5, 5)")
		s.step(true)
	}
	s.copies.apply(s.capture.Spool().List())
	if err := s.capture.Spool().Release(4); err != nil {
		t.Fatal(err)
	}
	if list := s.capture.Spool().List(); len(list) != 2 || list[0].MaxTXID != 5 {
		t.Fatalf("after release of 4: %d segments from %v", len(list), list)
	}
	s.crash()
	s.open()
	if err := s.capture.Spool().Release(6); err != nil {
		t.Fatal(err)
	}
	if n := s.capture.Spool().Bytes(); n != 0 {
		t.Errorf("empty spool holds %d bytes", n)
	}
	s.crash()
	a.do("commit(5, 5)")
	s.open()
	s.checkEqual()
	s.wantLost(nil)
	if last := s.capture.Spool().Last(); last != 7 {
		t.Errorf("last txid %s, want 7", last)
	}
}
