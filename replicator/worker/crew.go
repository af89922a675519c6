package worker

import (
	"context"
	"sync"
)

// Crew starts goroutines that end together. Those started before the first Begin have a
// context that never ends.
type Crew struct {
	mu      sync.Mutex                       // guards start; taken while a worker's or the lanes' lock may be held
	start   func(func(context.Context)) bool // nil before the first Begin
	members sync.WaitGroup
}

// Begin returns a stop that cancels all goroutines started from now on, and after which
// none starts any more. Only the values of ctx are used, not its cancellation.
func (c *Crew) Begin(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = func(run func(context.Context)) bool {
		if ctx.Err() != nil {
			return false
		}
		c.members.Go(func() { run(ctx) })
		return true
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		cancel()
	}
}

// Start runs run in a goroutine and returns true, or returns false after stop.
func (c *Crew) Start(run func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start == nil {
		c.members.Go(func() { run(context.Background()) })
		return true
	}
	return c.start(run)
}

// Wait returns when all started goroutines have ended.
func (c *Crew) Wait() { c.members.Wait() }
