//go:build linux && cgo

package sqlite

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// visitor is a Python process that connects, makes one SELECT and disconnects, again and again,
// without ever waiting for a lock.
const visitor = `
import collections, json, sqlite3, sys, threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
visits, errors = 0, collections.Counter()
print("ready", flush=True)
while not stop.is_set():
    try:
        db = sqlite3.connect(sys.argv[1], timeout=0)
        db.execute("SELECT count(*) FROM t").fetchall()
    except sqlite3.Error as e:
        errors[str(e)] += 1
    finally:
        db.close()
    visits += 1
print(json.dumps({"visits": visits, "errors": errors}), flush=True)
`

// While the wal-index of an empty WAL is cleared and rebuilt, an application that begins a
// transaction waits and gets no SQLITE_BUSY, whatever its busy timeout.
func TestForget_D81_neverBusy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path, app := newApp(t)
	c := open1(t, path)
	if err := app.CloseInput(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the WAL is emptied", func() bool {
		r, err := c.Checkpoint(ctx, Truncate, Budget{})
		return err == nil && r.Outcome == OutcomeTruncated
	})
	change := commits(t, path)
	for name, rebuild := range map[string]bool{"cleared": false, "rebuilt": true} {
		visits := startPython(t, visitor, path)
		visits.Line(t)
		cleared := 0
		for start := time.Now(); time.Since(start) < 4*time.Second; {
			if err := c.Forget(change); err == nil {
				cleared, change = cleared+1, 0
			} else if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
			if rebuild {
				if err := errors.Join(c.BeginRead(ctx), c.EndRead()); err != nil && !errors.Is(err, ErrBusy) {
					t.Fatal(err)
				}
			}
		}
		if err := visits.CloseInput(); err != nil {
			t.Fatal(err)
		}
		got := visits.Line(t)
		t.Logf("%s: %d times; %s", name, cleared, got)
		if !strings.Contains(got, `"errors": {}`) {
			t.Errorf("D81: %s %d times, and the application was refused: %s", name, cleared, got)
		}
	}
}
