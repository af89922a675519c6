package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// killedInRollback is an application that dies within a transaction in rollback journal mode.
const killedInRollback = `
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=DELETE"); db.execute("PRAGMA cache_size=10")
db.execute("CREATE TABLE IF NOT EXISTS t(v)")
db.executemany("INSERT INTO t VALUES(randomblob(900))", [()] * 500)
db.execute("BEGIN"); db.execute("UPDATE t SET v=randomblob(900)")
print("ready", flush=True)
sys.stdin.read()
`

// An application was killed in rollback journal mode, and a backup of two files, the database and its WAL, was put in
// the place of its file, but the journal was forgotten. Whoever opens the database rolls the journal back into the
// backup. That must not be us.
func TestOpen_D4_hotJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	app := testapp.Start(t, killedInRollback, path)
	if got := app.Line(t); got != "ready" {
		t.Fatalf("application: %q", got)
	}
	app.Kill()
	other, session := newApp(t)
	fill(t, session, 50)
	for _, side := range []string{"", "-wal"} {
		data, err := os.ReadFile(other + side)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+side, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), path, Options{})
	if !errors.Is(err, ErrNotWAL) {
		t.Errorf("Open: %v, want ErrNotWAL", err)
	}
	if err == nil {
		if err := errors.Join(c.BeginRead(t.Context()), c.Close()); err != nil {
			t.Error(err)
		}
	}
	after, err := os.ReadFile(path)
	if _, missing := os.Stat(path + "-journal"); err != nil || missing != nil || !bytes.Equal(before, after) {
		t.Errorf("%v, journal: %v, the backup is as it was: %v", err, missing, bytes.Equal(before, after))
	}
}

// A journal that SQLite does not roll back either, because its header was cleared, is no reason not to open.
func TestOpen_finishedJournal(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{"cleared": make([]byte, 2048), "emptied": {}} {
		path, app := newApp(t)
		fill(t, app, 1)
		if err := os.WriteFile(path+"-journal", content, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := errors.Join(c.BeginRead(t.Context()), c.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is named like the journal is a pipe: whoever opens it for reading waits for a writer, for ever.
func TestOpen_pipeForJournal(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 1)
	pipe := path + "-journal"
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		c, err := Open(context.Background(), path, Options{})
		if err == nil {
			err = errors.Join(c.Close(), errors.New("it was opened"))
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("Open: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Open waits for somebody who writes to the pipe")
	}
}
