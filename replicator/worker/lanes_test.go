package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// newLanes returns lanes of one task each. The tasks run in the test's goroutine when run is
// called.
func newLanes(t *testing.T, clock *time.Time, tasks ...Task) (l *Lanes, run func()) {
	t.Helper()
	var started []func(context.Context)
	o := LanesOptions{
		Start:  func(f func(context.Context)) bool { started = append(started, f); return true },
		Pause:  func(error, int) time.Duration { return time.Minute },
		Kind:   func(err error) string { return err.Error() },
		Failed: func(error) {}, Done: func(string) {},
		Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return *clock },
	}
	for _, task := range tasks {
		o.Tasks = append(o.Tasks, []Task{task})
	}
	return NewLanes(o), func() {
		for _, f := range started {
			f(t.Context())
		}
		started = nil
	}
}

// TestLanesDueWhileRunning: work that becomes due while a lane runs, after the lane has checked for
// it, is not forgotten.
func TestLanesDueWhileRunning(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var l *Lanes
	runs := 0
	l, run := newLanes(t, &now, func(context.Context) (time.Time, error) {
		if runs++; runs == 1 {
			l.Due(0, now.Add(time.Second)) // as an upload in the meantime does
		}
		return now.Add(time.Hour), nil
	})
	l.Due(0, now)
	if wait := l.Begin(); wait >= 0 {
		t.Errorf("another lane is due in %v", wait)
	}
	run()
	if wait := l.Begin(); wait != time.Second {
		t.Errorf("due in %v, want in a second", wait)
	}
	now = now.Add(time.Second)
	l.Begin()
	run()
	if wait := l.Begin(); runs != 2 || wait != time.Hour {
		t.Errorf("after %d runs due in %v", runs, wait)
	}
}

// TestLanesFailure: a lane that fails waits for its pause, and does not delay other lanes.
func TestLanesFailure(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	other := 0
	l, run := newLanes(t, &now,
		func(context.Context) (time.Time, error) { return time.Time{}, errors.New("refused") },
		func(context.Context) (time.Time, error) { other++; return now.Add(2 * time.Second), nil })
	l.Due(0, now)
	l.Due(1, now)
	l.Begin()
	run()
	if wait := l.Begin(); other != 1 || wait != 2*time.Second {
		t.Errorf("the other lane ran %d times and is due in %v", other, wait)
	}
	now = now.Add(2 * time.Second)
	l.Begin()
	run()
	if other != 2 {
		t.Errorf("the other lane ran %d times", other)
	}
	now = now.Add(59 * time.Second)
	if l.Begin(); l.lanes[0].next.After(now) {
		t.Errorf("the failed lane waits until %v", l.lanes[0].next)
	}
}

// Trouble lasts while the task that met it is not due, whatever else runs, and is retried no sooner.
func TestLanesStill(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	again, refused := now.Add(time.Hour), errors.New("refused")
	tried := 0
	l, run := newLanes(t, &now, func(context.Context) (time.Time, error) {
		switch tried++; {
		case tried == 1:
			return time.Time{}, refused
		case now.Before(again):
			return again, &Still{refused}
		}
		return time.Time{}, nil
	})
	told := ""
	l.o.Done = func(kind string) { told = kind }
	l.Due(0, now)
	l.Begin()
	run()
	for range 3 {
		now = now.Add(2 * time.Minute)
		l.Begin()
		run()
		if told != "refused" {
			t.Fatalf("%v before the next attempt %q is told", again.Sub(now), told)
		}
		if wait := l.Begin(); wait != again.Sub(now) {
			t.Fatalf("due in %v, want in %v", wait, again.Sub(now))
		}
		l.Due(0, now.Add(2*time.Minute)) // for another task
	}
	now = again
	l.Begin()
	run()
	if told != "" {
		t.Errorf("%q is told, and the last attempt succeeded", told)
	}
}

// TestLanesComeAndGo: what is told is how the last attempt went, also where the log is spared a line.
func TestLanesComeAndGo(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	failed := errors.New("refused")
	var err error
	l, run := newLanes(t, &now, func(context.Context) (time.Time, error) { return time.Time{}, err })
	told := ""
	l.o.Done = func(kind string) { told = kind }
	l.o.Pause = func(error, int) time.Duration { return 0 }
	for i := range 6 {
		want := ""
		if err = nil; i%2 == 0 {
			err, want = failed, "refused"
		}
		l.Due(0, now)
		l.Begin()
		if run(); told != want {
			t.Errorf("attempt %d ended with %v, and %q is told", i, err, told)
		}
		now = now.Add(2 * time.Second)
	}
}

// TestLanes_P18_panic: a panic in a task, or in a goroutine of it that made an error of it, is told once, and not again
// while the task waits for its next attempt.
func TestLanes_P18_panic(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	told, runs := 0, 0
	var failed error
	l, run := newLanes(t, &now, func(context.Context) (time.Time, error) {
		switch runs++; runs {
		case 1:
			panic("a fault")
		case 2:
			failed = fmt.Errorf("drill: %w", fault.Guard(func() error { panic("another") }))
			return now.Add(time.Hour), failed
		}
		return now.Add(time.Hour), Since(failed)
	})
	l.o.Faulted = func(*fault.Error) { told++ }
	for range 3 {
		l.Due(0, now)
		l.Begin()
		run()
		now = now.Add(2 * time.Hour)
	}
	if runs != 3 || told != 2 {
		t.Errorf("told of %d panics in %d runs, want 2 in 3", told, runs)
	}
}
