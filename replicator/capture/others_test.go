package capture

import (
	"bufio"
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
	"github.com/sqlwatch/sqlwatch/replicator/capture/once"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"golang.org/x/sys/unix"
)

// exclusiveStart opens the database for exclusive use, without waiting.
const exclusiveStart = `
import sqlite3, sys, time
db = sqlite3.connect("file:" + sys.argv[1] + "?vfs=unix-excl", uri=True, isolation_level=None, timeout=0)
db.execute("insert into t(k,v) values(98, zeroblob(200))")
print("in", flush=True)
if sys.argv[2] == "stay": sys.stdin.readline()
db.close()
`

// TestExclusiveAgain_D24: an application that uses the VFS unix-excl and has no busy timeout is
// refused while sqlwatch is connected. Once one was seen, sqlwatch disconnects as soon as no other
// process is connected, even between short-lived ones.
func TestExclusiveAgain_D24(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.IdleAfter = time.Hour // capture must not leave for being idle
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	s.open()
	a.quit()
	s.steps("the application has gone", func() bool { return s.sides() == "" || s.capture.hold.blank })
	if err := s.capture.hold.close(); err != nil { // as an idle capture does after a minute
		t.Fatal(err)
	}
	first := exec.Command("python3", "-S", "-c", exclusiveStart, s.path, "stay")
	first.Stderr = os.Stderr
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	for deadline := time.Now().Add(time.Minute); !s.capture.presence.Exclusive(); time.Sleep(20 * time.Millisecond) {
		if _, err := s.capture.Step(s.ctx, true); time.Now().After(deadline) {
			t.Fatalf("never seen: %v", err)
		}
	}
	stdin.Close()
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b := startApp(t, s.path) // another process that runs briefly, such as a cron job
		b.do("commit(5)")
		s.stepsOn("others are connected", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
		b.quit()
		s.stepsOn("we have left", func() bool { return !s.capture.hold.isOpen() })
		if out, err := exec.Command("python3", "-S", "-c", exclusiveStart, s.path, "go").CombinedOutput(); err != nil {
			t.Errorf("D24: %s", out)
		}
	}
	s.captured()
	s.checkEqual()
}

// TestExclusiveWaits_D24: an application that uses the VFS unix-excl and has a busy timeout is let
// in before it expires, even if no such application was ever seen before.
func TestExclusiveWaits_D24(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*scene){
		"between short lives": func(s *scene) {
			b := startApp(t, s.path)
			b.do("commit(5)")
			s.stepsOn("it was met", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
			b.quit()
			s.stepsOn("the WAL is empty, and held for the next life", func() bool { return s.capture.hold.blank })
		},
		"beside a WAL that nobody was seen to write": func(s *scene) {
			s.close()
			b := startApp(t, s.path)
			b.do("commit(5)")
			b.kill()
			s.open()
			s.stepsOn("it is read, and left as it is", func() bool {
				return s.capture.hold.isOpen() && s.capture.hold.unclaimed
			})
		},
		"during a comparison": func(s *scene) {
			held(t, s)
			s.capture.comparer.portion = 4096
			pause := 300 * time.Millisecond // the whole comparison takes longer than the application waits
			s.capture.comparer.between = func(ctx context.Context) error {
				time.Sleep(pause)
				err := s.capture.keepBounded(ctx)
				if errors.Is(err, presence.ErrWaited) {
					pause = 0
				}
				return err
			}
			s.capture.continuity.lose(tail.ReasonWALReset, "a test")
		},
		"during a snapshot": func(s *scene) {
			held(t, s)
			r, err := s.capture.OpenSnapshot(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.options.IdleAfter = time.Hour // capture must not leave for being idle
			a := startApp(t, s.path)
			a.do("schema()")
			s.open()
			s.captured()
			a.quit()
			before(s)
			patient := strings.Replace(exclusiveStart, "timeout=0", "timeout=40", 1)
			waits := exec.Command("python3", "-S", "-c", patient, s.path, "go")
			said := new(strings.Builder)
			waits.Stdout, waits.Stderr = said, said
			if err := waits.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- waits.Wait() }()
			var err error
			s.stepsOn("the application has ended", func() bool {
				select {
				case err = <-ended:
					return true
				default:
					return false
				}
			})
			if err != nil {
				t.Errorf("D24: %v: %s", err, said)
			}
			s.captured()
			s.checkEqual()
		})
	}
}

// held starts a scene in which a short-lived application has ended, and capture still holds the WAL
// of a database of many pages.
func held(t *testing.T, s *scene) {
	t.Helper()
	b := startApp(t, s.path)
	b.do("commit(500, 3, 1000)")
	s.stepsOn("it was met", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
	s.captured()
	b.quit()
	s.stepsOn("it has gone", func() bool { return s.capture.hold.isOpen() && !s.capture.presence.Attached() })
}

// stepsOn is steps for cases in which a step may return transient errors.
func (s *scene) stepsOn(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if got, err := s.capture.Step(s.ctx, false); time.Now().After(deadline) {
			s.t.Fatalf("never happened: %s; %+v, %v", what, got, err)
		}
	}
}

// wantNextLife checks that the application's next life finds that many rows, in a sound database that is captured.
func (s *scene) wantNextLife(rows string) {
	s.t.Helper()
	a := startApp(s.t, s.path)
	if got := a.do(`db.execute("select count(*) from t").fetchone()[0]`); got != rows {
		s.t.Errorf("the application's next life finds %s of %s rows", got, rows)
	}
	a.wantSound()
	a.quit()
	s.checkEqual()
}

// captured runs steps until all commits are captured. It ignores transient errors.
func (s *scene) captured() {
	s.t.Helper()
	s.stepsOn("all is captured", func() bool {
		got, err := s.capture.Step(s.ctx, true)
		return err == nil && got.Complete
	})
}

// removeSides removes the named side files, for example "-wal -shm".
func (s *scene) removeSides(sides string) {
	s.t.Helper()
	for _, side := range strings.Fields(sides) {
		if err := os.Remove(s.path + side); err != nil {
			s.t.Fatal(err)
		}
	}
}

// wantRows checks that the database has that many rows after the application has ended.
func (s *scene) wantRows(rows string) {
	s.t.Helper()
	if got := strings.TrimSpace(string(output(s.t, "sqlite3", s.path, "select count(*) from t"))); got != rows {
		s.t.Errorf("the application's database has %s rows after its end, it had %s", got, rows)
	}
}

// wantSound checks that the application finds its database intact.
func (a *app) wantSound() {
	a.t.Helper()
	if got := a.do(`db.execute("pragma integrity_check").fetchone()[0]`); got != "ok" {
		a.t.Errorf("integrity: %s", got)
	}
}

// TestUnlockedBeside_D24: a process that takes no locks opens the database while sqlwatch and
// another process are connected. It is noticed within some seconds, and sqlwatch disconnects.
func TestUnlockedBeside_D24(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.live()
	b := startApp(t, s.path)
	b.do("db.close()")
	s.steps("we are connected", func() bool { return s.capture.hold.isOpen() })
	b.do(`(globals().update(db=sqlite3.connect("file:"+path+"?vfs=unix-none", uri=True, isolation_level=None)), ` +
		`db.execute("pragma locking_mode=exclusive"), db.execute("select count(*) from t").fetchone())`)
	var found *dbfile.ForeignError
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, err := s.capture.Step(s.ctx, false)
		if errors.As(err, &found) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never told: %+v, %v", got, err)
		}
	}
	if found.Kind != dbfile.ForeignUnlocked || found.PID != b.cmd.Process.Pid || s.capture.hold.isOpen() {
		t.Errorf("found %+v, connected: %v", found, s.capture.hold.isOpen())
	}
	b.kill()
	a.quit()
	s.captured()
}

// TestRemovedThenGone_D15: the side files of an application are removed, and it has ended by the
// time of the next step. Our connection kept its last close from writing the unlinked WAL back to
// the database, so sqlwatch does that, unless a copy was put in the database's place.
func TestRemovedThenGone_D15(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, remove, then string }{
		{"both", "-wal -shm", ""},
		{"both at our end", "-wal -shm", "end"},
		{"wal", "-wal", ""},
		{"copy", "-wal -shm", "copy"},
		{"copy a moment later", "-wal -shm", "copy later"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(50, 3, 900)")
			a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
			backup := s.path + ".backup"
			output(t, "cp", s.path, backup)
			s.open()
			s.settle()
			a.do("commit(50, 3, 900)")
			s.step(true)
			s.removeSides(tc.remove)
			want := a.do(`commit(10) and db.execute("select count(*), sum(k) from t").fetchone()`)
			a.quit()
			switch tc.then {
			case "end":
				s.close()
				s.open()
			case "copy later":
				s.capture.Step(s.ctx, false)
				fallthrough
			case "copy":
				output(t, "cp", backup, s.path)
				want = strings.ReplaceAll(string(output(t, "sqlite3", backup, "select count(*), sum(k) from t")), "|", ", ")
				want = "(" + strings.TrimSpace(want) + ")"
			}
			s.captured()
			b := startApp(t, s.path)
			if got := b.do(`db.execute("select count(*), sum(k) from t").fetchone()`); got != want {
				t.Errorf("D15: the application's database has %s, want %s", got, want)
			}
			b.wantSound()
			b.quit()
			s.checkEqual()
		})
	}
}

// TestNamesFirst_D15: side files are removed during a comparison, which may take minutes. Capture
// stands back before it reads the next portion.
func TestNamesFirst_D15(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"-wal", "-shm"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(50, 3, 900)")
			s.open()
			s.settle()
			a.do("commit(50, 3, 900)")
			gone := false
			s.capture.comparer.portion = 4096
			s.capture.comparer.between = func(ctx context.Context) error {
				if !gone {
					gone = true
					if err := os.Remove(s.path + side); err != nil {
						t.Fatal(err)
					}
				}
				err := s.capture.keepBounded(ctx)
				if err == nil {
					t.Error("the comparison goes on")
				}
				if s.capture.hold.isOpen() && !s.capture.hold.stood {
					t.Error("capture has not stood back: the application's close would not be the last one")
				}
				return err
			}
			s.capture.continuity.lose(tail.ReasonWALReset, "a test")
			got, err := s.capture.Step(s.ctx, true)
			if !gone || err != nil || got.Complete {
				t.Errorf("%+v, %v", got, err)
			}
			rows := a.do(`commit(10) and db.execute("select count(*) from t").fetchone()[0]`)
			a.quit()
			s.wantRows(rows)
			s.capture.comparer.between = s.capture.keepBounded
			s.captured()
			s.checkEqual()
		})
	}
}

// TestWALPutFirst_D4: a copy of two files is put in place, the -wal first, while no process but
// sqlwatch is connected. The -wal is not emptied into the file that is about to be replaced,
// however long its main file takes to arrive.
func TestWALPutFirst_D4(t *testing.T) {
	t.Parallel()
	for _, lingers := range []bool{true, false} {
		for _, gap := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second} {
			t.Run(fmt.Sprintf("lingers_%v_%v", lingers, gap), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				if !lingers {
					s.options.IdleAfter = time.Millisecond
				}
				a := startApp(t, s.path)
				a.do("schema()")
				a.do("commit(40, 3)")
				backup := filepath.Join(t.TempDir(), "backup.db")
				b := startApp(t, backup)
				b.do("schema()")
				b.do("commit(60, 3)")
				b.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
				b.do(`db.execute("create table restored(x)") and commit(9)`)
				b.kill()
				a.quit()
				s.open()
				s.steps("capture has begun and rests", func() bool {
					return s.capture.hold.blank || !s.capture.hold.isOpen() && s.capture.state.Position().TXID > 0
				})
				output(t, "mv", backup+"-wal", s.path+"-wal")
				s.stepsOn("the gap is over", after(gap))
				output(t, "mv", backup, s.path)
				foreign := (*dbfile.ForeignError)(nil)
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
					got, err := s.capture.Step(s.ctx, true)
					if errors.Is(err, ErrReplaced) {
						s.close()
						s.open()
					}
					// From the rename of the main file alone it cannot be told whose WAL this is:
					// capture waits until an application opens the database.
					if err == nil && got.Complete || errors.As(err, &foreign) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("the copy is never met: %+v, %v", got, err)
					}
				}
				c := startApp(t, s.path)
				got := c.do(`db.execute("select count(*) from sqlite_master where name='restored'").fetchone()[0]`)
				if got != "1" {
					t.Error("D4: what was in the copy's WAL is gone")
				}
				c.wantSound()
				c.do("commit(3)")
				s.captured()
				c.quit()
				s.checkEqual()
			})
		}
	}
}

// after returns a condition that becomes true once wait has passed.
func after(wait time.Duration) func() bool {
	end := time.Now().Add(wait)
	return func() bool { return time.Now().After(end) }
}

// TestSidesGo_D15_connecting: the side files of a running application are removed after MayOpen has
// found nothing wrong and before our connection is open. If our connection stayed open, the
// application's close would not be the last one, and everything it committed to the unlinked WAL
// would be lost.
func TestSidesGo_D15_connecting(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]func(*scene) error{
		"to hold": func(s *scene) error {
			err := s.capture.hold.connect(s.ctx)
			if err != nil {
				err = errors.Join(err, s.capture.hold.close())
			}
			return err
		},
		"for one checkpoint": func(s *scene) error {
			_, err := once.Checkpoint(s.ctx, s.files, sqlite.Passive, sqlite.Budget{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(5, 5)")
			s.open()
			if err := s.files.MayOpen(); err != nil {
				t.Fatal(err)
			}
			s.removeSides("-wal -shm")
			if err := connect(s); !errors.Is(err, dbfile.ErrUnclear) {
				t.Errorf("connected beside an application that uses an unlinked WAL: %v", err)
			}
			a.do("commit(5, 5)")
			want := a.do("db.execute('select count(*) from t').fetchone()[0]")
			a.quit()
			if got := string(output(t, "sqlite3", s.path, "select count(*) from t")); strings.TrimSpace(got) != want {
				t.Errorf("the application committed %s rows, and has %s", want, got)
			}
		})
	}
}

// TestSidesGo_D15_slowDisk: the side files of a running application are removed while a segment is on its way to a
// slow disk, and the application ends before the disk has answered. Its close must be the last one, or what it
// committed is lost.
func TestSidesGo_D15_slowDisk(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(5, 5)")
	s.open()
	s.captured()
	storing, answered := make(chan struct{}), make(chan struct{})
	s.capture.flusher.Store = func(p *segments.Commit) error {
		close(storing)
		<-answered
		return p.Run()
	}
	a.do("commit(5, 5)")
	ctx, moved := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.capture.Step(ctx, true)
		for errors.Is(err, context.Canceled) { // as the replicator does
			_, err = s.capture.Step(s.ctx, true)
		}
		ended <- err
	}()
	<-storing
	s.removeSides("-wal -shm")
	moved()
	for deadline := time.Now().Add(20 * time.Second); connected(t, s.path); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("connected until the disk answers")
			break
		}
	}
	want := a.do("db.execute('select count(*) from t').fetchone()[0]")
	a.quit()
	close(answered)
	if err := <-ended; err != nil && !passing(err) {
		t.Error(err)
	}
	s.wantRows(want)
}

// connected reports whether this process holds SQLite's lock on the main file.
func connected(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err := errors.Join(err, unix.Stat(path, &st)); err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf(" %d %02x:%02x:%d ", os.Getpid(), unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	return strings.Contains(string(locks), ours)
}
