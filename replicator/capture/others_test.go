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
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// exclusiveStart opens the database as one does who wants it for himself, without waiting.
const exclusiveStart = `
import sqlite3, sys, time
db = sqlite3.connect("file:" + sys.argv[1] + "?vfs=unix-excl", uri=True, isolation_level=None, timeout=0)
db.execute("insert into t(k,v) values(98, zeroblob(200))")
print("in", flush=True)
if sys.argv[2] == "stay": sys.stdin.readline()
db.close()
`

// An application that begins with the VFS unix-excl, and does not wait, is refused while we are
// connected. Once one was seen we leave as soon as nobody is there, also between short lives.
func TestExclusiveAgain_D24(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.IdleAfter = time.Hour // nothing else makes us leave
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(20)")
	s.open()
	a.quit()
	s.steps("the application has gone", func() bool { return s.sides() == "" || s.capture.hold.blank })
	if err := s.capture.hold.close(); err != nil { // as after a minute
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
		b := startApp(t, s.path) // a short life of another, as of a cron job
		b.do("commit(5)")
		s.stepsOn("others have come", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
		b.quit()
		s.stepsOn("we have left", func() bool { return !s.capture.hold.isOpen() })
		if out, err := exec.Command("python3", "-S", "-c", exclusiveStart, s.path, "go").CombinedOutput(); err != nil {
			t.Errorf("D24: %s", out)
		}
	}
	s.captured()
	s.checkEqual()
}

// An application that begins with the VFS unix-excl and has a busy timeout is let in within it, though
// none like it was ever seen.
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
			pause := 300 * time.Millisecond // all of it takes longer than he waits
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
			s.options.IdleAfter = time.Hour // nothing else makes us leave
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

// held has a short life be over, after which the WAL of a database of some pages is held.
func held(t *testing.T, s *scene) {
	t.Helper()
	b := startApp(t, s.path)
	b.do("commit(500, 3, 1000)")
	s.stepsOn("it was met", func() bool { return s.capture.hold.isOpen() && s.capture.presence.Attached() })
	s.captured()
	b.quit()
	s.stepsOn("it has gone", func() bool { return s.capture.hold.isOpen() && !s.capture.presence.Attached() })
}

// stepsOn is steps where errors may come that pass.
func (s *scene) stepsOn(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if got, err := s.capture.Step(s.ctx, false); time.Now().After(deadline) {
			s.t.Fatalf("never happened: %s; %+v, %v", what, got, err)
		}
	}
}

// captured steps until all commits are captured; errors that pass are waited out.
func (s *scene) captured() {
	s.t.Helper()
	s.stepsOn("all is captured", func() bool {
		got, err := s.capture.Step(s.ctx, true)
		return err == nil && got.Complete
	})
}

// removeSides removes side files, as "-wal -shm".
func (s *scene) removeSides(sides string) {
	s.t.Helper()
	for _, side := range strings.Fields(sides) {
		if err := os.Remove(s.path + side); err != nil {
			s.t.Fatal(err)
		}
	}
}

// wantRows demands that the database has so many rows once the application has ended.
func (s *scene) wantRows(rows string) {
	s.t.Helper()
	if got := strings.TrimSpace(string(output(s.t, "sqlite3", s.path, "select count(*) from t"))); got != rows {
		s.t.Errorf("the application's database has %s rows after its end, it had %s", got, rows)
	}
}

// wantSound demands that the application finds its database sound.
func (a *app) wantSound() {
	a.t.Helper()
	if got := a.do(`db.execute("pragma integrity_check").fetchone()[0]`); got != "ok" {
		a.t.Errorf("integrity: %s", got)
	}
}

// Somebody who takes no lock comes while we are connected beside others: he is met within some
// seconds, and we go.
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

// Side files are removed under an application that has gone when we look: what it left in the
// WAL that has no name was kept from it by us, and is written back, unless a copy is put in place.
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

// Side files are removed while a comparison is under way, which may take minutes: we stand back
// before the next portion is read.
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
					t.Error("we still stand between the application and its last close")
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

// A copy of two files is put in place, the -wal first: nobody empties it into the file that is to
// go, however long the file itself takes to come, and nobody was there but us.
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
					// By a rename of the file alone nobody can tell: whoever starts the application decides.
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

// after returns what is true once so long has passed since it was asked first.
func after(wait time.Duration) func() bool {
	end := time.Now().Add(wait)
	return func() bool { return time.Now().After(end) }
}

// TestSidesGo_D15_connecting: the side files of a running application are removed after MayOpen has found nothing
// wrong, and before our connection is open. If it stayed open, the application's close would not be the last one,
// and all that it committed to the WAL that has no name would be lost.
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
			_, err := checkpointOnce(s.ctx, s.files, sqlite.Passive, sqlite.Budget{})
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
				t.Errorf("connected beside an application that uses a WAL without a name: %v", err)
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
