package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorker_P18_panic: a panic in one turn becomes an error of that turn. It is recorded, and the
// next turn follows.
func TestWorker_P18_panic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var recorded []error
		turns := 0
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
		})
		w.Kick()
		all.Wait()
		cancel()
		var fault *PanicError
		if len(recorded) != 3 || !errors.As(recorded[1], &fault) || fault.Cause != "a fault" || fault.Stack == "" ||
			recorded[2] != nil {
			t.Errorf("recorded %v", recorded)
		}
	})
}
