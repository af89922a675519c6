package worker

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// LanesOptions configure Lanes. All but Faulted are required.
type LanesOptions struct {
	Tasks  [][]Task                                          // by lane
	Start  func(func(context.Context)) bool                  // starts a goroutine; false: none starts any more
	Pause  func(err error, failuresInARow int) time.Duration // the wait after an error
	Kind   func(error) string                                // the kind of an error; a change of kind is logged
	Failed func(error)                                       // called with each failure
	Done   func(kind string)                                 // called at a lane's end, with the kind of error in any lane
	Logger *slog.Logger
	Clock  func() time.Time

	Faulted func(*fault.Error) // called with each panic; nil: nobody is
}

// Lanes run tasks that are due now and then, beside a Worker. Long and short tasks have
// separate lanes, so that short ones never wait for long ones.
type Lanes struct {
	o LanesOptions

	mu    sync.Mutex // guards the lanes; Start is called under it
	lanes []*lane
}

// NewLanes returns Lanes in which nothing is due.
func NewLanes(o LanesOptions) *Lanes {
	l := &Lanes{o: o}
	for _, tasks := range o.Tasks {
		l.lanes = append(l.lanes, &lane{tasks: tasks})
	}
	return l
}

// lane is a list of tasks that one goroutine at a time runs.
type lane struct {
	tasks   []Task
	running bool
	next    time.Time // when the lane is due; zero: never
	worried int       // failures in a row
	kind    string    // of the error that the last attempt ended with, "" if it succeeded
	trouble Trouble   // limits logging
}

// Task does one thing and returns when it is due again; zero is never. One that is not due yet returns a *Still if its
// last attempt failed.
type Task = func(context.Context) (time.Time, error)

// Still is the error of a task that did nothing, because it is not due, and whose last attempt failed: the trouble
// lasts as far as is known, and the task is not to be repeated before it is due.
type Still struct{ Err error }

// Error returns the error of the last attempt.
func (s *Still) Error() string { return s.Err.Error() }

// Unwrap returns the error of the last attempt.
func (s *Still) Unwrap() error { return s.Err }

// Since returns a *Still of the error of the last attempt, nil if there is none.
func Since(failed error) error {
	if failed == nil {
		return nil
	}
	return &Still{failed}
}

// Due makes a lane due at the given time, or earlier if it already was.
func (l *Lanes) Due(lane int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes[lane].next = Sooner(l.lanes[lane].next, at)
}

// Begin starts the lanes that are due, and returns how long until the next of the others
// is; negative is for ever.
func (l *Lanes) Begin() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	least := time.Duration(-1)
	for _, lane := range l.lanes {
		if lane.next.IsZero() || lane.running {
			continue
		}
		if wait := lane.next.Sub(l.o.Clock()); wait > 0 {
			if least < 0 || wait < least {
				least = wait
			}
			continue
		}
		lane.next = time.Time{} // until it has run, or Due is called
		lane.running = l.o.Start(func(ctx context.Context) { l.run(ctx, lane) })
	}
	return least
}

// run runs a lane's tasks. A failure holds nothing else up: it is logged, and the lane is
// retried after a while.
func (l *Lanes) run(ctx context.Context, lane *lane) {
	ran, err := Protected(ctx, lane.run, l.o.Faulted)
	failing := err != nil && ctx.Err() == nil
	if failing {
		l.o.Failed(err)
	}
	l.o.Done(l.ended(lane, ran, err, failing))
}

// ended records how a lane went and returns the kind of error in any lane, "" if all are well.
func (l *Lanes) ended(lane *lane, ran round, err error, failing bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, next := l.o.Clock(), ran.next
	if failing {
		lane.worried++
		next, lane.next = now.Add(time.Second+l.o.Pause(err, lane.worried)), time.Time{}
		if lane.kind = l.o.Kind(err); lane.trouble.Met(lane.kind, now) {
			l.o.Logger.Warn("maintenance of the replica failed and will be retried; uploads continue", "err", err)
		}
	} else {
		lane.worried = 0
		if !ran.still {
			lane.kind = ""
			if lane.trouble.Over() {
				l.o.Logger.Info("the replica is maintained again")
			}
		}
	}
	lane.next, lane.running = Sooner(lane.next, next), false
	for _, any := range l.lanes {
		if any.kind != "" {
			return any.kind
		}
	}
	return ""
}

// round is what came of a lane's tasks.
type round struct {
	next  time.Time // when the next one is due; zero is never
	still bool      // one of them waits since it failed
}

// run runs all tasks.
func (l *lane) run(ctx context.Context) (r round, err error) {
	for _, task := range l.tasks {
		due, failed := task(ctx)
		if still := (*Still)(nil); errors.As(failed, &still) {
			r.still, failed = true, nil
		}
		err = errors.Join(err, failed) // the other tasks still run
		r.next = Sooner(r.next, due)
	}
	return r, err
}

// Sooner returns the earlier of two times, and ignores zero ones.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// TurnOf returns a number from 0 to 1 that is fixed for each replica; it spreads work that
// all replicas would otherwise do at the same time.
func TurnOf(db, replica string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(db + "\x00" + replica)) // never fails
	return float64(h.Sum32()) / (1 << 32)
}
