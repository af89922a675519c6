package blockers

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// forger is a writer whose process name contains a line break and an escape sequence. It has a
// second connection, which reads the database file as it was before the WAL.
const forger = `
import ctypes, sqlite3, sys
ctypes.CDLL(None).prctl(15, b"x\n\x1b[31mdms 1", 0, 0, 0)
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table t(v)")
db.execute("pragma wal_checkpoint(truncate)")
reader = sqlite3.connect(sys.argv[1], isolation_level=None)
reader.execute("begin")
reader.execute("select * from t").fetchall()
db.execute("insert into t values(1)")
db.execute("begin immediate")
db.execute("insert into t values(2)")
print("writing", flush=True)
sys.stdin.read()
`

// forgedName is how a table shows the forger's name.
const forgedName = `x\x0a\x1b[31mdms 1`

func startForger(t *testing.T) (path string, app *testapp.Process) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "app.db")
	app = testapp.Start(t, forger, path)
	if got := app.Line(t); got != "writing" {
		t.Fatal(got)
	}
	return path, app
}

func TestOf(t *testing.T) {
	t.Parallel()
	path, app := startForger(t)
	found, err := Of(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(found, func(a, b Blocker) int { return lockRank(a.Lock) - lockRank(b.Lock) }) {
		t.Errorf("out of order: %+v", found)
	}
	blocks := map[string]string{}
	for _, b := range found {
		if b.PID != app.PID {
			t.Errorf("%s is held by %d, want %d", b.Lock, b.PID, app.PID)
		}
		blocks[b.Lock] = b.Blocks
	}
	for lock, want := range map[string]string{"write": "every other writer",
		"read0":  "frames after 0 (of 1) from leaving the WAL",
		"shared": "nobody: it is connected", "dms": "nobody: it is connected"} {
		if got := blocks[lock]; got != want {
			t.Errorf("%s blocks %q, want %q", lock, got, want)
		}
	}
}

// A process chooses its own name: in a table it neither begins a line nor controls the terminal.
func TestTablesShowForgedNames(t *testing.T) {
	t.Parallel()
	path, app := startForger(t)
	found, err := Of(path)
	if err != nil {
		t.Fatal(err)
	}
	var holders, writers bytes.Buffer
	if err := Write(&holders, path, found); err != nil {
		t.Fatal(err)
	}
	wrote, err := Watch(context.Background(), path, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := wrote.Write(&writers); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(holders.String(), "\n"), 1+len(found); got != want {
		t.Errorf("%d lines, want %d:\n%s", got, want, &holders)
	}
	if got := strings.Count(writers.String(), "\n"); got != 3 {
		t.Errorf("%d lines, want 3:\n%s", got, &writers)
	}
	for _, table := range []string{holders.String(), writers.String()} {
		if !strings.Contains(table, forgedName) || strings.Contains(table, "\x1b") ||
			!strings.Contains(table, fmt.Sprint(app.PID)) {
			t.Errorf("no %s of %d in\n%q", forgedName, app.PID, table)
		}
	}
}

// counted is an application that commits one row for each line that it reads.
const counted = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table t(v)")
print("ready", flush=True)
for line in sys.stdin:
    db.execute("insert into t values(1)")
    print("done", flush=True)
`

func TestWatchCountsCommits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := testapp.Start(t, counted, path)
	app.Line(t)
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
				app.Send(t, "one")
				app.Line(t)
			}
		}
	}()
	seen := Writers{}
	var err error
	for deadline := time.Now().Add(20 * time.Second); err == nil && seen.Commits == 0 && time.Now().Before(deadline); {
		seen, err = Watch(context.Background(), path, 50*time.Millisecond)
	}
	close(stop)
	if n := <-sent; err != nil || seen.Commits == 0 || seen.Commits > n || seen.Looks == 0 {
		t.Fatalf("%d commits seen of %d, %d looks, %v", seen.Commits, n, seen.Looks, err)
	}
}

func TestWatchOfNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := testapp.Start(t, counted, path)
	app.Line(t)
	w, err := Watch(context.Background(), path, 5*time.Millisecond)
	if err != nil || w.Commits != 0 || len(w.Writers) != 0 || w.Writers == nil {
		t.Fatalf("%+v, %v", w, err)
	}
	var out bytes.Buffer
	if err := w.Write(&out); err != nil || !strings.HasSuffix(out.String(), "Nobody was seen holding it.\n") {
		t.Errorf("%v: %s", err, &out)
	}
	app.Kill()
	found, err := Of(path)
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := Write(&out, path, found); err != nil || out.String() != "Nobody holds a lock on "+path+".\n" {
		t.Errorf("%v: %s", err, &out)
	}
}
