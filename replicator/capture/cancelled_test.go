package capture

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
)

// Whoever asked for a TRUNCATE goes away while nobody can commit: the WAL is held again all the same, or what is
// committed next could be reset before it is read.
func TestCheckpoint_cancelled(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	cancelled := 0
	for round := 0; round < 30 && cancelled < 3; round++ {
		a.during(flat(0.3), func() {
			s.step(false)
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			s.capture.flusher.Store = func(p *segments.Commit) error {
				if locks, err := s.files.Locks(); err == nil && locks.Read[1].Exclusive {
					cancel()
					time.Sleep(10 * time.Millisecond)
				}
				return p.Run()
			}
			_, err := s.capture.Checkpoint(ctx, sqlite.Truncate, sqlite.Budget{BusyTimeout: time.Second, Stall: time.Second})
			s.capture.flusher.Store = (*segments.Commit).Run
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if err != nil {
				cancelled++
				if !s.capture.hold.active() {
					t.Error("the WAL is not held any more")
				}
			}
		})
	}
	if cancelled == 0 {
		t.Error("never cancelled: this test proved nothing")
	}
	s.checkEqual()
	s.wantLost(nil)
}

// A panic while nobody can begin a transaction keeps them out no longer than it takes to return.
func TestFreeze_D80_panic(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.RestartAt = 128 << 10
	s.options.StallBudget = 5 * time.Second
	frozen, panics := false, 0
	isFrozen := func() bool {
		locks, err := s.files.Locks()
		return err != nil || locks.Read[0].Exclusive && locks.Read[3].Exclusive
	}
	s.options.Clock = func() time.Time {
		if s.capture != nil && panics == 0 && isFrozen() {
			panics++
			panic("a fault of ours")
		}
		return time.Now()
	}
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	for round := 0; round < 60 && panics == 0; round++ {
		a.during(flat(0.3), func() {
			if panics > 0 {
				return
			}
			defer func() {
				if recover() != nil {
					frozen = isFrozen()
				}
			}()
			s.step(false)
		})
	}
	if panics == 0 {
		t.Fatal("no panic in a freeze: this test proved nothing")
	}
	if frozen {
		t.Error("D80: after the panic, the application is still kept out")
	}
	a.do("commit(1)")
	s.checkEqual()
}

// TestSegment_P6_panic: a fault of sqlwatch while a segment is stored is told, so that it is counted. It is an error of
// this database alone, which is captured by the next step.
func TestSegment_P6_panic(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var faults []*fault.Error
	s.options.Faulted = func(bug *fault.Error) { faults = append(faults, bug) }
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	s.capture.flusher.Store = func(*segments.Commit) error { panic("a fault") }
	a.do("commit(5)")
	if _, err := s.capture.Step(s.ctx, true); err == nil || len(faults) != 1 || faults[0].Cause != "a fault" ||
		fault.First(err) != nil {
		t.Errorf("%v; told of %v", err, faults)
	}
	s.capture.flusher.Store = (*segments.Commit).Run
	s.checkEqual()
}
