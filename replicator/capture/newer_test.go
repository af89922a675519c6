package capture

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// envNewer names the database of an application that uses the SQLite linked into this program.
const envNewer = "SQLWATCH_TEST_NEWER"

// TestNewerApplication is not a test: startNewer runs it in a process of its own.
func TestNewerApplication(t *testing.T) {
	path := os.Getenv(envNewer)
	if path == "" {
		t.Skip("runs only as an application of another test")
	}
	db, err := sqlite.OpenScratch(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("= ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "close" {
			err = db.Close()
			fmt.Println("=", err)
			continue
		}
		rows, err := db.Rows(context.Background(), lines.Text())
		if err != nil {
			fmt.Println("!", err)
			continue
		}
		fmt.Println("=", rows)
	}
}

// startNewer starts an application whose SQLite is newer than the system's. Its lines are SQL, or
// "close". The database must exist.
func startNewer(t *testing.T, path string) *app {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNewerApplication$")
	cmd.Env = append(os.Environ(), envNewer+"="+path)
	a := startProcess(t, cmd)
	a.do("pragma busy_timeout=20000")
	a.do("pragma synchronous=normal")
	return a
}

const newerCommit = "insert into t(k, v) values(abs(random()) % 1000, randomblob(300))"

// liveNewer is live for an application that startNewer started.
func (s *scene) liveNewer() *app {
	s.t.Helper()
	b := startApp(s.t, s.path)
	b.do("schema()")
	b.do("commit(20)")
	b.quit()
	a := startNewer(s.t, s.path)
	a.do(newerCommit)
	s.open()
	s.trusted()
	return a
}

// TestNewerSQLite_D73: newer versions of SQLite also check at the last close whether another
// process holds the DMS byte of the wal-index. An application with such a version gets exclusive
// use of its file like any other.
func TestNewerSQLite_D73(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*scene, *app){
		"last_close": func(s *scene, a *app) {
			a.do(newerCommit)
			a.do("close")
			if got := s.sides(); got != "" {
				s.t.Errorf("after the application's last close there is %s", got)
			}
		},
		"journal_mode": func(s *scene, a *app) {
			a.do(newerCommit)
			if got := a.do("pragma journal_mode=delete"); got != "[[delete]]" {
				s.t.Errorf("journal mode %s, want delete", got)
			}
			if got := a.do("pragma journal_mode=wal"); got != "[[wal]]" {
				s.t.Errorf("journal mode %s, want wal", got)
			}
			a.do(newerCommit)
		},
		"killed": func(s *scene, a *app) { a.do(newerCommit); a.kill() },
		// The first process to connect truncates the wal-index, which sqlwatch has mapped.
		"killed_and_back": func(s *scene, a *app) {
			for range 3 {
				a.do(newerCommit)
				a.kill()
				a = startNewer(s.t, s.path)
				a.do(newerCommit)
				a.do("pragma wal_checkpoint")
				s.step(true)
			}
		},
		"killed_and_an_older_one": func(s *scene, a *app) {
			a.do(newerCommit)
			a.kill()
			startApp(s.t, s.path).do("commit(20)")
		},
		"killed_with_a_large_WAL": func(s *scene, a *app) {
			a.do("pragma wal_autocheckpoint=0")
			a.do("insert into t(k, v) select 1, randomblob(3000) from (with recursive n(i) as (select 1 union all select i+1 " +
				"from n where i < 6000) select i from n)")
			s.step(true)
			a.do(newerCommit)
			a.kill()
			a = startNewer(s.t, s.path)
			a.do(newerCommit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := s.liveNewer()
			end(s, a)
			s.settle()
			s.checkEqual()
			if name != "last_close" && name != "journal_mode" { // the file's times may not show the last write
				s.wantLost(nil)
			}
		})
	}
}
