package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// beside lists the database's directory.
func beside(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

const someTables = "CREATE TABLE _litestream_seq(id); CREATE TABLE app(x); CREATE TABLE _litestream_lock(id);"

func TestTableNames(t *testing.T) {
	t.Parallel()
	want := []string{"_litestream_lock", "_litestream_seq"}
	t.Run("closed WAL database, nothing is created", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		shell(t, path, "PRAGMA journal_mode=WAL;"+someTables)
		got, err := TableNames(context.Background(), path, "_litestream_", false)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
		if files := beside(t, path); len(files) != 1 {
			t.Errorf("files %v, want the database alone", files)
		}
	})
	t.Run("rollback journal, beside a writer", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		shell(t, path, someTables)
		app := startPython(t, session, path, "0")
		app.run(t, "BEGIN EXCLUSIVE")
		got, err := TableNames(context.Background(), path, "_litestream_", false)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
	})
	t.Run("tables that are in the WAL only", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		app := startPython(t, session, path, "0")
		app.run(t, "PRAGMA journal_mode=WAL")
		app.run(t, "PRAGMA wal_autocheckpoint=0")
		app.run(t, "CREATE TABLE _litestream_seq(id)")
		got, err := TableNames(context.Background(), path, "_litestream_", true)
		if err != nil || len(got) != 1 {
			t.Errorf("%v %v, want one table", got, err)
		}
	})
	t.Run("no database", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		if err := os.WriteFile(path, []byte(strings.Repeat("no database at all ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := TableNames(context.Background(), path, "", false); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func TestCopyScratch(t *testing.T) {
	t.Parallel()
	const fill = "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 5000) " +
		"INSERT INTO t SELECT randomblob(500) FROM n;"
	sum := func(path string) string { return shell(t, path, "SELECT count(*), sum(length(x)), max(hex(x)) FROM t") }
	t.Run("in use in WAL mode", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path, scratch := filepath.Join(dir, "app.db"), filepath.Join(t.TempDir(), "copy.db")
		app := startPython(t, session, path, "0")
		for _, s := range append([]string{"PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0"},
			strings.Split(strings.TrimSuffix(fill, ";"), "; ")...) {
			app.run(t, s)
		}
		told := int64(0)
		if err := CopyScratch(context.Background(), Source{Path: path, WAL: true, Attached: true}, scratch,
			func(done, total int64) { told = done }); err != nil {
			t.Fatal(err)
		}
		if got, want := sum(scratch), sum(path); got != want {
			t.Errorf("copy holds %.40s, want %.40s", got, want)
		}
		if told == 0 {
			t.Error("no progress told")
		}
		app.run(t, "INSERT INTO t VALUES (1)") // no lock is in its way
	})
	t.Run("closed in WAL mode, nothing is created", func(t *testing.T) {
		t.Parallel()
		path, scratch := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "copy.db")
		shell(t, path, "PRAGMA journal_mode=WAL;"+fill)
		if err := CopyScratch(context.Background(), Source{Path: path, WAL: true}, scratch, nil); err != nil {
			t.Fatal(err)
		}
		if files := beside(t, path); len(files) != 1 {
			t.Errorf("files %v, want the database alone", files)
		}
		if got, want := sum(scratch), sum(path); got != want {
			t.Errorf("copy holds %.40s, want %.40s", got, want)
		}
	})
	t.Run("with a rollback journal", func(t *testing.T) {
		t.Parallel()
		path, scratch := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "copy.db")
		shell(t, path, fill)
		if err := CopyScratch(context.Background(), Source{Path: path}, scratch, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := sum(scratch), sum(path); got != want {
			t.Errorf("copy holds %.40s, want %.40s", got, want)
		}
	})
	t.Run("WAL without wal-index", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		shell(t, path, "PRAGMA journal_mode=WAL;"+fill)
		if err := os.WriteFile(path+"-wal", []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CopyScratch(context.Background(), Source{Path: path, WAL: true}, filepath.Join(t.TempDir(), "copy.db"), nil)
		if !errors.Is(err, ErrBusy) || len(beside(t, path)) != 2 {
			t.Errorf("%v with %v, want a refusal that creates nothing", err, beside(t, path))
		}
	})
	t.Run("cancelled beside a writer that never ends", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		shell(t, path, fill)
		app := startPython(t, session, path, "0")
		app.run(t, "BEGIN EXCLUSIVE")
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := CopyScratch(ctx, Source{Path: path}, filepath.Join(t.TempDir(), "copy.db"), nil); !errors.Is(err,
			context.DeadlineExceeded) {
			t.Errorf("%v, want the context's end", err)
		}
	})
}

// TestCopyScratch_D15: somebody removes the side files of a running application while its database is copied. The
// copy must end: as long as it is connected, the application's close is not the last one, and what the application
// has committed is lost.
func TestCopyScratch_D15(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	shell(t, path, "PRAGMA journal_mode=WAL; CREATE TABLE t(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "+
		"FROM n WHERE i < 2000) INSERT INTO t SELECT randomblob(4000) FROM n")
	app := testapp.Start(t, closes, path)
	if got := app.Line(t); got != "committed" {
		t.Fatalf("application: %q", got)
	}
	ends := sync.OnceFunc(func() {
		app.Send(t, "close")
		if got := app.Line(t); got != "closed" {
			t.Errorf("application: %q", got)
		}
	})
	looks := 0
	err := CopyScratch(t.Context(), Source{Path: path, WAL: true, Attached: true}, filepath.Join(t.TempDir(), "copy.db"),
		func(int64, int64) {
			if looks++; looks == 1 {
				if err := errors.Join(os.Remove(path+"-wal"), os.Remove(path+"-shm")); err != nil {
					t.Error(err)
				}
				return
			}
			ends()
		})
	if !errors.Is(err, ErrReplaced) || looks != 1 {
		t.Errorf("%v after %d portions, want ErrReplaced after one", err, looks)
	}
	ends()
	if got := shell(t, path, "SELECT count(*) FROM t"); got != "2001" {
		t.Errorf("the application has %s rows, want 2001", got)
	}
}

// closes opens the database, commits and closes it, and does the next on request.
const closes = `
import sqlite3, sys
while True:
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL"); db.execute("CREATE TABLE IF NOT EXISTS t(v)")
    db.execute("INSERT INTO t VALUES(1)")
    print("committed", flush=True)
    sys.stdin.readline()
    db.close()
    print("closed", flush=True)
    if not sys.stdin.readline(): break
`
