package testapp

import (
	"os"
	"path/filepath"
	"testing"
)

// keeper keeps a database open until its input ends, and then closes it.
const keeper = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table t(x)")
print("open", flush=True)
for line in sys.stdin:
    print(line.strip().upper(), flush=True)
db.close()
print("closed", flush=True)
`

func start(t *testing.T) (*Process, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	p := Start(t, keeper, path)
	if got := p.Line(t); got != "open" {
		t.Fatalf("the program said %q", got)
	}
	return p, path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestKillIsACrash(t *testing.T) {
	t.Parallel()
	for range 5 {
		p, path := start(t)
		p.Send(t, "hello")
		if got := p.Line(t); got != "HELLO" {
			t.Errorf("the program said %q", got)
		}
		p.Kill()
		p.Kill()
		if !exists(path+"-wal") || !exists(path+"-shm") {
			t.Fatal("a killed application took its WAL away")
		}
	}
}

func TestCloseInputIsAnEndInPeace(t *testing.T) {
	t.Parallel()
	p, path := start(t)
	if err := p.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if got := p.Line(t); got != "closed" {
		t.Errorf("the program said %q", got)
	}
	if exists(path + "-wal") {
		t.Error("the last connection left its WAL behind")
	}
}
