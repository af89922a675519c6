package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// open1 opens a connection that the test closes itself.
func open1(t *testing.T, path string) *Conn {
	t.Helper()
	c, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sides returns which side files exist.
func sides(path string) string {
	var there []string
	for _, s := range []string{"-wal", "-shm"} {
		if exists(path + s) {
			there = append(there, s)
		}
	}
	return strings.Join(there, " ")
}

// TestCloseLast/P16 closes the last connection as SQLite does.
func TestCloseLast(t *testing.T) {
	t.Parallel()
	t.Run("P16_nobody_else", func(t *testing.T) {
		t.Parallel()
		path, app := newApp(t)
		fill(t, app, 10)
		c := open1(t, path)
		app.Kill() // its frames stay in the WAL
		if err := c.CloseLast(); err != nil {
			t.Fatal(err)
		}
		if got := sides(path); got != "" {
			t.Errorf("%s stayed", got)
		}
		if got := shell(t, "file:"+path+"?immutable=1", "SELECT count(*) FROM t"); got != "10" {
			t.Errorf("%s rows in the file alone, want 10", got)
		}
	})
	t.Run("P16_beside_the_application", func(t *testing.T) {
		t.Parallel()
		path, app := newApp(t)
		fill(t, app, 10)
		before := walHeader(t, path)
		if err := open1(t, path).CloseLast(); err != nil {
			t.Fatal(err)
		}
		if got := sides(path); got != "-wal -shm" || walHeader(t, path) != before {
			t.Errorf("the application's files were touched: %s", got)
		}
		fill(t, app, 1)
	})
}

// TestCloseUnlinked/D15: CloseUnlinked backfills a WAL that has been unlinked, as the
// application's close would have done, but not if somebody else is connected, if there is another
// WAL or another file, or if it is not wanted.
func TestCloseUnlinked(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, path string, app *python)
		rows   string
	}{
		{"D15_removed", func(t *testing.T, path string, app *python) {
			remove(t, path+"-wal", path+"-shm")
			app.Kill()
		}, "10"},
		{"D15_wal_removed", func(t *testing.T, path string, app *python) {
			remove(t, path+"-wal")
			app.Kill()
		}, "10"},
		{"D15_still_there", func(t *testing.T, path string, app *python) { remove(t, path+"-wal", path+"-shm") }, "0"},
		{"D15_others_came", func(t *testing.T, path string, app *python) {
			remove(t, path+"-wal", path+"-shm")
			app.Kill()
			fill(t, second(t, path), 3)
		}, "3"},
		{"D15_another_wal", func(t *testing.T, path string, app *python) {
			remove(t, path+"-wal", path+"-shm")
			app.Kill()
			other := second(t, path)
			fill(t, other, 3)
			other.Kill()
		}, "3"},
		{"D15_another_file", func(t *testing.T, path string, app *python) {
			app.Kill()
			output(t, "sh", "-c", `cp "$0" "$0.new" && rm "$0-wal" "$0-shm" && mv "$0.new" "$0"`, path)
		}, "0"},
		{"D15_not_wanted", func(t *testing.T, path string, app *python) {
			remove(t, path+"-wal", path+"-shm")
			app.Kill()
		}, "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path, app := newApp(t)
			app.run(t, "PRAGMA wal_checkpoint(TRUNCATE)")
			fill(t, app, 10)
			c := open1(t, path)
			if err := errors.Join(c.BeginRead(context.Background()), c.EndRead(), c.Shed()); err != nil {
				t.Fatal(err)
			}
			tc.change(t, path, app)
			if err := c.CloseUnlinked(func() bool { return tc.name != "D15_not_wanted" }); err != nil {
				t.Fatal(err)
			}
			if got := shell(t, path, "SELECT count(*) FROM t"); got != tc.rows {
				t.Errorf("%s rows, want %s", got, tc.rows)
			}
			if got := shell(t, path, "PRAGMA integrity_check"); got != "ok" {
				t.Error(got)
			}
		})
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShed: after Shed another process can have the database exclusively, unless we are reading.
func TestShed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	shed := func(t *testing.T, path string) *Conn {
		c := open1(t, path)
		if err := errors.Join(c.BeginRead(ctx), c.Shed(), c.Shed()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("the_mark_holds", func(t *testing.T) {
		t.Parallel()
		path, app := newApp(t)
		fill(t, app, 3)
		c := shed(t, path)
		fill(t, app, 3)
		if rows := app.run(t, "PRAGMA wal_checkpoint(TRUNCATE)"); fmt.Sprint(rows[0][0]) != "1" {
			t.Errorf("the WAL was reset under a read mark: %v", rows)
		}
		if err := errors.Join(c.EndRead(), c.BeginRead(ctx)); err != nil {
			t.Fatal(err)
		}
		if rows, failure := app.try(t, "PRAGMA journal_mode=DELETE"); failure == "" {
			t.Errorf("a connection in use was taken for none: %v", rows)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
	for name, last := range map[string][]string{
		"D73_last_close":        nil,
		"D73_journal_mode":      {"PRAGMA journal_mode=DELETE"},
		"D73_exclusive_locking": {"PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t(v) VALUES(1)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, app := newApp(t)
			fill(t, app, 3)
			c := shed(t, path)
			app.run(t, last...)
			if err := app.CloseInput(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the application's close removes the side files", func() bool { return sides(path) == "" })
			if err := errors.Join(c.EndRead(), c.BeginRead(ctx)); !errors.Is(err, ErrReplaced) {
				t.Errorf("got %v, want ErrReplaced", err)
			}
			if _, err := c.Checkpoint(ctx, Truncate, Budget{}); !errors.Is(err, ErrReplaced) {
				t.Errorf("checkpoint: got %v, want ErrReplaced", err)
			}
			before := listing(t, path)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if after := listing(t, path); after != before {
				t.Errorf("our close changed something:\n%s\n%s", before, after)
			}
			if got := shell(t, path, "PRAGMA integrity_check"); got != "ok" {
				t.Error(got)
			}
		})
	}
	t.Run("D73_a_new_life_beside_the_old_files", func(t *testing.T) {
		t.Parallel()
		path, app := newApp(t)
		c := shed(t, path)
		if err := app.CloseInput(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the application's close removes the side files", func() bool { return sides(path) == "" })
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		next, err := Open(ctx, path, Options{})
		if !errors.Is(err, ErrNotExist) {
			t.Fatalf("got %v, %v", next, err)
		}
		app = startPython(t, session, path, "0")
		app.run(t, "PRAGMA journal_mode=WAL", "CREATE TABLE u(v)", "INSERT INTO u VALUES(1)")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		app.run(t, "INSERT INTO u VALUES(2)")
		if got := shell(t, path, "PRAGMA integrity_check; SELECT count(*) FROM u"); got != "ok\n2" {
			t.Error(got)
		}
	})
}

// TestForget/D4: after a copy was put in the database's place while only we were connected, the
// copy is read as it is.
func TestForget(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, rows := range []int{1, 400} {
		for how, put := range map[string]string{"cp": `cp "$1" "$0"`, "mv": `mv "$1" "$0"`,
			"rsync": `cp "$1" "$0.tmp" && mv "$0.tmp" "$0"`} {
			t.Run(fmt.Sprintf("D4_%s_%d", how, rows), func(t *testing.T) {
				t.Parallel()
				path, app := newApp(t)
				fill(t, app, 50)
				backup := filepath.Join(t.TempDir(), "backup.db")
				shell(t, backup, fmt.Sprintf("PRAGMA journal_mode=WAL; CREATE TABLE b(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION "+
					"ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO b SELECT randomblob(3900) FROM n", rows))
				want := output(t, "sha256sum", backup)[:64]
				c := open1(t, path)
				if err := app.CloseInput(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the WAL is emptied", func() bool {
					r, err := c.Checkpoint(ctx, Truncate, Budget{})
					return err == nil && r.Outcome == OutcomeTruncated
				})
				change := commits(t, path)
				if err := c.Forget(change + 1); !errors.Is(err, ErrBusy) {
					t.Fatalf("with another commit counter: got %v, want ErrBusy", err)
				}
				if err := c.Forget(change); err != nil {
					t.Fatal(err)
				}
				if err := c.BeginRead(ctx); err != nil { // creates the wal-index again
					t.Fatal(err)
				}
				output(t, "sh", "-c", put, path, backup)
				app = startPython(t, session, path, "0")
				if got := app.run(t, "SELECT count(*) FROM b"); fmt.Sprint(got) != fmt.Sprintf("[[%d]]", rows) {
					t.Errorf("the application finds %v rows, want %d", got, rows)
				}
				if got := app.run(t, "PRAGMA integrity_check"); fmt.Sprint(got) != "[[ok]]" {
					t.Error(got)
				}
				if got := output(t, "sha256sum", path)[:64]; got != want {
					t.Error("the copy was changed")
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// commits reads the commit counter of a wal-index.
func commits(t *testing.T, path string) uint32 {
	t.Helper()
	b := output(t, "od", "-An", "-tu4", "-j8", "-N4", path+"-shm")
	var n uint32
	if _, err := fmt.Sscan(b, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
