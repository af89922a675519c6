package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/leftover"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// steps runs capture steps as the daemon does until the condition holds.
func (s *scene) steps(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		got := s.step(false)
		if time.Now().After(deadline) {
			s.t.Fatalf("never happened: %s; %+v, %+v", what, got, s.capture.presence)
		}
		time.Sleep(min(got.Next, 50*time.Millisecond))
	}
}

func (s *scene) sides() (there string) {
	for _, side := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(s.path + side); err == nil {
			there += side
		}
	}
	return there
}

// live starts an application and runs steps until it counts as long-lived.
func (s *scene) live() *app {
	s.t.Helper()
	a := startApp(s.t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	if s.capture == nil {
		s.open()
	}
	s.trusted()
	return a
}

// trusted runs steps until the connected application counts as long-lived.
func (s *scene) trusted() {
	s.t.Helper()
	s.steps("others are connected", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
	since := time.Now()
	s.steps("the other process counts as long-lived", func() bool {
		return time.Since(since) > time.Second+200*time.Millisecond && s.capture.presence.Stay(time.Now())
	})
	s.step(true)
}

// TestLeave: when the application has ended, no side file and no connection of ours remains,
// whatever it did last. When it starts again, continuity is proven without a comparison.
func TestLeave(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*app){
		"P16_close":             func(a *app) { a.quit() },
		"P16_commits_and_close": func(a *app) { a.do("commit(300)"); a.quit() },
		"P16_killed":            func(a *app) { a.do("commit(30)"); a.kill() },
		"P16_checkpoints_and_close": func(a *app) {
			a.do("commit(30)")
			a.do(`db.execute("pragma wal_checkpoint").fetchone()`)
			a.quit()
		},
		// The last write and the removal of the WAL usually fall within one tick of the kernel's
		// file times.
		"P16_commits_and_closes_unsynced": func(a *app) {
			a.do(`db.execute("pragma synchronous=off")`)
			a.do("commit(30)")
			a.quit()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := s.live()
			end(a)
			s.steps("nothing of ours stays", func() bool { return s.sides() == "" && !s.capture.hold.isOpen() })
			s.checkEqual()
			for range 3 {
				a = startApp(t, s.path)
				a.do("commit(7)")
				s.steps("the application that started again was noticed", s.capture.hold.isOpen)
				s.checkEqual()
				a.quit()
				s.steps("nothing of ours stays", func() bool { return s.sides() == "" || s.capture.hold.blank })
			}
			s.checkEqual()
			s.wantLost(nil)
			// The same holds when sqlwatch was not running in between.
			s.close()
			if got := s.sides(); got != "" {
				t.Errorf("after our own end: %s", got)
			}
			s.open()
			a = startApp(t, s.path)
			a.do("commit(7)")
			s.checkEqual()
			s.wantLost(nil)
		})
	}
}

// TestShortLives_metByNoLook: an application may run for so short a time that no step sees it
// connected. The first such run costs a comparison; after it sqlwatch stays connected, so that the
// next ones cost none.
func TestShortLives_metByNoLook(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.IdleAfter = 5 * time.Second
	a := s.live()
	a.quit()
	s.steps("nothing of ours stays", func() bool { return s.sides() == "" && !s.capture.hold.isOpen() })
	s.stepsOn("the application has been gone for IdleAfter", after(s.options.IdleAfter))
	for range 4 {
		a := startApp(t, s.path)
		a.do("commit(3)")
		a.quit()
		s.captured()
		s.steps("capture is at rest", func() bool { return s.capture.hold.blank || !s.capture.hold.isOpen() })
	}
	if got := s.capture.Discontinuities()["wal_reset"]; got != 1 {
		t.Errorf("%d of 4 runs of the application cost a comparison, want 1", got)
	}
	s.checkEqual()
}

// TestLeave_P16_interrupted: another process was in the way when a step began a new read
// transaction, so the connections are open without one. The next step continues from there, and so
// does Close.
func TestLeave_P16_interrupted(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*scene){
		"step": func(s *scene) {
			s.steps("nothing of ours stays", func() bool { return s.sides() == "" && !s.capture.hold.isOpen() })
		},
		"end": func(s *scene) { s.close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(30)")
			a.kill()
			s.open()
			s.steps("the WAL was emptied, and the index forgotten", func() bool { return s.capture.hold.blank })
			hold := s.capture.hold
			s.capture.departure.idleAfter = time.Second // not earlier: on a busy machine the steps above may take that long
			if err := hold.reader().EndRead(); err != nil {
				t.Fatal(err)
			}
			hold.proven = false
			leave(s)
			if got := s.sides(); got != "" {
				t.Errorf("there is still %s", got)
			}
		})
	}
}

// TestLeave_P16_killed: sqlwatch is killed while it is connected to a database that no other
// process uses. The side files it leaves are removed once it would have left the database itself;
// not earlier, not while another process is connected, and not if the WAL is not empty.
func TestLeave_P16_killed(t *testing.T) {
	t.Parallel()
	killed := func(t *testing.T) *scene {
		t.Helper()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(30)")
		a.kill()
		s.open()
		s.steps("the WAL was emptied, and the index forgotten", func() bool { return s.capture.hold.blank })
		s.crash()
		if got := s.sides(); got != "-wal-shm" {
			t.Fatalf("side files %q, want both", got)
		}
		return s
	}
	t.Run("goes", func(t *testing.T) {
		t.Parallel()
		s := killed(t)
		s.options.IdleAfter = time.Second
		s.open()
		s.step(true)
		if got := s.sides(); got != "-wal-shm" {
			t.Errorf("side files %q after the first step, want both: a process that connects now must not get SQLITE_BUSY", got)
		}
		s.steps("nothing stays", func() bool { return s.sides() == "" })
		s.checkEqual()
		s.wantLost(nil)
		a := startApp(t, s.path)
		a.do("commit(7)")
		s.checkEqual()
		s.wantLost(nil)
	})
	t.Run("somebody is there", func(t *testing.T) {
		t.Parallel()
		s := killed(t)
		a := startApp(t, s.path)
		a.do(`db.execute("select count(*) from t").fetchone()`)
		s.open()
		s.step(true)
		s.close()
		if got := s.sides(); got != "-wal-shm" {
			t.Fatalf("side files %q, want both", got)
		}
		a.do("commit(7)")
		a.wantSound()
	})
	t.Run("a copy arrives", func(t *testing.T) {
		t.Parallel()
		s := killed(t)
		s.open()
		s.step(true)
		// The WAL of another database, whose main file has not arrived yet.
		b := startApp(t, s.path+".copy")
		b.do("schema()")
		b.do("commit(30)")
		b.kill()
		output(t, "mv", s.path+".copy-wal", s.path+"-wal")
		if err := leftover.Remove(s.ctx, s.files); err != nil {
			t.Log(err)
		}
		if st, err := os.Stat(s.path + "-wal"); err != nil || st.Size() == 0 {
			t.Errorf("the WAL of the copy: %v, %v", st, err)
		}
	})
}

// TestRestoredOver: the application has ended, and a backup is put in the place of its database. At
// any time after that, the application finds exactly the backup, and capture captures it.
func TestRestoredOver(t *testing.T) {
	t.Parallel()
	ways := map[string]string{
		"mv": `mv "$1" "$0"`, "cp": `cp "$1" "$0"`, "rsync": `cp "$1" "$0.tmp" && mv "$0.tmp" "$0"`,
		"restore": `sqlite3 "$0" ".restore $1"`,
	}
	for how, put := range ways {
		for _, lived := range []string{"long", "short"} {
			t.Run("D4_"+how+"_"+lived, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				backup := filepath.Join(t.TempDir(), "backup.db")
				a := startApp(t, s.path)
				a.do("schema()")
				a.do("commit(40, 3)")
				a.quit()
				output(t, "sqlite3", s.path, ".backup "+backup)
				want := string(output(t, "sqlite3", backup, "select count(*), sum(k) from t"))
				if lived == "long" {
					a = s.live()
				} else {
					s.open()
					s.steps("capture has begun", func() bool { return s.capture.hold.blank })
					a = startApp(t, s.path)
				}
				a.do("commit(500, 5, 900)")
				a.quit()
				gone := time.Now()
				s.steps("nothing of ours could be taken for a part of another file", func() bool {
					wal, err := os.Stat(s.path + "-wal")
					return s.sides() == "" || s.capture.hold.blank && err == nil && wal.Size() == 0
				})
				t.Logf("after %v", time.Since(gone))
				output(t, "sh", "-c", put, s.path, backup)
				a = startApp(t, s.path)
				a.wantSound()
				if got := string(output(t, "sqlite3", s.path, "select count(*), sum(k) from t")); got != want {
					t.Errorf("the application finds %s, the copy has %s", got, want)
				}
				a.do("commit(3)")
				if _, err := s.capture.Step(s.ctx, true); errors.Is(err, ErrReplaced) {
					s.close()
					s.open()
				}
				s.checkEqual()
			})
		}
	}
}

// rhythm is a number of runs of an application, with a pause in seconds after each.
type rhythm struct {
	pause float64
	n     int
}

// TestShortLives: an application that opens, commits and closes for each request costs no
// comparison, and none of its commits is missed.
func TestShortLives(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(5)")
	a.quit()
	s.open()
	s.steps("capture has begun", s.capture.hold.isOpen)
	again := "[(connect(), commit(), db.close(), time.sleep(%v)) for _ in range(%d)] and 0"
	b := startApp(t, s.path)
	b.do("db.close()")
	rhythms := []rhythm{{0.02, 150}, {0.6, 6}, {0.3, 10}, {0.1, 20}}
	if os.Getenv(envRounds) != "" {
		s.ctx = context.Background()
		rhythms = []rhythm{{0.02, 1000}, {3, 100}}
	}
	for _, rhythm := range rhythms {
		next := time.Time{}
		b.during(fmt.Sprintf(again, rhythm.pause, rhythm.n), func() {
			if now := time.Now(); now.After(next) {
				next = now.Add(s.step(false).Next)
			}
		})
		s.wantLost(nil)
	}
	s.checkEqual()
	s.wantLost(nil)
}

// TestShortLives_between: a process that connects between two reads of one step is found by the
// next step, and costs no comparison.
func TestShortLives_between(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*scene, *app) {
		t.Helper()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(5)")
		a.do("db.close()")
		s.open()
		s.steps("the index was forgotten", func() bool { return s.capture.hold.blank })
		return s, a
	}
	index := func(s *scene) dbfile.WALIndex {
		s.t.Helper()
		x, err := s.files.WALIndex()
		if err != nil {
			s.t.Fatal(err)
		}
		return x
	}
	end := func(s *scene) {
		s.t.Helper()
		s.wantLost(nil)
		s.checkEqual()
		s.wantLost(nil)
	}
	for when, stay := range map[string]string{
		"gone": "(connect(), commit(), db.close()) and 0", "there": "(connect(), commit()) and 0",
	} {
		t.Run("index_"+when, func(t *testing.T) {
			t.Parallel()
			s, a := begin(t)
			x := index(s)
			a.do(stay)
			if _, err := s.capture.departure.rest(s.ctx, x, time.Now()); err != nil {
				t.Fatal(err)
			}
			if !s.capture.hold.isOpen() {
				t.Error("an application that has just connected is taken for a copy put in the database's place")
			}
			end(s)
		})
	}
	t.Run("forget", func(t *testing.T) {
		t.Parallel()
		s, a := begin(t)
		a.do("(connect(), commit(), db.close()) and 0")
		s.steps("the WAL was emptied", func() bool {
			st, err := os.Stat(s.path + "-wal")
			return err == nil && st.Size() == 0 && s.capture.hold.isOpen() && !s.capture.hold.blank
		})
		time.Sleep(2 * mainfile.Tick)
		x := index(s)
		main, err := s.capture.continuity.main.Sure()
		if err != nil || main == (spool.MainFile{}) {
			t.Fatalf("%+v, %v", main, err)
		}
		a.do("(connect(), db.execute('begin immediate')) and 0")
		if err := s.capture.departure.forget(s.ctx, x, main); err != nil {
			t.Fatal(err)
		}
		s.wantLost(nil)
		a.do("db.execute('insert into t(k) values(1)') and db.execute('commit') and 0")
		end(s)
	})
}

// TestUnclaimed_D4: a WAL is not unclaimed if the application that wrote it connected after the
// step had checked who is connected, or came and went between two steps. Its commits show whose WAL
// it is, and the WAL does not remain.
func TestUnclaimed_D4(t *testing.T) {
	t.Parallel()
	left := func(t *testing.T) *scene {
		t.Helper()
		s := newScene(t)
		s.options.IdleAfter = time.Second
		s.live().quit()
		s.steps("nothing of ours stays", func() bool { return s.sides() == "" && !s.capture.hold.isOpen() })
		return s
	}
	t.Run("come", func(t *testing.T) {
		t.Parallel()
		s := left(t)
		b := startApp(t, s.path)
		b.do("commit(3)")
		if _, err := s.files.Refresh(); err != nil {
			t.Fatal(err)
		}
		if s.capture.claim.Missing(time.Now()) {
			t.Error("the WAL of a connected application counts as unclaimed")
		}
		b.quit()
		s.settle()
		s.checkEqual()
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		s := left(t)
		s.close()
		b, c := startApp(t, s.path), startApp(t, s.path)
		c.do("db.close()")
		b.do("commit(5)")
		b.kill()
		s.open()
		s.stepsOn("it is read, and left as it is", func() bool {
			return s.capture.hold.isOpen() && s.capture.hold.unclaimed && s.step(true).Complete
		})
		c.do("(connect(), commit(), db.close()) and 0")
		s.steps("no WAL of the application remains", func() bool { return s.sides() == "" || s.capture.hold.blank })
		s.checkEqual()
	})
}

// TestForeignUse: while the application uses another wal-index than the one at the database's path,
// or none, nothing counts as captured and sqlwatch has no connection. Afterwards everything is
// captured.
func TestForeignUse(t *testing.T) {
	t.Parallel()
	foreign := func(s *scene) *dbfile.ForeignError {
		s.t.Helper()
		var found *dbfile.ForeignError
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			got, err := s.capture.Step(s.ctx, true)
			if errors.As(err, &found) {
				if s.capture.hold.isOpen() || got.Complete {
					s.t.Errorf("connected %v, complete %v beside a foreign WAL", s.capture.hold.isOpen(), got.Complete)
				}
				return found
			}
			if time.Now().After(deadline) {
				s.t.Fatalf("never told: %+v, %v", got, err)
			}
		}
	}
	rejoin := func(s *scene) {
		s.t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if _, err := s.capture.Step(s.ctx, true); err == nil {
				break
			} else if time.Now().After(deadline) {
				s.t.Fatal(err)
			}
		}
		s.checkEqual()
	}
	opens := map[string]string{
		"D24_exclusive": `(db.close(), globals().update(db=sqlite3.connect(path, isolation_level=None, timeout=5)), ` +
			`db.execute("pragma locking_mode=exclusive"), commit(30))`,
		"D24_unix_excl": `(db.close(), globals().update(db=sqlite3.connect("file:"+path+"?vfs=unix-excl", uri=True, ` +
			`isolation_level=None, timeout=5)), commit(30))`,
		"D24_unix_none": `(db.close(), globals().update(db=sqlite3.connect("file:"+path+"?vfs=unix-none", uri=True, ` +
			`isolation_level=None)), db.execute("pragma locking_mode=exclusive"), commit(30))`,
		"D24_unix_dotfile": `(db.close(), globals().update(db=sqlite3.connect("file:"+path+"?vfs=unix-dotfile", uri=True, ` +
			`isolation_level=None)), db.execute("pragma locking_mode=exclusive"), commit(30))`,
	}
	for name, open := range opens {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := s.live() // may switch to exclusive use at once, because capture has stood back
			if name != "D24_exclusive" && name != "D24_unix_excl" {
				a.do("db.close()")
				s.steps("we have left", func() bool { return !s.capture.hold.isOpen() })
				a.do("connect()")
			}
			a.do(open)
			foreign(s)
			a.do("commit(20)")
			a.quit()
			rejoin(s)
			if got := string(output(t, "sqlite3", s.path, "pragma integrity_check")); strings.TrimSpace(got) != "ok" {
				t.Error(got)
			}
		})
	}
	for _, rm := range []string{"-shm", "-shm -wal"} {
		t.Run("D15_removed"+strings.ReplaceAll(rm, " ", ""), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := s.live()
			s.removeSides(rm)
			a.do("commit(30)")
			foreign(s)
			rows := a.do(`commit(10) and db.execute("select count(*) from t").fetchone()[0]`)
			a.quit()
			rejoin(s)
			s.wantRows(rows)
		})
	}
}

// TestWantsTheFile: a process that needs exclusive use of the file gets it at once.
func TestWantsTheFile(t *testing.T) {
	t.Parallel()
	t.Run("D2_D73_journal_mode", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := s.live()
		if got := a.do(`db.execute("pragma journal_mode=delete").fetchone()[0]`); got != "delete" {
			t.Errorf("journal mode %s, want delete", got)
		}
		a.do("commit(9)")
		if got, err := s.capture.Step(s.ctx, true); err == nil && got.Complete {
			t.Errorf("with a rollback journal: %+v, want it not complete", got)
		}
		a.do(`db.execute("pragma journal_mode=wal").fetchone()`)
		a.do("commit(9)")
		s.captured()
		s.checkEqual()
	})
	t.Run("D2_D73_journal_mode_again", func(t *testing.T) { // maintenance once a night, and once more by hand
		t.Parallel()
		s := newScene(t)
		a := s.live()
		for range 3 {
			a.do("commit(9)")
			s.stepsOn("capture stands back", func() bool { return s.capture.hold.stood })
			a.during(`[db.execute(q).fetchall() for q in ("pragma journal_mode=delete", "vacuum", "pragma journal_mode=wal")]`+
				` and commit(9)`, func() { s.capture.Step(s.ctx, false) })
			s.captured()
		}
		s.checkEqual()
	})
	t.Run("D73_deleted_and_made_anew", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := s.live()
		a.do("(db.close(), os.remove(path), connect(), schema()) and commit(50)")
		a.wantSound()
		if _, err := s.capture.Step(s.ctx, true); !errors.Is(err, ErrReplaced) {
			t.Fatalf("got %v, want ErrReplaced", err)
		}
		s.close()
		a.do("commit(5)")
		s.open()
		s.checkEqual()
	})
	t.Run("D73_deleted_and_made_anew_again", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := s.live()
		anew := "(db.close(), os.remove(path), connect(), schema()) and commit(50)"
		a.do(anew)
		for range 2 {
			if _, err := s.capture.Step(s.ctx, true); !errors.Is(err, ErrReplaced) {
				t.Fatalf("got %v, want ErrReplaced", err)
			}
			s.close()
			s.open()
			if got := s.step(true); got.Complete || s.capture.hold.isOpen() {
				t.Errorf("connected to a new file whose application has just come: %+v", got)
			}
			a.do(anew) // would fail with "disk I/O error" if our old wal-index were still beside the new file
			a.wantSound()
		}
		if _, err := s.capture.Step(s.ctx, true); !errors.Is(err, ErrReplaced) {
			t.Fatalf("got %v, want ErrReplaced", err)
		}
		s.close()
		s.open()
		s.checkEqual()
	})
}

// TestCopiedOverLive: a copy written over the file of a running application is noticed, although
// the application never stops committing.
func TestCopiedOverLive(t *testing.T) {
	t.Parallel()
	t.Run("D4", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(50)")
		a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
		old := s.path + ".old"
		output(t, "cp", s.path, old)
		a.do("commit(200, 2, 900)")
		s.open()
		s.settle()
		if _, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
			t.Fatal(err)
		}
		a.do("commit(5)")
		s.mainFileAges()
		s.step(true)
		output(t, "cp", old, s.path)
		s.mainFileAges()
		a.do("commit(5)")
		// The file may no longer be a valid database. Then nothing is captured, and that is
		// reported.
		if got, err := s.capture.Step(s.ctx, true); err != nil && got.Complete {
			t.Errorf("settled in spite of %v", err)
		}
		s.wantLost(map[Reason]uint64{tail.ReasonReplaced: 1})
	})
	t.Run("D4_shorter", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(5)")
		a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
		old := s.path + ".old"
		output(t, "cp", s.path, old)
		a.do("commit(200, 2, 900)")
		s.open()
		s.settle()
		if _, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
			t.Fatal(err)
		}
		output(t, "cp", old, s.path)
		a.send("commit(1)") // it may or may not notice the corruption
		a.lines.Scan()
		for deadline := time.Now().Add(time.Minute); ; {
			got, err := s.capture.Step(s.ctx, true)
			if got.Complete {
				t.Fatal("a step is complete although the file lacks pages")
			}
			if errors.Is(err, ErrCut) {
				break
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("a file that lacks pages: %v, want %v", err, ErrCut)
			}
			if got.Pending.IsZero() {
				t.Error("nothing is pending although the state of the database is unknown")
			}
		}
		a.kill()
		// Once a whole database is put in its place, it is captured again.
		output(t, "sh", "-c", `rm -f "$0-wal" "$0-shm"; cp "$1" "$0"`, s.path, old)
		b := startApp(t, s.path)
		b.do("commit(3)")
		for deadline := time.Now().Add(time.Minute); ; {
			if got, err := s.capture.Step(s.ctx, true); err == nil && got.Complete {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("a whole file was put in place: %+v, %v", got, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		s.checkEqual()
	})
	for name, look := range map[string]func(*scene) error{
		"D4_afterTheirCheckpoint": func(s *scene) error { _, err := s.capture.Step(s.ctx, true); return err },
		"D4_beforeACheckpoint": func(s *scene) error {
			_, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(50)")
			a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
			old := s.path + ".old"
			output(t, "cp", s.path, old)
			a.do("commit(200, 2, 900)")
			s.open()
			s.settle()
			// All this happens between two steps.
			a.do(`db.execute("pragma wal_checkpoint(passive)").fetchone()`)
			output(t, "cp", old, s.path)
			a.send("commit(1)") // it may or may not notice the corruption
			a.lines.Scan()
			if err := look(s); err != nil && !errors.Is(err, ErrCut) {
				t.Error(err)
			}
			s.wantLost(map[Reason]uint64{tail.ReasonReplaced: 1})
		})
	}
	t.Run("D4_rightAfterACheckpoint", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(50)")
		a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
		old := s.path + ".old"
		output(t, "cp", s.path, old)
		a.do("commit(200, 2, 900)")
		s.open()
		s.settle()
		if _, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
			t.Fatal(err)
		}
		s.mainFileAges() // without a step in between
		output(t, "cp", old, s.path)
		s.mainFileAges()
		a.do("commit(5)")
		if got, err := s.capture.Step(s.ctx, true); err != nil && got.Complete {
			t.Errorf("settled in spite of %v", err)
		}
		s.wantLost(map[Reason]uint64{tail.ReasonReplaced: 1})
	})
}

// TestCopyAfterASecond_D4: an application ends; a second later a copy is put in the place of its
// database; a second after that the application starts and finds exactly the copy, which is then
// captured. Each way of copying is tried once, or 20 times if SQLWATCH_TEST_KILL_ROUNDS is set.
func TestCopyAfterASecond_D4(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv(envRounds) != "" {
		rounds = 20
	}
	ways := map[string]string{
		"mv": `mv "$1" "$0"`, "cp": `cp "$1" "$0"`, "rsync": `cp "$1" "$0.tmp" && mv "$0.tmp" "$0"`,
		"restore": `sqlite3 "$0" ".restore $1"`,
	}
	for how, put := range ways {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.ctx = context.Background()
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(40, 3)")
			s.open()
			for range rounds {
				s.liveSome(a)
				backup := filepath.Join(t.TempDir(), "backup.db")
				output(t, "sqlite3", s.path, ".backup "+backup)
				want := string(output(t, "sqlite3", backup, "select count(*), sum(k) from t"))
				s.aSecond(func() { a.do("commit(300, 3, 900)") })
				a.quit()
				s.aSecond(nil)
				output(t, "sh", "-c", put, s.path, backup)
				s.aSecond(nil)
				a = startApp(t, s.path)
				if got := string(output(t, "sqlite3", s.path, "select count(*), sum(k) from t")); got != want {
					t.Fatalf("the application finds %s, the copy has %s", got, want)
				}
				if got := a.do(`db.execute("pragma integrity_check").fetchone()[0]`); got != "ok" {
					t.Fatalf("integrity: %s", got)
				}
				a.do("commit(3)")
				s.aSecond(nil)
				s.checkEqual()
			}
		})
	}
}

// liveSome runs steps as the daemon does for two seconds, while the application commits and then is
// idle.
func (s *scene) liveSome(a *app) {
	s.t.Helper()
	s.aSecond(func() { a.do("commit(5)") })
	s.aSecond(nil)
}

// aSecond runs steps as the daemon does for a second. If do is not nil, it runs at the same time.
func (s *scene) aSecond(do func()) {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if do != nil {
			do()
		}
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		got, err := s.capture.Step(s.ctx, false)
		switch {
		case errors.Is(err, ErrReplaced):
			s.close()
			s.open()
		case err != nil: // the file is just being written
			got.Next = 50 * time.Millisecond
		}
		time.Sleep(min(got.Next, time.Until(end)))
	}
	<-done
}

// TestRestoredOverWithWAL_D4: a copy of two files, as from a snapshot of the disk, is put in place
// while sqlwatch lingers. The WAL of the copy is not ours to empty.
func TestRestoredOverWithWAL_D4(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(40, 3)")
	backup := filepath.Join(t.TempDir(), "backup.db")
	output(t, "sh", "-c", `cp "$0-wal" "$1-wal" && cp "$0" "$1"`, s.path, backup) // nobody writes
	want := string(output(t, "sqlite3", s.path, "select count(*), sum(k) from t"))
	a.quit()
	s.open()
	s.steps("capture has begun", func() bool { return s.capture.hold.blank })
	output(t, "cp", backup+"-wal", s.path+"-wal")
	for range 3 { // steps while only one of the two files is there
		_, _ = s.capture.Step(s.ctx, true)
	}
	output(t, "cp", backup, s.path)
	s.steps("the copy is captured", func() bool {
		got, err := s.capture.Step(s.ctx, true)
		return err == nil && got.Complete
	})
	if got := string(output(t, "sqlite3", s.path, "select count(*), sum(k) from t")); got != want {
		t.Errorf("the application finds %s, the copy has %s", got, want)
	}
	s.checkEqual()
}

// TestFileTimeToCome_P8: the clock was set back after the file was written, so its modification
// time lies in the future. A WAL that a killed application left is captured nevertheless.
func TestFileTimeToCome_P8(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(3)")
	a.quit()
	s.open()
	s.captured()
	s.close()
	b := startApp(t, s.path)
	b.do("commit(3)")
	b.kill()
	output(t, "touch", "-d", "+3 years", s.path)
	s.open()
	s.captured()
	s.checkEqual()
}

// TestCopiedOver_D4_anotherPageSize: a copy with another page size is captured like any other,
// whether or not sqlwatch had left the database.
func TestCopiedOver_D4_anotherPageSize(t *testing.T) {
	t.Parallel()
	for _, rests := range []string{"long", "short"} {
		t.Run(rests, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			other := filepath.Join(t.TempDir(), "other.db")
			output(t, "sqlite3", other, "pragma page_size=1024; pragma journal_mode=wal; create table t(k, v); "+
				"insert into t values(1, randomblob(9000))")
			var a *app
			if rests == "long" {
				a = s.live()
			} else {
				a = startApp(t, s.path)
				a.do("schema()")
				s.open()
			}
			a.do("commit(40, 3)")
			a.quit()
			s.steps("at rest", func() bool {
				return s.capture.hold.isOpen() == (rests == "short") && s.capture.state.Position().Change == 0 &&
					s.capture.state.Position().TXID > 0
			})
			output(t, "cp", other, s.path)
			deadline := time.Now().Add(20 * time.Second)
			for {
				got, err := s.capture.Step(s.ctx, true)
				if err == nil && got.Complete {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the copy is never captured: %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			s.checkEqual()
		})
	}
}

// exclusiveLife writes in exclusive locking mode, with the wal-index in its own memory, and kills
// itself.
const exclusiveLife = `
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("pragma locking_mode=exclusive")
for i in range(12): db.execute("insert into t(k, v) values(99, randomblob(500))")
os.kill(os.getpid(), 9)
`

// TestKilledThenExclusive_D24: between two steps a long-lived application is killed, and another
// process that uses no wal-index file writes and is killed as well. The wal-index that sqlwatch
// still has open knows nothing of those commits. Whatever sqlwatch does next, neither the replica
// nor the application may lose what is in the WAL.
func TestKilledThenExclusive_D24(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(*scene){
		"look": func(*scene) {},
		"checkpoint": func(s *scene) {
			if _, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
				s.t.Log(err)
			}
		},
		"end": func(s *scene) { s.close(); s.open() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := s.live()
			a.do("commit(5)")
			s.step(true)
			a.kill()
			if out, err := exec.Command("python3", "-c", exclusiveLife, s.path).CombinedOutput(); len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			next(s)
			s.steps("all is captured", func() bool {
				got, err := s.capture.Step(s.ctx, true)
				return err == nil && got.Complete
			})
			rows := output(t, "sqlite3", s.path, "select count(*) from t where k = 99")
			if got := strings.TrimSpace(string(rows)); got != "12" {
				t.Errorf("D24: the application finds %s of 12 rows", got)
			}
			s.settle()
			s.checkEqual()
		})
	}
}
