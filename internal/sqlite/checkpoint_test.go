package sqlite

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

const frameSize = 4096 + 24

// patient is a stall budget that a loaded test machine does not use up.
const patient = 10 * time.Second

// lockByte is a Python process that holds one lock byte of a -shm file.
const lockByte = `
import fcntl, sys
f = open(sys.argv[1], "r+b")
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
`

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		prepare   func(t *testing.T, path string, app *python)
		mode      Mode
		budget    Budget
		want      Outcome
		reclaimed bool
		maxStall  time.Duration // 0: no writer waits
	}{
		{name: "passive copies everything", mode: Passive, want: OutcomeComplete,
			prepare: func(t *testing.T, _ string, app *python) { fill(t, app, 50) }},
		{name: "passive with nothing to do", mode: Passive, want: OutcomeComplete,
			prepare: func(t *testing.T, _ string, app *python) { app.run(t, "PRAGMA wal_checkpoint(TRUNCATE)") }},
		{name: "passive behind a reader", mode: Passive, want: OutcomePartial,
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				pin(t, second(t, path))
				fill(t, app, 20)
			}},
		{name: "truncate", mode: Truncate, want: OutcomeTruncated, reclaimed: true, maxStall: patient,
			prepare: func(t *testing.T, _ string, app *python) { fill(t, app, 50) }},
		{name: "D31 truncate behind an old reader", mode: Truncate, want: OutcomePinned, maxStall: patient,
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				pin(t, second(t, path))
				fill(t, app, 20)
			}},
		{name: "truncate behind a reader at the head", mode: Truncate, want: OutcomeWriterBusy, maxStall: patient,
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				pin(t, second(t, path))
			}},
		{name: "D26 truncate beside a writer", mode: Truncate, want: OutcomeWriterBusy, maxStall: patient,
			budget: Budget{BusyTimeout: 20 * time.Millisecond},
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				second(t, path).run(t, "BEGIN IMMEDIATE")
			}},
		{name: "beside another checkpointer", mode: Truncate, want: OutcomeContended,
			budget: Budget{BusyTimeout: time.Minute},
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				if got := startPython(t, lockByte, path+"-shm", "121").Line(t); got != "held" {
					t.Fatal(got)
				}
			}},
		{name: "stall budget ends the wait for a reader", mode: Truncate, want: OutcomeBudgetSpent, maxStall: patient,
			budget: Budget{BusyTimeout: time.Minute, Stall: 30 * time.Millisecond},
			prepare: func(t *testing.T, path string, app *python) {
				fill(t, app, 20)
				pin(t, second(t, path))
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path, app := newApp(t)
			test.prepare(t, path, app)
			c := mustOpen(t, path)
			before := fileSize(path + "-wal")
			if test.budget.Stall == 0 {
				test.budget.Stall = patient
			}
			got, err := c.Checkpoint(t.Context(), test.mode, test.budget)
			if err != nil {
				t.Fatal(err)
			}
			if got.Outcome != test.want {
				t.Errorf("outcome %s, want %s (%+v)", got.Outcome, test.want, got)
			}
			if got.WriterStall > test.maxStall || (got.WriterStall > 0) != (test.maxStall > 0) {
				t.Errorf("writer stall %v, want at most %v", got.WriterStall, test.maxStall)
			}
			if got.Duration < got.WriterStall || got.Duration > patient {
				t.Errorf("duration %v with writer stall %v", got.Duration, got.WriterStall)
			}
			if want := map[bool]int64{true: before}[test.reclaimed]; got.Reclaimed != want {
				t.Errorf("reclaimed %d, want %d", got.Reclaimed, want)
			}
		})
	}
}

func TestStallBudgetEndsTheCopying(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 5000)
	c := mustOpen(t, path)
	freeze, err := c.Freeze(t.Context(), Budget{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer freeze.End()
	got, err := c.Checkpoint(t.Context(), Truncate, Budget{Stall: 100 * time.Microsecond})
	if err != nil || got.Outcome != OutcomeBudgetSpent || got.Reclaimed != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCheckpointCountsFrames(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	reader := second(t, path)
	pin(t, reader)
	pinned := int(fileSize(path+"-wal") / frameSize)
	fill(t, app, 20)
	total := int(fileSize(path+"-wal") / frameSize)
	c := mustOpen(t, path)

	got, err := c.Checkpoint(t.Context(), Passive, Budget{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Frames != total || got.Backfilled != pinned {
		t.Errorf("frames %d, backfilled %d, want %d and %d", got.Frames, got.Backfilled, total, pinned)
	}
	reader.run(t, "COMMIT")
	if got, err = c.Checkpoint(t.Context(), Truncate, Budget{Stall: patient}); err != nil {
		t.Fatal(err)
	}
	if got.Frames != 0 || got.Backfilled != 0 || got.Reclaimed != int64(32+total*frameSize) {
		t.Errorf("after truncation: %+v", got)
	}
}

// A checkpoint waits for a reader that ends within the busy timeout.
func TestCheckpointWaitsForReader(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	reader := second(t, path)
	pin(t, reader)
	fill(t, app, 20)
	c := mustOpen(t, path)
	time.AfterFunc(30*time.Millisecond, func() { _ = reader.CloseInput() })
	got, err := c.Checkpoint(t.Context(), Truncate, Budget{BusyTimeout: time.Minute, Stall: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got.Outcome != OutcomeTruncated || got.Duration < 20*time.Millisecond {
		t.Errorf("got %+v, want a truncation after the reader's end", got)
	}
}

func TestCheckpointCancelled(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	pin(t, second(t, path))
	c := mustOpen(t, path)
	budget := Budget{BusyTimeout: time.Minute, Stall: time.Minute}

	for name, after := range map[string]time.Duration{"before": 0, "while waiting": 20 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		got, err := c.Checkpoint(ctx, Truncate, budget)
		cancel()
		if got.Outcome != OutcomeFailed || !errors.Is(err, context.DeadlineExceeded) || got.Frames != -1 {
			t.Errorf("cancelled %s: %+v, %v", name, got, err)
		}
	}
	if _, failure := app.try(t, "INSERT INTO t(v) VALUES (1)"); failure != "" {
		t.Errorf("the write lock is still held: %s", failure)
	}
	// The interrupt does not affect the next checkpoint.
	if got, err := c.Checkpoint(t.Context(), Passive, Budget{}); err != nil || got.Outcome != OutcomePartial {
		t.Errorf("next checkpoint: %+v, %v", got, err)
	}
}

func TestCheckpointInTransaction(t *testing.T) {
	t.Parallel()
	path, _ := newApp(t)
	c := mustOpen(t, path)
	if err := c.BeginRead(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := c.Checkpoint(t.Context(), Passive, Budget{})
	if got.Outcome != OutcomeFailed || err == nil {
		t.Errorf("got %+v, %v, want a failure", got, err)
	}
}

// failedRun is a run whose hook spent the budget and then failed.
func failedRun() *run {
	r := &run{mode: Truncate}
	r.giveUp(errStallBudget)
	r.giveUp(errors.New("spool is full"))
	return r
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	failure := errors.New("disk I/O error")
	tests := []struct {
		name string
		run  *run
		t    tuple
		err  error
		want Outcome
	}{
		{"no WAL", &run{mode: Truncate}, tuple{0, -1, -1}, nil, OutcomeNotWAL},
		{"another checkpointer", &run{mode: Passive}, tuple{1, -1, -1}, nil, OutcomeContended},
		{"error", &run{mode: Truncate}, tuple{0, -1, -1}, failure, OutcomeFailed},
		{"budget spent too late to matter", &run{mode: Truncate, cause: errStallBudget}, tuple{0, 0, 0}, nil,
			OutcomeTruncated},
		{"budget spent", &run{mode: Truncate, cause: errStallBudget}, tuple{0, -1, -1}, failure, OutcomeBudgetSpent},
		{"passive beside frames", &run{mode: Passive}, tuple{0, 9, 8}, nil, OutcomePartial},
		{"hook's error before its budget", failedRun(), tuple{0, -1, -1}, failure, OutcomeFailed},
		{"writer busy, all copied", &run{mode: Truncate}, tuple{1, 9, 9}, nil, OutcomeWriterBusy},
	}
	for _, test := range tests {
		got, err := outcome(test.run, test.t, test.err)
		if got != test.want || (err != nil) != (test.want == OutcomeFailed) {
			t.Errorf("%s: %s, %v, want %s", test.name, got, err, test.want)
		}
	}
}

// Several databases are checkpointed concurrently, each with its own budget and stall:
// connections share nothing in the shim.
func TestCheckpointConcurrently(t *testing.T) {
	t.Parallel()
	const databases = 4
	var group sync.WaitGroup
	for i := range databases {
		path, app := newApp(t)
		pinned := i%2 == 1
		fill(t, app, 100)
		if pinned {
			pin(t, second(t, path))
		}
		c := mustOpen(t, path)
		group.Go(func() {
			want, calls := OutcomeTruncated, 2
			if pinned {
				want, calls = OutcomeWriterBusy, 0
			}
			for range 30 {
				hooks := 0
				got, err := c.CheckpointHooked(t.Context(), Truncate, Budget{Stall: patient}, Hooks{
					WriteLocked: func() error { hooks++; return nil },
					BeforeReset: func() error { hooks++; return nil },
				})
				if err != nil || got.Outcome != want || hooks != calls || got.WriterStall == 0 {
					t.Errorf("database %d: %+v, %v, %d hooks, want %s", i, got, err, hooks, want)
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkCheckpointPassive(b *testing.B) {
	path, app := newApp(b)
	fill(b, app, 10)
	c := mustOpen(b, path)
	for b.Loop() {
		if got, err := c.Checkpoint(b.Context(), Passive, Budget{}); err != nil || got.Outcome != OutcomeComplete {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkHop advances a read mark to the head: a BeginRead on one connection and an EndRead on
// the other.
func BenchmarkHop(b *testing.B) {
	path, app := newApp(b)
	fill(b, app, 10)
	held, free := mustOpen(b, path), mustOpen(b, path)
	for b.Loop() {
		if err := errors.Join(free.BeginRead(b.Context()), held.EndRead()); err != nil {
			b.Fatal(err)
		}
		held, free = free, held
	}
}

func TestOutcomeNames(t *testing.T) {
	t.Parallel()
	for o, want := range map[Outcome]string{OutcomeNone: "none", OutcomeTruncated: "truncated", OutcomeFailed: "io",
		99: "invalid"} {
		if got, err := o.MarshalText(); err != nil || string(got) != want {
			t.Errorf("%d is %s, %v, want %s", o, got, err, want)
		}
	}
}
