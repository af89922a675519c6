package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// session is a Python process with one connection of an unmodified SQLite: it executes each line
// of its input and answers with one line of JSON.
const session = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for line in sys.stdin:
    try:
        rows = db.execute(json.loads(line)).fetchall()
        print(json.dumps({"rows": rows}), flush=True)
    except Exception as e:
        print(json.dumps({"error": str(e)}), flush=True)
`

// writer is a Python process that commits as fast as it can until its input
// ends, then reports.
const writer = `
import json, sqlite3, sys, threading, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute("PRAGMA synchronous=NORMAL")
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
commits, longest, errors = 0, 0.0, []
print("ready", flush=True)
while not stop.is_set():
    began = time.monotonic()
    try:
        db.execute("INSERT INTO t(v) VALUES (randomblob(200))")
        commits += 1
    except sqlite3.Error as e:
        errors.append(str(e))
    longest = max(longest, time.monotonic() - began)
print(json.dumps({"commits": commits, "longest": longest, "errors": errors}), flush=True)
`

// python is a running Python process.
type python struct{ *testapp.Process }

func startPython(t testing.TB, program string, args ...string) *python {
	t.Helper()
	return &python{testapp.Start(t, program, args...)}
}

// try runs one statement and returns its rows, or the text of its error.
func (p *python) try(t testing.TB, sql string) (rows [][]any, failure string) {
	t.Helper()
	line, err := json.Marshal(sql)
	if err != nil {
		t.Fatal(err)
	}
	p.Send(t, string(line))
	var answer struct {
		Rows  [][]any
		Error string
	}
	if err := json.Unmarshal([]byte(p.Line(t)), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Rows, answer.Error
}

// run runs statements that must succeed and returns the last one's rows.
func (p *python) run(t testing.TB, statements ...string) (rows [][]any) {
	t.Helper()
	for _, sql := range statements {
		var failure string
		if rows, failure = p.try(t, sql); failure != "" {
			t.Fatalf("application: %s: %s", sql, failure)
		}
	}
	return rows
}

// newApp creates a WAL database with a table t. It returns its path and an application that keeps
// it open, with automatic checkpoints off.
func newApp(t testing.TB) (string, *python) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	app := startPython(t, session, path, "0")
	app.run(t, "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
	return path, app
}

// fill commits n rows of almost a page each, in one transaction.
func fill(t testing.TB, app *python, n int) {
	t.Helper()
	app.run(t, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t(v) "+
		"SELECT randomblob(3900) FROM n", n))
}

// second starts another application on the same database.
func second(t testing.TB, path string) *python {
	t.Helper()
	return startPython(t, session, path, "0")
}

// pin makes the application hold a read mark at the current head.
func pin(t testing.TB, app *python) {
	t.Helper()
	app.run(t, "BEGIN", "SELECT count(*) FROM t")
}

func mustOpen(t testing.TB, path string) *Conn {
	t.Helper()
	c, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// report is what a writer reports at its end.
type report struct {
	Commits int
	Longest float64 // seconds
	Errors  []string
}

func startWriter(t testing.TB, path string) *python {
	t.Helper()
	w := startPython(t, writer, path)
	if got := w.Line(t); got != "ready" {
		t.Fatalf("writer said %q", got)
	}
	return w
}

// finish stops writers and returns their reports. All are stopped before the first is waited for:
// SQLite's locks are not fair, and one writer at full speed can keep another waiting for as long
// as it runs.
func finish(t testing.TB, writers []*python) []report {
	t.Helper()
	for _, w := range writers {
		if err := w.CloseInput(); err != nil {
			t.Fatal(err)
		}
	}
	reports := make([]report, len(writers))
	for i, w := range writers {
		if err := json.Unmarshal([]byte(w.Line(t)), &reports[i]); err != nil {
			t.Fatal(err)
		}
	}
	return reports
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if condition() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// shell runs SQL in the system's sqlite3, which is another build of SQLite than ours.
func shell(t testing.TB, path, sql string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", "-cmd", ".timeout 5000", path, sql).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// output runs a command in another process, whose opens and closes do not release our locks.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}
