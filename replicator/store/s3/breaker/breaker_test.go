package breaker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDead = errors.New("connection refused")

// endpoint is a breaker before an endpoint that counts its requests.
type endpoint struct {
	Breaker
	dead  atomic.Bool
	takes time.Duration // until a request without an answer fails
	asked atomic.Int64
}

func (e *endpoint) ask(ctx context.Context) error {
	done, err := e.Enter(ctx, "")
	if err != nil {
		return err
	}
	e.asked.Add(1)
	if !e.dead.Load() {
		done(Answered, nil)
		return nil
	}
	select {
	case <-time.After(e.takes):
		done(Silent, errDead)
		return errDead
	case <-ctx.Done():
		done(Unknown, ctx.Err())
		return ctx.Err()
	}
}

// TestBreaker_S38: two hundred clients, each of which retries some seconds after a request without
// an answer. While there is no answer, one request is sent every few seconds; once there is, each
// client gets its answer within the longest pause plus its own.
func TestBreaker_S38(t *testing.T) {
	for name, takes := range map[string]time.Duration{"refuses": time.Millisecond, "hangs": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const clients, own, outage = 200, 10 * time.Second, 10 * time.Minute
				e := &endpoint{takes: takes}
				e.dead.Store(true)
				var all sync.WaitGroup
				var back time.Time
				var latest time.Duration
				var mu sync.Mutex
				for i := range clients {
					all.Go(func() {
						time.Sleep(time.Duration(i) * 40 * time.Millisecond)
						for e.ask(t.Context()) != nil {
							time.Sleep(own)
						}
						mu.Lock()
						defer mu.Unlock()
						latest = max(latest, time.Since(back))
					})
				}
				time.Sleep(outage)
				asked := e.asked.Load()
				if most := int64(outage / (longestPause / 2)); asked > most+clients || asked < int64(outage/(longestPause+takes)) {
					t.Errorf("%d requests in %v", asked, outage)
				}
				mu.Lock()
				back = time.Now()
				mu.Unlock()
				e.dead.Store(false)
				all.Wait()
				if most := longestPause + takes + own; latest > most {
					t.Errorf("the last client had its answer after %v, want at most %v", latest, most)
				}
			})
		})
	}
}

// TestBreakerIsolated: while only some requests have no answer, none is held back.
func TestBreakerIsolated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{takes: time.Second}
		for i := range 100 {
			e.dead.Store(i%failuresToOpen != 0)
			before := time.Now()
			var open *OpenError
			if err := e.ask(t.Context()); errors.As(err, &open) || time.Since(before) > time.Second {
				t.Fatalf("request %d: %v after %v", i, err, time.Since(before))
			}
		}
	})
}

// TestBreakerGivesUp: a request that is held back too long gets an error with the cause of the
// failures.
func TestBreakerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{takes: time.Hour}
		e.dead.Store(true)
		for range failuresToOpen {
			e.told(Silent, errDead)
		}
		short, cancel := context.WithTimeout(t.Context(), leastPause/4)
		defer cancel()
		if err := e.ask(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDead) {
			t.Errorf("with a deadline: %v", err)
		}
		var all sync.WaitGroup
		var told atomic.Int64
		for range 100 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience+time.Second)
				defer cancel()
				if open := (*OpenError)(nil); errors.As(e.ask(ctx), &open) && errors.Is(open, errDead) {
					told.Add(1)
				}
			})
		}
		all.Wait()
		if n := told.Load(); n < 50 {
			t.Errorf("%d of 100 requests got an OpenError, want at least 50", n)
		}
	})
}

// TestBreakerLongProbe: the first probe takes an hour, like a large upload over a slow connection,
// and the endpoint answers again in the meantime.
func TestBreakerLongProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{takes: time.Hour}
		e.dead.Store(true)
		for range failuresToOpen {
			e.told(Silent, errDead)
		}
		probing, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = e.ask(probing) })
		time.Sleep(leastPause)
		if e.asked.Load() != 1 {
			t.Fatal("no probe within its pause")
		}
		e.dead.Store(false)
		before := time.Now()
		if err := e.ask(t.Context()); err != nil || time.Since(before) > longestPause {
			t.Errorf("beside a probe that lasts: %v after %v", err, time.Since(before))
		}
		stop()
		all.Wait()
	})
}

// TestBreakerTurns: the endpoint hangs for a replica with many requests, and answers another one
// with few. The second one's requests do not wait until all of the first one's have failed.
func TestBreakerTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hangs = 10 * time.Second
		var b Breaker
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for ctx.Err() == nil {
					done, err := b.Enter(ctx, "hangs")
					if err != nil {
						continue
					}
					select {
					case <-time.After(hangs):
						done(Silent, errDead)
					case <-ctx.Done():
						done(Unknown, ctx.Err())
					}
				}
			})
		}
		for range 20 {
			time.Sleep(time.Minute) // the breaker is open by now
			before := time.Now()
			done, err := b.Enter(ctx, "answers")
			if err != nil || time.Since(before) > longestPause {
				t.Fatalf("%v after %v, want to be let through within %v", err, time.Since(before), longestPause)
			}
			done(Answered, nil)
		}
		stop()
		all.Wait()
	})
}
