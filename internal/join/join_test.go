package join

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// lives opens the database, commits two rows and closes it, and does the next on request.
const lives = `
import sqlite3, sys
def life():
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL"); db.execute("CREATE TABLE IF NOT EXISTS t(v)")
    db.execute("INSERT INTO t VALUES(1)"); db.execute("INSERT INTO t VALUES(2)")
    print("committed", flush=True)
    sys.stdin.readline()
    db.close()
    print("closed", flush=True)
while True:
    life()
    if not sys.stdin.readline(): break
`

// TestOpen_D15_closing: the side files of a running application are removed while we are about to connect, and it
// closes just when we do. Its close must be the last one, or everything that it has committed is lost: we must
// never hold a lock on the main file together with side files that are not the application's.
func TestOpen_D15_closing(t *testing.T) {
	t.Parallel()
	for name, sides := range map[string][]string{"both": {"-wal", "-shm"}, "wal": {"-wal"}, "shm": {"-shm"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			app := testapp.Start(t, lives, path)
			const rounds = 150
			joined := 0
			for round := range rounds {
				if got := app.Line(t); got != "committed" {
					t.Fatalf("application: %q", got)
				}
				files, err := dbfile.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, side := range sides {
					if err := os.Remove(path + side); err != nil {
						t.Fatal(err)
					}
				}
				connected := make(chan *sqlite.Conn, 1)
				go func() {
					time.Sleep(time.Duration(round%30) * 20 * time.Microsecond)
					conn, err := Open(t.Context(), files, nil)
					if err == nil {
						joined++
					} else if !errors.Is(err, dbfile.ErrUnclear) && !errors.Is(err, sqlite.ErrBusy) {
						t.Errorf("round %d: %v", round, err)
					}
					connected <- conn
				}()
				app.Send(t, "close")
				if got := app.Line(t); got != "closed" {
					t.Fatalf("application: %q", got)
				}
				if conn := <-connected; conn != nil {
					if err := conn.Close(); err != nil {
						t.Error(err)
					}
				}
				if err := files.Close(); err != nil {
					t.Error(err)
				}
				out, err := exec.Command("sqlite3", path, "SELECT count(*) FROM t").CombinedOutput()
				if got := strings.TrimSpace(string(out)); err != nil || got != strconv.Itoa(2*(round+1)) {
					t.Fatalf("after %d lives of two commits each the application has %s rows (%v)", round+1, got, err)
				}
				app.Send(t, "again")
			}
			t.Logf("connected in %d of %d rounds", joined, rounds)
		})
	}
}

// TestResume_D15_closing: the same with a connection that has stood back, and is used again as the application closes.
func TestResume_D15_closing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := testapp.Start(t, lives, path)
	for round := range 150 {
		if got := app.Line(t); got != "committed" {
			t.Fatalf("application: %q", got)
		}
		files, err := dbfile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := Open(t.Context(), files, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(conn.Shed(), os.Remove(path+"-wal"), os.Remove(path+"-shm")); err != nil {
			t.Fatal(err)
		}
		used := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(round%30) * 10 * time.Microsecond)
			used <- conn.BeginRead(t.Context())
		}()
		app.Send(t, "close")
		if got := app.Line(t); got != "closed" {
			t.Fatalf("application: %q", got)
		}
		if err := <-used; !errors.Is(err, sqlite.ErrReplaced) {
			t.Errorf("round %d: %v, want ErrReplaced", round, err)
		}
		if err := errors.Join(conn.Close(), files.Close()); err != nil {
			t.Error(err)
		}
		out, err := exec.Command("sqlite3", path, "SELECT count(*) FROM t").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != strconv.Itoa(2*(round+1)) {
			t.Fatalf("after %d lives of two commits each the application has %s rows (%v)", round+1, got, err)
		}
		app.Send(t, "again")
	}
}

// TestOpen_D15_makesNone: where the side files that are held are not those at the paths, no connection is made, and
// no file.
func TestOpen_D15_makesNone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"wal removed": func(path string) error { return os.Remove(path + "-wal") },
		"shm removed": func(path string) error { return os.Remove(path + "-shm") },
		"both removed": func(path string) error {
			return errors.Join(os.Remove(path+"-wal"), os.Remove(path+"-shm"))
		},
		"wal of another": func(path string) error {
			return errors.Join(os.Remove(path+"-wal"), os.WriteFile(path+"-wal", nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			app := testapp.Start(t, lives, path)
			app.Line(t)
			files, err := dbfile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			before := list(t, path)
			if conn, err := Open(t.Context(), files, nil); !errors.Is(err, sqlite.ErrReplaced) {
				t.Errorf("%v, want sqlite.ErrReplaced", err)
				if err == nil {
					_ = conn.Close()
				}
			}
			if after := list(t, path); after != before {
				t.Errorf("files %s, before %s", after, before)
			}
			if err := os.Remove(path + "-wal"); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			app.Send(t, "close")
			app.Line(t)
			if out, err := exec.Command("sqlite3", path, "SELECT count(*) FROM t").CombinedOutput(); string(out) != "2\n" {
				t.Errorf("the application has %s rows (%v), and committed 2", out, err)
			}
		})
	}
}

// list names the files beside a database, and their sizes.
func list(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%s of %d bytes; ", e.Name(), info.Size())
	}
	return all
}
