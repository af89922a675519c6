package capture

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
)

// TestQueued_S36: of many databases that are found at once, only a few are read at a time. Those
// that wait do not hold their WALs, and a database that was captured before is captured as usual
// meanwhile.
func TestQueued_S36(t *testing.T) {
	t.Parallel()
	const most, count = 2, 5
	busy := newScene(t)
	writer := startApp(t, busy.path)
	writer.do("schema()")
	writer.do("commit(5)")
	places := queue.New(most)
	busy.options.Place = places.Place(nil)
	busy.open()
	busy.settle()

	begun, queued := make(chan int, count), make(chan int, count)
	proceed := make(chan struct{})
	var all []*scene
	var apps []*app
	var steps sync.WaitGroup
	for i := range count {
		s := newScene(t)
		a := startApp(t, s.path)
		a.do("schema()")
		a.do("commit(5)")
		s.options.Place = places.Place(nil)
		s.open()
		all, apps = append(all, s), append(apps, a)
		between, first := s.capture.comparer.between, sync.OnceFunc(func() {
			begun <- i
			for until(proceed) {
				s.options.Place.Advance() // the disk is slow, but it does answer
			}
		})
		s.capture.comparer.between = func(ctx context.Context) error { first(); return between(ctx) }
		steps.Go(func() {
			told := sync.OnceFunc(func() { queued <- i })
			for got := (Progress{}); !got.Complete && s.ctx.Err() == nil; {
				var err error
				if got, err = s.capture.Step(s.ctx, true); errors.Is(err, ErrQueued) {
					if told(); !strings.Contains(err.Error(), "the first capture waits for its turn") {
						t.Errorf("it says: %v", err)
					}
				} else if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(min(got.Next, 10*time.Millisecond))
			}
		})
	}
	reading, waiting := 0, []int{}
	for range count {
		select {
		case <-begun:
			reading++
		case i := <-queued:
			waiting = append(waiting, i)
		}
	}
	if reading != most {
		t.Errorf("%d of %d are read at once, want %d", reading, count, most)
	}
	for range 3 {
		writer.do("commit(5)")
		before := busy.capture.state.Position().TXID
		if got := busy.step(true); !got.Complete || got.TXID == before {
			t.Errorf("a step with commits of the other database: %+v", got)
		}
	}
	for _, i := range waiting {
		row := `db.execute("pragma wal_checkpoint(truncate)").fetchone()`
		if got := apps[i].do(row); got != "(0, 0, 0)" {
			t.Errorf("while it waits, its application's checkpoint gets %s", got)
		}
		apps[i].do("commit(5)")
		got, err := all[i].capture.Checkpoint(all[i].ctx, sqlite.Truncate, sqlite.Budget{Stall: time.Second})
		if err != nil || got.Outcome != sqlite.OutcomeTruncated {
			t.Errorf("while it waits, a checkpoint of ours gets %+v, %v", got, err)
		}
	}
	close(proceed)
	steps.Wait()
	for _, s := range all {
		s.checkEqual()
	}
	busy.checkEqual()
}

// until waits for a moment and reports whether done is still open.
func until(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// TestQueuedAfterDoubt_S36: a database that was captured before, but whose continuity is not
// proven, does not hold its WAL while it waits, and in the end lacks nothing.
func TestQueuedAfterDoubt_S36(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(5)")
	places := queue.New(1)
	s.options.Place = places.Place(nil)
	s.open()
	s.settle()
	other := places.Place(nil)
	other.Begin(1, false)
	s.capture.continuity.lose(tail.ReasonFrames, "for the test")
	a.do("commit(5)")
	got, err := s.capture.Step(s.ctx, true)
	if !errors.Is(err, ErrQueued) || got.Complete || got.Pending.IsZero() || s.capture.hold.isOpen() {
		t.Errorf("step while it waits: %+v, %v; connections open: %v", got, err, s.capture.hold.isOpen())
	}
	if _, err := s.capture.OpenSnapshot(s.ctx); !errors.Is(err, ErrQueued) {
		t.Errorf("a snapshot of it: %v", err)
	}
	if row := a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`); row != "(0, 0, 0)" {
		t.Errorf("its application's checkpoint gets %s", row)
	}
	other.End()
	s.settle()
	s.checkEqual()
	if !other.Begin(1, false) {
		t.Error("it still has its place in the queue")
	}
}
