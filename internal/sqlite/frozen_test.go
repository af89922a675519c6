package sqlite

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// follower is a miniature replicator: two read connections, of which one always holds a read
// mark, and a count of the commits that it has seen in the WAL.
type follower struct {
	wal, shm   *os.File // held to the end: closing them would release our locks
	held, free *Conn
	salts      [8]byte
	frame      uint32 // the last frame seen
	commits    uint32 // commit frames seen
}

// index is what the follower reads from the wal-index header.
type index struct {
	change, maxFrame uint32
	salts            [8]byte
}

func newFollower(t *testing.T, path string) *follower {
	t.Helper()
	f := &follower{wal: holdOpen(t, path+"-wal"), shm: holdOpen(t, path+"-shm")}
	f.held, f.free = mustOpen(t, path), mustOpen(t, path)
	if err := f.held.BeginRead(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// holdOpen opens a file and keeps it open until after the connections are closed.
func holdOpen(t testing.TB, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// readIndex reads the header until its two copies agree.
func (f *follower) readIndex() (index, error) {
	var b [96]byte
	for range 100_000 {
		if _, err := f.shm.ReadAt(b[:], 0); err != nil {
			return index{}, err
		}
		if slices.Equal(b[:48], b[48:]) {
			return index{
				change:   binary.NativeEndian.Uint32(b[8:]),
				maxFrame: binary.NativeEndian.Uint32(b[16:]),
				salts:    [8]byte(b[32:40]),
			}, nil
		}
	}
	return index{}, errors.New("wal-index header never settled")
}

// follow counts the commits up to the head. A new generation of the WAL starts
// at its first frame.
func (f *follower) follow() error {
	head, err := f.readIndex()
	if err != nil {
		return err
	}
	if head.salts != f.salts {
		f.salts, f.frame = head.salts, 0
	}
	var header [24]byte
	for f.frame < head.maxFrame {
		if _, err := f.wal.ReadAt(header[:], 32+int64(f.frame)*frameSize); err != nil {
			return err
		}
		if [8]byte(header[8:16]) != f.salts {
			return errors.New("frame of another generation within the log")
		}
		if binary.BigEndian.Uint32(header[4:]) != 0 {
			f.commits++
		}
		f.frame++
	}
	return nil
}

// hop advances the read mark to the head; at every moment one connection holds a mark.
func (f *follower) hop(t *testing.T) error {
	if err := f.free.BeginRead(t.Context()); err != nil {
		return err
	}
	if err := f.follow(); err != nil {
		return err
	}
	f.held, f.free = f.free, f.held
	return f.free.EndRead()
}

// Two applications commit at full speed while the WAL is truncated again and again. The follower
// has seen every commit in the WAL that the wal-index counts, and nobody met an error.
func TestCheckpointFrozen(t *testing.T) {
	path, app := newApp(t)
	fill(t, app, 10)
	f := newFollower(t, path)
	if err := f.follow(); err != nil {
		t.Fatal(err)
	}
	first, err := f.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	seen := f.commits
	checkpointer := mustOpen(t, path)
	writers := []*python{startWriter(t, path), startWriter(t, path)}

	budget := Budget{BusyTimeout: 20 * time.Millisecond, Stall: 300 * time.Millisecond}
	truncated := 0
	var longest time.Duration
	enough, latest := time.Now().Add(3*time.Second), time.Now().Add(time.Minute)
	for time.Now().Before(enough) || truncated == 0 && time.Now().Before(latest) {
		var calls []string
		freeze, err := checkpointer.Freeze(t.Context(), budget, f.held)
		if errors.Is(err, ErrBusy) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		got, err := checkpointer.CheckpointHooked(t.Context(), Truncate, budget, Hooks{
			WriteLocked: func() error { calls = append(calls, "write"); return f.follow() },
			BeforeReset: func() error { calls = append(calls, "reset"); return nil },
		})
		begin := freeze.BeginMarked
		if got.Outcome == OutcomeTruncated {
			begin = freeze.BeginRead
		}
		if err := errors.Join(err, begin(t.Context(), f.held)); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, freeze.End())
		if got.Outcome == OutcomeTruncated {
			truncated++
			if !slices.Equal(calls, []string{"write", "reset"}) {
				t.Fatalf("hooks were called as %v", calls)
			}
			waitForFrame(t, f)
		}
		if err := f.hop(t); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, r := range finish(t, writers) {
		t.Logf("writer: %d commits, longest %.3f s", r.Commits, r.Longest)
		total += r.Commits
		if len(r.Errors) > 0 {
			t.Errorf("writer met %v", r.Errors)
		}
	}
	if err := f.follow(); err != nil {
		t.Fatal(err)
	}
	last, err := f.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commits, %d truncations, others waited at most %v", total, truncated, longest)
	if got, want := f.commits-seen, last.change-first.change; got != want || int(want) != total {
		t.Errorf("saw %d commits, wal-index counts %d, writers %d", got, want, total)
	}
	if truncated == 0 {
		t.Error("never truncated")
	}
	if got := shell(t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity_check: %s", got)
	}
}

// waitForFrame waits for the first commit of a new generation: until then the
// follower stays on READ0.
func waitForFrame(t *testing.T, f *follower) {
	t.Helper()
	eventually(t, "a frame after the truncation", func() bool {
		head, err := f.readIndex()
		return err == nil && head.maxFrame > 0
	})
}

// A hook that fails or panics ends the checkpoint: the WAL is not reset, and the locks are
// released.
func TestCheckpointHookFails_D80_panic(t *testing.T) {
	t.Parallel()
	broken := errors.New("spool is full")
	fail := func() error { return broken }
	pass := func() error { return nil }
	crash := func() error { panic(broken.Error()) }
	tests := map[string]Hooks{
		"checkpoint": {CheckpointLocked: fail, WriteLocked: pass, BeforeReset: pass},
		"write":      {WriteLocked: fail, BeforeReset: pass},
		"reset":      {WriteLocked: pass, BeforeReset: fail},

		"panic with the checkpoint lock": {CheckpointLocked: crash},
		"panic with the write lock":      {WriteLocked: crash},
		"panic before the reset":         {BeforeReset: crash},
	}
	for name, hooks := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, app := newApp(t)
			fill(t, app, 20)
			c := mustOpen(t, path)
			before := walHeader(t, path)
			got, err := c.CheckpointHooked(t.Context(), Truncate, Budget{BusyTimeout: time.Minute, Stall: patient}, hooks)
			if got.Outcome != OutcomeFailed || err == nil || !strings.Contains(err.Error(), broken.Error()) ||
				got.Duration > patient {
				t.Errorf("got %+v, %v", got, err)
			}
			if after := walHeader(t, path); after != before {
				t.Error("the WAL was reset")
			}
			app.run(t, "INSERT INTO t(v) VALUES ('after')")
			if got, err := c.CheckpointHooked(t.Context(), Truncate, Budget{Stall: patient}, Hooks{}); err != nil ||
				got.Outcome != OutcomeTruncated {
				t.Errorf("next checkpoint: %+v, %v", got, err)
			}
		})
	}
}

// A hook that takes longer than the stall budget ends the checkpoint as soon
// as it returns.
func TestCheckpointFrozenSlowHook(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	c := mustOpen(t, path)
	budget := Budget{Stall: 10 * time.Millisecond}
	got, err := c.CheckpointHooked(t.Context(), Truncate, budget, Hooks{
		WriteLocked: func() error { <-time.After(30 * time.Millisecond); return nil },
		BeforeReset: func() error { t.Error("went on after the budget was spent"); return nil },
	})
	if err != nil || got.Outcome != OutcomeBudgetSpent || got.WriterStall < budget.Stall {
		t.Errorf("got %+v, %v", got, err)
	}
	app.run(t, "INSERT INTO t(v) VALUES ('after')")
}

// A read mark that advances while we hold the checkpoint lock counts for this checkpoint, and no
// other checkpointer can come between.
func TestCheckpointHookedHop(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	f := newFollower(t, path) // its mark stops every backfill here
	fill(t, app, 20)
	c := mustOpen(t, path)
	if got, err := c.Checkpoint(t.Context(), Passive, Budget{}); err != nil || got.Outcome != OutcomePartial {
		t.Errorf("behind the mark: %+v, %v", got, err)
	}
	got, err := c.CheckpointHooked(t.Context(), Passive, Budget{}, Hooks{CheckpointLocked: func() error {
		if rows := app.run(t, "PRAGMA wal_checkpoint"); rows[0][0] != 1.0 {
			t.Errorf("the application's checkpoint returned %v", rows)
		}
		return f.hop(t)
	}})
	if err != nil || got.Outcome != OutcomeComplete {
		t.Errorf("with the mark moved: %+v, %v", got, err)
	}
}

// walHeader returns the WAL's header: it changes whenever the WAL is reset.
func walHeader(t testing.TB, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(b[:32])
}

// Another goroutine may use other connections while one is frozen.
func TestCheckpointFrozenBesideReaders(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 200)
	c, reader := mustOpen(t, path), mustOpen(t, path)
	var group sync.WaitGroup
	stop := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(reader.BeginRead(t.Context()), reader.EndRead()); err != nil && !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		}
	})
	for range 50 {
		app.run(t, "INSERT INTO t(v) VALUES (1)")
		if _, err := c.CheckpointHooked(t.Context(), Truncate, Budget{BusyTimeout: 50 * time.Millisecond},
			Hooks{}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	group.Wait()
}
