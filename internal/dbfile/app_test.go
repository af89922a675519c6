package dbfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// app is an unmodified application: another process, with Python's SQLite. It
// executes the lines it is given, with c as its connection.
type app struct {
	*testapp.Process
	t *testing.T
}

const appLoop = `
import sys, sqlite3, os, fcntl, struct
path = sys.argv[1]
def connect(p=path):
    c = sqlite3.connect(p, isolation_level=None, timeout=5)
    c.execute("pragma synchronous=off")
    return c
def wal(p=path, page_size=4096):
    c = connect(p)
    c.execute("pragma page_size=%d" % page_size)
    c.execute("pragma journal_mode=wal")
    c.execute("pragma wal_autocheckpoint=0")
    c.execute("create table if not exists t(id integer primary key, v blob)")
    return c
def fill(c, n, size=100):
    for _ in range(n):
        c.execute("insert into t(v) values(randomblob(?))", (size,))
def is_database(p):
    c = sqlite3.connect(p)
    try:
        c.execute("pragma schema_version").fetchone()
    except sqlite3.DatabaseError as e:
        return "file is not a database" not in str(e)
    finally:
        c.close()
    return True
def wal_frames(p):
    c = connect(p)
    try:
        return c.execute("pragma wal_checkpoint(passive)").fetchone()[1]
    finally:
        c.close()
for line in sys.stdin:
    try:
        r = None
        exec(line)
        print("ok", r, flush=True)
    except BaseException as e:
        print("error", repr(e), flush=True)
`

// startApp starts an application for the database at path.
func startApp(t *testing.T, path string) *app {
	t.Helper()
	return &app{testapp.Start(t, appLoop, path), t}
}

// do executes one line of Python and returns what it assigned to r.
func (a *app) do(format string, args ...any) string {
	a.t.Helper()
	line := fmt.Sprintf(format, args...)
	a.Send(a.t, line)
	word, rest, _ := strings.Cut(a.Line(a.t), " ")
	if word != "ok" {
		a.t.Fatalf("application: %s: %s", line, rest)
	}
	return rest
}

// newWAL starts an application with a fresh database in WAL mode that holds
// one table, everything still in the WAL.
func newWAL(t *testing.T, pageSize int) (*app, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.do("c = wal(page_size=%d)", pageSize)
	return a, path
}

// mustOpen opens a database until the test ends.
func mustOpen(t *testing.T, path string) *Files {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// refresh fails the test if Refresh does not report want.
func refresh(t *testing.T, f *Files, want Change) {
	t.Helper()
	got, err := f.Refresh()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("Refresh: got %+v, want %+v", got, want)
	}
}

// within fails the test if f does not return within d, because it is waiting for something.
func within(t *testing.T, d time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("still waiting after %v", d)
	}
}

// copyFile copies a file. It must never be given one that this process has open as a database.
func copyFile(t *testing.T, to, from string) []byte {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, b)
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
