// Package breaker is a circuit breaker for an endpoint that many databases share: while the
// endpoint does not answer, one request every few seconds tries it, and all others wait for
// its result.
package breaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	failuresToOpen = 4                      // in a row, over all requests
	leastPause     = 250 * time.Millisecond // between two probes, at first
	longestPause   = 4 * time.Second        // an endpoint that is back is noticed this late at most
	patience       = 30 * time.Second       // how long a request waits to be let through
)

// Outcome is what a request showed about its endpoint.
type Outcome int

// The outcomes.
const (
	Unknown  Outcome = iota // nothing: the caller gave up
	Answered                // whatever the answer was
	Silent                  // no answer, or a proxy's in its place
)

// Breaker is shared by all requests to one endpoint. The zero value lets all of them pass.
// After a few failures in a row it opens: from then on it lets one request pass every few
// seconds, as a probe, and the first answer lets all others pass. A probe that takes long,
// such as a large upload, does not delay the next probe.
//
// Each request belongs to somebody, such as a replica, and these take turns with their probes.
// If the endpoint hangs for one that sends many requests but answers another, the other's
// probe finds that out.
type Breaker struct {
	mu       sync.Mutex // guards what follows
	open     bool       // requests are held back
	failures int        // in a row
	cause    error      // of the last failure
	pause    time.Duration
	next     time.Time      // the earliest time of the next probe
	armed    bool           // a timer is running for it
	waiting  []*waiter      // in order of arrival
	probes   int            // since it opened
	turns    map[string]int // by owner: the number of its last probe
}

// waiter is a request that is held back.
type waiter struct {
	whose string
	ready chan struct{}
}

// OpenError reports that a request was not sent, because earlier ones had no answer.
type OpenError struct{ Cause error }

// Error names what the earlier requests met.
func (e *OpenError) Error() string { return fmt.Sprintf("not sent, others had no answer: %v", e.Cause) }

// Unsent implements store.Unsent.
func (e *OpenError) Unsent() {}

// Unwrap returns what the earlier requests met.
func (e *OpenError) Unwrap() error { return e.Cause }

// Enter waits until a request may be sent; the caller then reports its outcome with done. If
// the endpoint does not answer for a while, Enter returns an *OpenError.
func (b *Breaker) Enter(ctx context.Context, whose string) (done func(Outcome, error), err error) {
	w := b.queue(whose)
	if w == nil {
		return b.told, nil
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-w.ready:
		return b.told, nil
	case <-enough.C:
	case <-ctx.Done():
	}
	if open := b.leave(w); open != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ctx.Err(), open)
	} else if open != nil {
		return nil, open
	}
	return b.told, nil // it was let pass at that very moment
}

// queue returns nil if the request may be sent at once.
func (b *Breaker) queue(whose string) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return nil
	}
	w := &waiter{whose, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.arm()
	return w
}

// leave removes a request that stopped waiting and returns why; nil if it was just let pass.
func (b *Breaker) leave(w *waiter) *OpenError {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 {
		return nil
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return &OpenError{b.cause}
}

// arm starts the timer of the next probe. The caller holds mu.
func (b *Breaker) arm() {
	if !b.armed && b.open && len(b.waiting) > 0 {
		b.armed = true
		time.AfterFunc(time.Until(b.next), b.probe)
	}
}

// probe lets one request pass: that of the owner whose last probe is the longest ago.
func (b *Breaker) probe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	if b.open && len(b.waiting) > 0 && !time.Now().Before(b.next) {
		w := slices.MinFunc(b.waiting, func(x, y *waiter) int { return b.turns[x.whose] - b.turns[y.whose] })
		b.waiting = slices.DeleteFunc(b.waiting, func(x *waiter) bool { return x == w })
		b.probes++
		b.turns[w.whose] = b.probes
		b.step()
		close(w.ready)
	}
	b.arm()
}

// told notes the outcome of a request, also of one that was already under way when the first
// failed.
func (b *Breaker) told(o Outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch o {
	case Answered:
		b.failures, b.pause, b.cause, b.open = 0, 0, nil, false
		for _, w := range b.waiting {
			close(w.ready)
		}
		b.waiting = nil
	case Silent:
		b.failures++
		b.cause = err
		if !b.open && b.failures >= failuresToOpen {
			b.open, b.probes, b.turns = true, 0, map[string]int{}
			b.step()
		}
	}
}

// step sets the time of the next probe, jittered so that processes do not probe together.
func (b *Breaker) step() {
	b.pause = min(max(leastPause, 2*b.pause), longestPause)
	b.next = time.Now().Add(b.pause/2 + rand.N(b.pause/2))
}
