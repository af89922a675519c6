package busy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// The kernel takes about 100 ns to call the program, and does so six times for each commit. That
// is nothing beside a commit that waits for a disk, but five percent of one that takes 16 µs. So
// if there are more events than eventBudget, the program is attached for a part of the time only.
const (
	eventBudget = 100_000 // per second; their calls take 1 % of one processor

	lookEvery    = time.Second
	turnLength   = 200 * time.Millisecond // how long the program stays attached between two pauses
	longestPause = 2 * time.Second
)

// activity is what the program saw at all files, watched or not.
type activity struct {
	events uint64
	busy   uint64 // refusals that isBusy selects, at watched files
}

// Run keeps the cost of counting within bounds until ctx ends: at more than 100,000 events a
// second (16,000 commits) it detaches the program for a part of the time. What a pause hides is
// estimated from the turn that follows it. A turn that has a SQLITE_BUSY ends the pauses for as
// long as there are any, so that only the first ones are estimated. Without Run the program is
// attached all the time.
func (c *Collector) Run(ctx context.Context) error {
	var (
		paused, pausedFor = map[string]counts(nil), time.Duration(0)
		before, began     = c.activity(), time.Now()
	)
	for wait := lookEvery; sleep(ctx, wait); {
		now, lasted := c.activity(), time.Since(began)
		c.estimate(paused, float64(pausedFor)/float64(lasted))
		pausedFor = pauseAfter(now.events-before.events, now.busy-before.busy, lasted, c.budget)
		paused, wait = nil, lookEvery
		if pausedFor > 0 {
			at := time.Now()
			if err := c.detach(); err != nil {
				return err
			}
			jitter := 0.5 + rand.Float64() // a rhythm could be the application's own
			sleep(ctx, time.Duration(jitter*float64(pausedFor)))
			paused, wait = c.totals(), turnLength
			if err := c.attach(); err != nil {
				return err
			}
			pausedFor = time.Since(at)
		}
		before, began = c.activity(), time.Now()
	}
	return nil
}

// pauseAfter returns how long to pause after a turn with so many events and SQLITE_BUSY, so that
// there are budget events a second on average; 0 if no pause is needed.
func pauseAfter(events, busy uint64, turn time.Duration, budget float64) time.Duration {
	over := float64(events)/turn.Seconds()/budget - 1
	if busy > 0 || over <= 0 {
		return 0
	}
	return min(longestPause, time.Duration(over*float64(turnLength)))
}

// sleep returns false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Collector) attach() error {
	c.attached.Lock()
	defer c.attached.Unlock()
	if c.program == nil || c.link != nil {
		return nil // closed, or attached
	}
	var err error
	if c.link, err = link.AttachTracing(link.TracingOptions{Program: c.program}); err != nil {
		return fmt.Errorf("attach to tracepoint %s: %w", tracepoint, err)
	}
	return nil
}

// detach also forgets the holds that are being timed, because their ends will not be seen.
func (c *Collector) detach() error {
	c.attached.Lock()
	defer c.attached.Unlock()
	if c.link == nil {
		return nil
	}
	err := c.link.Close()
	c.link = nil
	if err != nil {
		return fmt.Errorf("detach from tracepoint %s: %w", tracepoint, err)
	}
	if c.holds == nil {
		return nil
	}
	if err := c.holds.Update(new(uint32), new([holdSlots]hold), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("forget the holds in progress: %w", err)
	}
	return nil
}

// activity adds up what the processors counted.
func (c *Collector) activity() (sum activity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var slots [activitySlots]activitySlot
	if c.seen == nil || c.seen.Lookup(unsafe.Pointer(new(uint32)), unsafe.Pointer(&slots)) != nil {
		return activity{}
	}
	for _, s := range slots {
		sum.events, sum.busy = sum.events+s.events, sum.busy+s.busy
	}
	return sum
}

// totals returns the counts of each database.
func (c *Collector) totals() map[string]counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]counts, len(c.dbs))
	for db, d := range c.dbs {
		all[db] = c.total(d)
	}
	return all
}

// estimate adds, for a pause that was times as long as the turn after it, what was counted since its end.
func (c *Collector) estimate(paused map[string]counts, times float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for db, then := range paused {
		if d := c.dbs[db]; d != nil {
			d.before.add(c.total(d).since(then).times(times))
		}
	}
}

// since returns what was counted after then.
func (t counts) since(then counts) counts {
	for i := range t.refused {
		t.refused[i] -= then.refused[i]
	}
	for i := range t.holds {
		t.holds[i] -= then.holds[i]
	}
	t.holdSum -= then.holdSum
	return t
}

// times multiplies counts. It rounds at random, so that a sum of many is right.
func (t counts) times(by float64) counts {
	scale := func(n uint64) uint64 { return uint64(float64(n)*by + rand.Float64()) }
	for i, n := range t.refused {
		t.refused[i] = scale(n)
	}
	for i, n := range t.holds {
		t.holds[i] = scale(n)
	}
	t.holdSum = scale(t.holdSum)
	return t
}
