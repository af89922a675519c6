package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
