package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// LanesOptions are what lanes are made of. All are needed.
type LanesOptions struct {
	Tasks  [][]Task                                          // by lane
	Start  func(func(context.Context)) bool                  // starts a goroutine, unless there are to be none any more
	Pause  func(err error, failuresInARow int) time.Duration // the wait after an error
	Kind   func(error) string                                // names an error: another kind is logged as well
	Failed func(error)                                       // told of each failure
	Done   func(kind string)                                 // told when a lane has ended, with what is the matter in any
	Logger *slog.Logger
	Clock  func() time.Time
}

// Lanes do what is due now and then beside a Worker. What takes long and what is short
// are in lanes of their own, so that none waits for another.
type Lanes struct {
	o LanesOptions

	mu    sync.Mutex // guards the lanes; Start is called under it
	lanes []*lane
}

// NewLanes returns lanes in which nothing is due.
func NewLanes(o LanesOptions) *Lanes {
	l := &Lanes{o: o}
	for _, tasks := range o.Tasks {
		l.lanes = append(l.lanes, &lane{tasks: tasks})
	}
	return l
}

// lane is what one goroutine at a time does.
type lane struct {
	tasks   []Task
	running bool
	next    time.Time // zero: nothing to do
	worried int       // failures in a row
	trouble Trouble   // that was logged
}

// Task is one thing to do. It returns when it is due again; zero is never.
type Task = func(context.Context) (time.Time, error)

// Due says that there is something to do in a lane, at a time.
func (l *Lanes) Due(lane int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes[lane].next = Sooner(l.lanes[lane].next, at)
}

// Begin starts the lanes in which something is due, and returns how long until then in
// the others; negative is for ever.
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
		lane.next = time.Time{} // until it has run, or more is told to be due
		lane.running = l.o.Start(func(ctx context.Context) { l.run(ctx, lane) })
	}
	return least
}

// run does what is due in a lane. What fails here holds nothing else up: it is logged
// and tried again after a while.
func (l *Lanes) run(ctx context.Context, lane *lane) {
	next, err := Protected(ctx, lane.run)
	failing := err != nil && ctx.Err() == nil
	if failing {
		l.o.Failed(err)
	}
	l.o.Done(l.ended(lane, next, err, failing))
}

// ended notes how a lane went and returns the kind of what is the matter in any.
func (l *Lanes) ended(lane *lane, next time.Time, err error, failing bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock()
	if failing {
		lane.worried++
		next, lane.next = now.Add(time.Second+l.o.Pause(err, lane.worried)), time.Time{}
		if lane.trouble.Met(l.o.Kind(err), now) {
			l.o.Logger.Warn("maintenance of the replica failed and will be retried; uploads continue", "err", err)
		}
	} else {
		lane.worried = 0
		if lane.trouble.Over() {
			l.o.Logger.Info("the replica is maintained again")
		}
	}
	lane.next, lane.running = Sooner(lane.next, next), false
	for _, any := range l.lanes {
		if kind := any.trouble.What(); kind != "" {
			return kind
		}
	}
	return ""
}

// run does everything that is due and returns when the next thing is; zero is never.
func (l *lane) run(ctx context.Context) (next time.Time, err error) {
	for _, task := range l.tasks {
		due, failed := task(ctx)
		err = errors.Join(err, failed) // the others are due nevertheless
		next = Sooner(next, due)
	}
	return next, err
}

// Sooner returns the earlier of two times, and ignores zero ones.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
