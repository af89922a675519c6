// Package breaker keeps a hundred databases from asking an endpoint that does not answer,
// each for itself: one asks every few seconds, the others wait for what it learns.
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
	failuresToOpen = 4                      // in a row, of all requests together
	leastPause     = 250 * time.Millisecond // between two probes, at first
	longestPause   = 4 * time.Second        // and for ever: so late is it noticed that the endpoint is back
	patience       = 30 * time.Second       // how long a request waits for that
)

// Outcome is what a request says of its endpoint.
type Outcome int

// The outcomes.
const (
	Unknown  Outcome = iota // nothing: whoever asked gave up
	Answered                // whatever the answer was
	Silent                  // no answer, or none of its own
)

// Breaker is shared by all who send requests to one endpoint. The zero value lets them all
// through, until some in a row have no answer. From then on one is let through every few
// seconds, a probe, and the first answer lets all go. A probe that takes long, such as a
// large upload, keeps no other from being sent.
//
// Those who wait belong to somebody, such as a replica, and each of these has a probe in its
// turn: where the endpoint answers one and hangs for another that asks much, that one is
// not what all hear of it.
type Breaker struct {
	mu       sync.Mutex // guards what follows
	open     bool       // not all are let through
	failures int        // in a row
	cause    error      // of the last
	pause    time.Duration
	next     time.Time      // when there may be a probe
	armed    bool           // a timer lets one through then
	waiting  []*waiter      // in order
	probes   int            // so far, while open
	turns    map[string]int // which probe was the last of each whose it was
}

// waiter is a request that is held back.
type waiter struct {
	whose string
	ready chan struct{}
}

// OpenError says that a request was not sent, because others had no answer.
type OpenError struct{ Cause error }

// Error tells what the others met.
func (e *OpenError) Error() string { return fmt.Sprintf("not sent, others had no answer: %v", e.Cause) }

// Unsent implements store.Unsent.
func (e *OpenError) Unsent() {}

// Unwrap returns what the others met.
func (e *OpenError) Unwrap() error { return e.Cause }

// Enter returns when a request of somebody may be sent, which then calls done. While the
// endpoint does not answer it waits a while, and returns an *OpenError.
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
	return b.told, nil // it was let through at that moment
}

// queue returns nil where a request may go.
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

// leave takes a request out that waits no longer, and returns why; nil where it was let through.
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

// arm has one let through when there may be a probe. The caller holds mu.
func (b *Breaker) arm() {
	if !b.armed && b.open && len(b.waiting) > 0 {
		b.armed = true
		time.AfterFunc(time.Until(b.next), b.probe)
	}
}

// probe lets one through: the first of those whose last probe is the longest ago.
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

// told notes how a request ended. Those that were under way when the first failed count too.
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

// step puts the next probe off, to a moment that differs between processes.
func (b *Breaker) step() {
	b.pause = min(max(leastPause, 2*b.pause), longestPause)
	b.next = time.Now().Add(b.pause/2 + rand.N(b.pause/2))
}
