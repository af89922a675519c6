package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// TestWorker_P18_panic: a panic in one turn becomes an error of that turn. It is recorded, and the
// next turn follows.
func TestWorker_P18_panic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var recorded []error
		turns, told := 0, 0
		w := New(Options{
			Turn: func(context.Context) (time.Duration, error) {
				if turns++; turns <= 2 {
					panic("a fault")
				}
				return -1, nil
			},
			Record:   func(err error) { recorded = append(recorded, err) },
			Begin:    func(run func(context.Context)) bool { all.Go(func() { run(ctx) }); return true },
			Patience: func(_ error, n int) time.Duration { return Backoff(n) },
			Faulted:  func(*fault.Error) { told++ },
		})
		w.Kick()
		all.Wait()
		cancel()
		var bug *fault.Error
		if len(recorded) != 3 || !errors.As(recorded[1], &bug) || bug.Cause != "a fault" || bug.Stack == "" ||
			recorded[2] != nil || told != 2 {
			t.Errorf("recorded %v, told of %d panics", recorded, told)
		}
	})
}
