package worker

import (
	"context"
	"sync"
)

// Crew is goroutines that end together. Before its first Begin, they end with nothing.
type Crew struct {
	mu      sync.Mutex                       // guards start; a worker's own may be held over it
	start   func(func(context.Context)) bool // nil: nothing was begun yet
	members sync.WaitGroup
}

// Begin makes stop the end of all that is started from now on: after it nothing is
// started any more. Of ctx only the values count.
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

// Start runs a goroutine, unless there are to be none any more.
func (c *Crew) Start(run func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start == nil {
		c.members.Go(func() { run(context.Background()) })
		return true
	}
	return c.start(run)
}

// Wait returns when all that was started has ended.
func (c *Crew) Wait() { c.members.Wait() }
