package sqlite

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// deferred is a Python process whose only connection reads and then writes in deferred
// transactions, for which SQLite does not call the busy handler. It has two arguments: how long
// it waits between read and write, and between transactions.
const deferred = `
import json, sqlite3, sys, threading, time
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
think, pause = float(sys.argv[2]), float(sys.argv[3])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
commits, longest, errors = 0, 0.0, []
print("ready", flush=True)
while not stop.is_set():
    began = time.monotonic()
    try:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM (SELECT 1 FROM t LIMIT 10)").fetchone()
        if think: time.sleep(think)
        db.execute("INSERT INTO t(v) VALUES (randomblob(200))")
        db.execute("COMMIT")
        commits += 1
    except sqlite3.Error as e:
        errors.append(str(e))
        if db.in_transaction: db.execute("ROLLBACK")
    longest = max(longest, time.monotonic() - began)
    if pause: time.sleep(pause)
print(json.dumps({"commits": commits, "longest": longest, "errors": errors}), flush=True)
`

// An application's only connection, without a busy timeout, never meets a lock when it is alone,
// and must not meet one beside us: during a freeze it waits, and while it is inside a transaction
// there is no freeze.
func TestFreeze_D81_neverBusy(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string][2]string{
		"flat out":   {"0", "0"},
		"hundreds":   {"0.0005", "0.002"},
		"reads long": {"0.02", "0.001"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, app := newApp(t)
			fill(t, app, 1)
			c := mustOpen(t, path)
			w := startPython(t, deferred, path, pause[0], pause[1])
			if got := w.Line(t); got != "ready" {
				t.Fatalf("writer said %q", got)
			}
			frozen := 0
			for deadline := time.Now().Add(20 * time.Second); frozen < 20 && time.Now().Before(deadline); {
				freeze, err := c.Freeze(t.Context(), Budget{BusyTimeout: 50 * time.Millisecond, Stall: patient}, nil)
				if errors.Is(err, ErrBusy) {
					continue
				} else if err != nil {
					t.Fatal(err)
				}
				frozen++
				<-time.After(5 * time.Millisecond)
				freeze.End()
				runtime.Gosched()
				if got, err := c.Checkpoint(t.Context(), Truncate, Budget{BusyTimeout: 20 * time.Millisecond,
					Stall: patient}); err != nil {
					t.Fatalf("%+v, %v", got, err)
				}
			}
			r := finish(t, []*python{w})[0]
			t.Logf("%d freezes, %d commits, longest %.3f s", frozen, r.Commits, r.Longest)
			if len(r.Errors) > 0 || r.Commits == 0 {
				t.Errorf("the application: %d commits, %d errors, %v", r.Commits, len(r.Errors), r.Errors[:min(3, len(r.Errors))])
			}
			if frozen == 0 {
				t.Error("never frozen: this test proved nothing")
			}
		})
	}
}

// Nobody commits during a freeze, nobody gets SQLITE_BUSY, and our read mark outlasts it.
func TestFreezeBesideWriters(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 1)
	f := newFollower(t, path)
	c := mustOpen(t, path)
	writers := []*python{startWriter(t, path), startWriter(t, path)}
	frozen := 0
	for range 50 {
		freeze, err := c.Freeze(t.Context(), Budget{BusyTimeout: 200 * time.Millisecond, Stall: patient}, f.held)
		if !f.held.InRead() && err != nil {
			t.Fatalf("the mark was lost: %v", err)
		}
		if errors.Is(err, ErrBusy) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		frozen++
		before, err := f.readIndex()
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond)
		if after, err := f.readIndex(); err != nil || after != before {
			t.Fatalf("somebody committed in the freeze: %+v, then %+v, %v", before, after, err)
		}
		if err := freeze.BeginMarked(t.Context(), f.held); err != nil || f.held.ReadMark() == 0 {
			t.Fatalf("after the freeze: READ%d, %v", f.held.ReadMark(), err)
		}
		freeze.End()
	}
	for _, r := range finish(t, writers) {
		if len(r.Errors) > 0 || r.Commits == 0 {
			t.Errorf("writer: %+v", r)
		}
	}
	if frozen < 25 {
		t.Errorf("frozen %d of 50 times", frozen)
	}
}

// While another process has a transaction open there is no freeze, and the read mark stays where
// it is.
func TestFreezeBesideATransaction(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 1)
	f := newFollower(t, path)
	c := mustOpen(t, path)
	for _, begin := range [][]string{{"BEGIN", "SELECT count(*) FROM t"}, {"BEGIN IMMEDIATE"}} {
		app.run(t, begin...)
		if _, err := c.Freeze(t.Context(), Budget{BusyTimeout: 10 * time.Millisecond, Stall: patient},
			f.held); !errors.Is(err, ErrBusy) {
			t.Errorf("%v: %v, want ErrBusy", begin, err)
		}
		if !f.held.InRead() || f.held.ReadMark() == 0 {
			t.Error("the mark was given up")
		}
		app.run(t, "INSERT INTO t(v) VALUES (1)", "COMMIT")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Freeze(cancelled, Budget{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// HoldFreezes waits for the end of a freeze, and no freeze begins until it is released.
func TestHoldFreezes_D83(t *testing.T) {
	path, app := newApp(t)
	fill(t, app, 1)
	c, other := mustOpen(t, path), mustOpen(t, path)
	freeze, err := c.Freeze(t.Context(), Budget{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan func())
	go func() { held <- HoldFreezes() }()
	select {
	case <-held:
		t.Fatal("held while a freeze lasts")
	case <-time.After(20 * time.Millisecond):
	}
	freeze.End()
	release := <-held
	began := make(chan error)
	go func() {
		freeze, err := other.Freeze(t.Context(), Budget{}, nil)
		if err == nil {
			freeze.End()
		}
		began <- err
	}()
	select {
	case err := <-began:
		t.Fatalf("a freeze began while they are held: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	app.run(t, "INSERT INTO t(v) VALUES ('nobody waits')")
	release()
	if err := <-began; err != nil {
		t.Error(err)
	}
}

// A WAL file that takes too long to truncate within the budget is truncated in portions, each of
// which leaves the database intact.
func TestTruncateInPortions_D82(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 4000)
	size := fileSize(path + "-wal")
	c := mustOpen(t, path)
	c.gate.cut.rate = 40e6
	first, err := c.truncate(t.Context(), Budget{Stall: patient / 100}, Hooks{})
	if err != nil || first.Outcome != OutcomeShortened || first.Reclaimed <= 0 || first.Reclaimed >= size {
		t.Fatalf("first portion of %d bytes: %+v, %v", size, first, err)
	}
	app.run(t, "INSERT INTO t(v) VALUES ('between')")
	second, err := c.Checkpoint(t.Context(), Truncate, Budget{BusyTimeout: 50 * time.Millisecond, Stall: patient})
	if err != nil || second.Outcome != OutcomeTruncated || fileSize(path+"-wal") != 0 {
		t.Errorf("the rest: %+v, %v, and %d bytes", second, err, fileSize(path+"-wal"))
	}
	app.run(t, "INSERT INTO t(v) VALUES ('after')")
	fill(t, app, 4000)
	size = fileSize(path + "-wal")
	c.gate.cut.rate = 40e6
	var reclaimed int64
	for range 100 { // on a busy machine a budget may be used up
		r, err := c.Checkpoint(t.Context(), Truncate, Budget{BusyTimeout: 50 * time.Millisecond, Stall: patient / 100})
		if reclaimed += r.Reclaimed; err != nil || r.Outcome == OutcomeTruncated {
			break
		}
	}
	if reclaimed != size {
		t.Errorf("all portions together reclaimed %d bytes of %d", reclaimed, size)
	}
	if got := shell(t, path, "PRAGMA integrity_check; SELECT count(*) FROM t"); got != "ok\n8002" {
		t.Errorf("integrity_check and rows: %q", got)
	}
}
