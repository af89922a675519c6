package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fileScene is one database with an application, a directory replica, and sqlwatch beside
// them.
type fileScene struct {
	t           *testing.T
	program     string
	db, replica string
	app         *lineApplication
	daemon      *daemon
}

func newFileScene(t *testing.T) *fileScene { return newFileSceneIn(t, t.TempDir()) }

// newFileSceneIn is newFileScene with the database in this directory; the replica is elsewhere.
func newFileSceneIn(t *testing.T, dir string) *fileScene {
	s := &fileScene{t: t, program: binary, db: filepath.Join(dir, "app.db"),
		replica: filepath.Join(t.TempDir(), "replica")}
	s.app = startLineApplication(t, s.db)
	s.app.do("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
	s.insert(s.app, 200)
	s.app.do("PRAGMA wal_checkpoint(TRUNCATE)")
	return s
}

func (s *fileScene) insert(a *lineApplication, n int) {
	s.t.Helper()
	a.do(fmt.Sprintf("INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "+
		"SELECT randomblob(1500) FROM n", n))
}

func (s *fileScene) start() { s.startIn(s.t.TempDir()) }

// startIn starts sqlwatch with its configuration and state in a directory.
func (s *fileScene) startIn(dir string) {
	s.t.Helper()
	s.daemon = startDaemonIn(s.t, dir, []string{s.program}, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" {
  dir        = %q
  sync_every = "100ms"
}
`, s.db, s.replica))
	waitForSync(s.t, s.daemon.config)
}

// sync asks once whether everything is in the replica.
func (s *fileScene) sync() (string, error) {
	text, err := exec.Command(binary, "sync", "--wait", "--timeout", "5s", "--config", s.daemon.config,
		"app").CombinedOutput()
	return string(text), err
}

// restore restores the database from the replica.
func (s *fileScene) restore(args ...string) (path string, err error) {
	path = filepath.Join(s.t.TempDir(), "restored.db")
	text, err := exec.Command(binary, append(append([]string{"restore"}, args...), "-o", path,
		"file://"+s.replica)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return path, err
}

// rows describes the rows of a database that nobody writes to, and checks its integrity.
func (s *fileScene) rows(db string) string {
	s.t.Helper()
	return output(s.t, "sqlite3", "-cmd", ".timeout 20000", db,
		"SELECT count(*), sum(length(body)), hex(max(body)) FROM t; PRAGMA integrity_check")
}

// wantCaptured checks that the replica restores to what the application has.
func (s *fileScene) wantCaptured() {
	s.t.Helper()
	waitForSync(s.t, s.daemon.config)
	restored, err := s.restore()
	if err != nil {
		s.t.Fatal(err)
	}
	if got, want := s.rows(restored), s.rows(s.db); got != want || !strings.Contains(want, "ok") {
		s.t.Errorf("restored:\n%.200s\nthe application has:\n%.200s", got, want)
	}
}

// says waits until a page contains a word.
func (s *fileScene) says(page, word string) {
	s.t.Helper()
	eventually(s.t, patience, page+" says "+word, func() error {
		text, err := get(s.daemon.url + page)
		if err == nil && !strings.Contains(text, word) {
			err = fmt.Errorf("not in %.2000s", text)
		}
		return err
	})
}

// end lets an application close its database and exit, as in an orderly stop.
func (a *lineApplication) end() {
	a.t.Helper()
	if in, ok := a.stdin.(interface{ Close() error }); ok {
		in.Close()
	}
	if err := a.cmd.Wait(); err != nil {
		a.t.Fatal(err)
	}
}

// Other programs delete, replace, truncate and corrupt the files of a database that sqlwatch
// watches, write to it without a pause, and stop sqlwatch.
func TestFilesInLife(t *testing.T) {
	for name, scene := range map[string]func(*fileScene){
		"D15_side_files_removed": func(s *fileScene) {
			s.start()
			s.insert(s.app, 50)
			must(s.t, errors.Join(os.Remove(s.db+"-wal"), os.Remove(s.db+"-shm")))
			s.insert(s.app, 50)
			s.says("/api/v1/databases", "foreign_wal")
			if text, err := s.sync(); err == nil {
				s.t.Errorf("the sync was acknowledged although the WAL is unlinked: %s", text)
			}
			s.app.end()
			s.wantCaptured()
			if !strings.HasPrefix(s.rows(s.db), "300|") {
				s.t.Errorf("the application had 300 rows, there are %.80s", s.rows(s.db))
			}
		},
		"D3_deleted_and_made_anew": func(s *fileScene) {
			s.start()
			s.insert(s.app, 50)
			for _, side := range []string{"", "-wal", "-shm"} {
				must(s.t, os.Remove(s.db+side))
			}
			again := startLineApplication(s.t, s.db)
			again.do("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
			s.insert(s.app, 10) // into files that are unlinked
			s.insert(again, 30)
			s.wantCaptured()
			s.app.end()
			s.insert(again, 5)
			s.wantCaptured()
			if !strings.HasPrefix(s.rows(s.db), "35|") {
				s.t.Errorf("35 rows were written, there are %.80s", s.rows(s.db))
			}
		},
		"D4_moved_over_a_live_file": func(s *fileScene) {
			s.start()
			other := startLineApplication(s.t, s.db+".new")
			other.do("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
			s.insert(other, 77)
			other.end()
			s.insert(s.app, 50)
			must(s.t, os.Rename(s.db+".new", s.db))
			s.insert(s.app, 10) // into files that are unlinked
			s.app.end()
			// The last close leaves the side files there, as it does without sqlwatch: whoever puts a
			// copy in place has to remove them.
			for _, side := range []string{"-wal", "-shm"} {
				if err := os.Remove(s.db + side); err != nil && !errors.Is(err, os.ErrNotExist) {
					s.t.Fatal(err)
				}
			}
			again := startLineApplication(s.t, s.db)
			s.insert(again, 3)
			s.wantCaptured()
			if !strings.HasPrefix(s.rows(s.db), "80|") {
				s.t.Errorf("want 80 rows, there are %.80s", s.rows(s.db))
			}
		},
		"D37_corrupt": func(s *fileScene) {
			s.app.end()
			file, err := os.OpenFile(s.db, os.O_WRONLY, 0)
			must(s.t, err)
			_, err = file.WriteAt([]byte(strings.Repeat("damage! ", 512)), 4096)
			must(s.t, errors.Join(err, file.Close()))
			s.start()
			path, err := s.restore("--check", "none")
			must(s.t, err)
			if text, err := exec.Command("cmp", path, s.db).CombinedOutput(); err != nil {
				s.t.Errorf("the restored file differs from the database: %s", text)
			}
			if _, err := s.restore(); err == nil || !strings.Contains(err.Error(), "corrupt") {
				s.t.Errorf("a corrupt database was restored as a sound one: %v", err)
			}
			text, err := exec.Command(binary, "verify", "--config", s.daemon.config, "app").CombinedOutput()
			if err == nil || !strings.Contains(string(text), "corrupt") {
				s.t.Errorf("verify: %v, %s", err, text)
			}
		},
		"D41_cut": func(s *fileScene) {
			s.start()
			before := s.rows(s.db)
			must(s.t, os.Truncate(s.db, 64<<10))
			// The application may notice the corruption and exit.
			_, err := io.WriteString(s.app.stdin, "INSERT INTO t(body) VALUES(zeroblob(100))\n")
			must(s.t, err)
			_, _ = s.app.stdout.ReadString('\n')
			eventually(s.t, patience, "sync reports that pages are missing", func() error {
				text, err := s.sync()
				if err == nil || !strings.Contains(text, "lacks pages") {
					return fmt.Errorf("%w: %s", err, text)
				}
				return nil
			})
			restored, err := s.restore()
			must(s.t, err)
			if got := s.rows(restored); got != before {
				s.t.Errorf("restored %.80s, the last whole state was %.80s", got, before)
			}
		},
		"D33_tiny_transactions_without_a_pause": func(s *fileScene) {
			var err error
			s.program, err = withoutRace()
			must(s.t, err)
			s.start()
			flood := startFlood(s.t, s.db)
			for round := range 3 {
				before := flood.committed.Load()
				eventually(s.t, patience, "another thousand commits", func() error {
					if n := flood.committed.Load(); n < before+1000 {
						return fmt.Errorf("round %d: %d, then %d", round, before, n)
					}
					return nil
				})
				want := 200 + flood.committed.Load()
				waitForSync(s.t, s.daemon.config) // although the commits never stop
				restored, err := s.restore()
				must(s.t, err)
				got := output(s.t, "sqlite3", restored, "SELECT count(*) FROM t")
				if n, err := strconv.ParseInt(strings.TrimSpace(got), 10, 64); err != nil || n < want {
					s.t.Errorf("round %d: %d rows were committed before the sync, %s are restored", round, want, got)
				}
			}
			flood.end()
			s.wantCaptured()
		},
		"D83_stopped": func(s *fileScene) {
			s.start()
			for range 40 {
				s.insert(s.app, 400)
				must(s.t, s.daemon.cmd.Process.Signal(syscall.SIGTSTP))
				eventually(s.t, patience, "stopped", func() error {
					stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.daemon.cmd.Process.Pid))
					if err == nil && !strings.Contains(string(stat), ") T ") {
						err = fmt.Errorf("%s", stat)
					}
					return err
				})
				// If sqlwatch held a lock while it is stopped, the application would get "database is
				// locked" after five seconds.
				for range 3 {
					s.insert(s.app, 1)
				}
				must(s.t, s.daemon.cmd.Process.Signal(syscall.SIGCONT))
			}
			s.wantCaptured()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(newFileScene(t))
		})
	}
}
