// Package worker runs recurring work in a goroutine that ends when nothing is left to do and
// starts again when it is kicked.
package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// Options of a worker. All but Faulted are required.
type Options struct {
	// does what is due and returns how long until the next turn; negative is for ever
	Turn     func(context.Context) (time.Duration, error)
	Record   func(error)                                       // called with the result of each turn
	Begin    func(func(context.Context)) bool                  // starts a goroutine; false: none starts any more
	Patience func(err error, failuresInARow int) time.Duration // the wait after an error
	Faulted  func(*fault.Error)                                // called with each panic; nil: nobody is
}

// Worker runs at most one goroutine, which takes turns until there is nothing to do for a
// while; Kick starts it again.
type Worker struct {
	o     Options
	wake  chan struct{}
	hurry chan struct{} // ends the wait after a failure

	mu      sync.Mutex // guards what follows; Begin is called under it
	running bool
	urgent  bool
	timer   *time.Timer
}

// New returns a worker that does nothing until it is kicked.
func New(o Options) *Worker {
	return &Worker{o: o, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
}

// Kick makes sure that the goroutine runs, and that it takes a turn soon.
func (w *Worker) Kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if w.running {
		select {
		case w.wake <- struct{}{}:
		default:
		}
		return
	}
	w.running = w.o.Begin(w.run)
}

// Hasten ends a wait after a failure: the caller may know that the store is back.
func (w *Worker) Hasten() {
	select {
	case w.hurry <- struct{}{}:
	default:
	}
}

// SetUrgent sets whether somebody waits for the next turn, so that it must not be delayed.
func (w *Worker) SetUrgent(urgent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.urgent = urgent
}

// Urgent reports what SetUrgent set.
func (w *Worker) Urgent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.urgent
}

// longWait is the shortest wait for which the goroutine ends and a timer restarts it.
const longWait = 10 * time.Second

// run takes turns until there is nothing to do for a while.
func (w *Worker) run(ctx context.Context) {
	for failures := 0; ; {
		wait, err := Protected(ctx, w.o.Turn, w.o.Faulted)
		if w.o.Record(err); err != nil && ctx.Err() == nil {
			failures++
			wait = w.o.Patience(err, failures)
		} else {
			failures = 0
		}
		if w.rest(ctx, wait, failures > 0) {
			return
		}
	}
}

// rest waits. It returns true when the goroutine is to end, after setting a timer if there is
// something to come back for. After a failure it waits in full even if kicked, unless Hasten
// is called; without one it does not wait if a turn is urgent.
func (w *Worker) rest(ctx context.Context, wait time.Duration, failing bool) (end bool) {
	w.mu.Lock()
	if w.urgent && !failing {
		wait = 0
	}
	if ctx.Err() != nil || !failing && !w.urgent && (wait < 0 || wait >= longWait) && len(w.wake) == 0 {
		w.running = false
		if wait >= 0 && ctx.Err() == nil {
			w.timer = time.AfterFunc(wait, w.Kick)
		}
		w.mu.Unlock()
		return true
	}
	w.mu.Unlock()
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	wake := w.wake
	if failing {
		wake = nil
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	case <-w.hurry:
	}
	if failing {
		select {
		case <-w.wake:
		default:
		}
	}
	return false
}

// Protected calls f, and returns a panic as a *fault.Error. It calls faulted, unless that is nil, with this fault, or
// with one that f returns and nobody was told of.
func Protected[T any](
	ctx context.Context, f func(context.Context) (T, error), faulted func(*fault.Error),
) (result T, err error) {
	err = fault.Guard(func() (err error) {
		result, err = f(ctx)
		return err
	})
	if faulted != nil {
		if bug := fault.First(err); bug != nil {
			faulted(bug)
		}
	}
	return result, err
}

// Each calls f for all in parallel, and returns the errors, panics included, when all have ended.
func Each[T any](all []T, f func(T) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, one := range all {
		wg.Go(func() { errs[i] = fault.Guard(func() error { return f(one) }) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Backoff returns a wait with full jitter that grows to about 15 seconds, which bounds how
// long after an outage of any length the next attempt is made.
func Backoff(failures int) time.Duration {
	return 100*time.Millisecond + rand.N(min(15*time.Second, 250*time.Millisecond<<min(failures, 10)))
}
