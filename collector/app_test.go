package collector

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// appScript runs the Python statements it is sent, one JSON string a line, and
// answers each with a JSON line: the value of `out`, or the error.
const appScript = `
import json, os, signal, sqlite3, sys
env = {"sqlite3": sqlite3, "os": os, "signal": signal, "path": sys.argv[1]}
exec("def connect():\n c = sqlite3.connect(path, isolation_level=None, timeout=0)\n"
     " c.execute('pragma synchronous=off')\n return c", env)
for line in sys.stdin:
    env["out"] = None
    try:
        exec(json.loads(line), env)
        answer = {"out": env["out"]}
    except Exception as e:
        answer = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
`

// app is an application in another process: Python's unmodified sqlite3.
type app struct {
	*testapp.Process
	t testing.TB
}

func startApp(t testing.TB, path string) *app {
	t.Helper()
	return &app{testapp.Start(t, appScript, path), t}
}

// run executes statements and returns what they left in `out`.
func (a *app) run(statements ...string) any {
	a.t.Helper()
	line, err := json.Marshal(strings.Join(statements, "\n"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.Send(a.t, string(line))
	var answer struct {
		Out   any
		Error string
	}
	if err := json.Unmarshal([]byte(a.Line(a.t)), &answer); err != nil {
		a.t.Fatal(err)
	}
	if answer.Error != "" {
		a.t.Fatalf("application: %s", answer.Error)
	}
	return answer.Out
}

// walApp starts an application with a WAL database of one table and no
// automatic checkpoints.
func walApp(t *testing.T, path string) *app {
	t.Helper()
	a := startApp(t, path)
	a.run("c = connect()", "c.execute('pragma journal_mode=wal')", "c.execute('pragma wal_autocheckpoint=0')",
		"c.execute('create table t(x)')")
	return a
}

const insert = "c.execute(\"insert into t values(randomblob(100))\")"

// testClock is a clock that only the test moves.
type testClock struct{ now time.Time }

func (c *testClock) forward(d time.Duration) { c.now = c.now.Add(d) }

// newTestSampler returns a Sampler with a clock that stands still.
func newTestSampler(t *testing.T, path string) (*Sampler, *testClock) {
	t.Helper()
	clock := &testClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	r := NewSampler("app", path, SamplerOptions{Now: func() time.Time { return clock.now }})
	t.Cleanup(func() { r.Close() })
	return r, clock
}

func tempDB(t *testing.T) string { return filepath.Join(t.TempDir(), "app.db") }

// wantState samples and checks the state. Any other state than up must come with a
// message to the operator.
func wantState(t *testing.T, r *Sampler, want State) Sample {
	t.Helper()
	s := r.Sample(context.Background())
	if want == StateUp && s.State == StateForeignWAL && s.WAL.Exclusive && s.WAL.Known {
		return s // in EXCLUSIVE locking mode: it is recognised after a moment, and measured before that
	}
	if s.State != want {
		t.Fatalf("state %v (%s), want %v", s.State, s.Err, want)
	}
	switch {
	case want == StateUp && s.Err != "":
		t.Errorf("up, but with a message: %s", s.Err)
	case want == StateUp && !s.WAL.Known:
		t.Error("up, but nothing is known about the WAL")
	case want != StateUp && s.WAL.Known:
		t.Errorf("%v, but the WAL is known", want)
	case want != StateUp && (!strings.HasSuffix(s.Err, ".") || !strings.Contains(s.Err, ": ")):
		t.Errorf("message does not say what happened, what we do and what to do next: %q", s.Err)
	}
	return s
}
