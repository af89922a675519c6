package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// Run sends until ctx ends; what waits then has a moment for one more attempt.
func (n *Notifiers) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for ctx.Err() == nil {
		for _, w := range n.idle() {
			workers.Go(func() { n.drain(ctx, w) })
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
		}
	}
	workers.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	for _, w := range n.idle() {
		workers.Go(func() { n.flush(last, w) })
	}
	workers.Wait()
	return nil
}

// idle returns the notifiers that have something to send and nobody who does it,
// as the caller's to work on.
func (n *Notifiers) idle() []*notifier {
	n.mu.Lock()
	defer n.mu.Unlock()
	var idle []*notifier
	for _, w := range n.notifiers {
		if len(w.queue) > 0 && !w.working {
			w.working = true
			idle = append(idle, w)
		}
	}
	return idle
}

// head returns the group to send next and how long to wait for it to be complete;
// nil when there is none: then the notifier is idle again.
func (n *Notifiers) head(w *notifier) (*group, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(w.queue) == 0 {
		w.working = false
		return nil, 0
	}
	return w.queue[0], w.target.GroupWait - time.Since(w.queue[0].begun)
}

// close makes the message of a group, which takes nothing more from now on.
func (n *Notifiers) close(w *notifier, g *group) channel.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	g.closed = true
	return w.message(g)
}

// done takes a group off its queue and tells who waits for it. Where the target was
// replaced in the meantime, one that was not delivered is the new one's to deliver.
func (n *Notifiers) done(w *notifier, g *group, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	owner := w
	if !slices.Contains(w.queue, g) {
		owner = n.notifiers[w.target.Name]
		if owner == nil || err != nil {
			return
		}
	}
	if i := slices.Index(owner.queue, g); i >= 0 {
		owner.queue = slices.Delete(owner.queue, i, i+1)
		owner.over(g, err)
	}
}

// replaced reports whether the notifier is no longer the one of its name.
func (n *Notifiers) replaced(w *notifier) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.notifiers[w.target.Name] != w
}

// drain delivers what waits for a notifier, in order.
func (n *Notifiers) drain(ctx context.Context, w *notifier) {
	for {
		g, wait := n.head(w)
		if g == nil {
			return
		}
		err := sleep(ctx, wait)
		if err == nil && n.replaced(w) {
			continue // its queue is another's now
		}
		if err == nil {
			err = n.deliver(ctx, w, n.close(w, g))
		}
		if ctx.Err() != nil && err != nil {
			n.mu.Lock()
			w.working = false // the message stays for the flush
			n.mu.Unlock()
			return
		}
		n.done(w, g, err)
	}
}

// sleep waits, and returns ctx's error where that ends first.
func sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return ctx.Err()
	}
	pause := time.NewTimer(wait)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempt sends a message once. A panic is an error of this notifier.
func (w *notifier) attempt(ctx context.Context, m channel.Message) (retryAfter time.Duration, err error) {
	err = fault.Guard(func() (err error) {
		retryAfter, err = w.send(ctx, m)
		return err
	})
	return retryAfter, err
}

// deliver tries until the message has arrived, is refused permanently or is too old.
func (n *Notifiers) deliver(ctx context.Context, w *notifier, m channel.Message) error {
	name := w.target.Name
	began, wait := time.Now(), firstWait
	for try := 1; ; try++ {
		retryAfter, err := w.attempt(ctx, m)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		n.attempted(w, err)
		if err == nil {
			n.took(name)
			if try > 1 {
				n.log.Info("notifications are delivered again", "notifier", name, "attempts", try)
			}
			return nil
		}
		if refused := errors.Is(err, channel.ErrRefused); refused || time.Since(began) > keepTrying {
			n.lost(name, map[bool]string{true: lostRefused, false: lostExpired}[refused])
			n.log.Error("giving up on a notification that could not be delivered; see `sqlwatch notify test`",
				"notifier", name, "db", list(m.Databases, 3), "policy", m.Policy, "message", m.Message, "attempts", try, "err",
				err)
			return fmt.Errorf("notify %s: %w", name, err)
		}
		if try == 1 {
			n.log.Warn("a notification could not be delivered; retrying for an hour", "notifier", name, "db",
				list(m.Databases, 3), "policy", m.Policy, "err", err)
		}
		if slept := sleep(ctx, max(retryAfter, wait/2+rand.N(wait/2))); slept != nil || n.replaced(w) {
			return cmp.Or(slept, err)
		}
		wait = min(2*wait, longWait)
	}
}

// flush gives each message that still waits one attempt, and logs the others.
func (n *Notifiers) flush(ctx context.Context, w *notifier) {
	for {
		g, _ := n.head(w)
		if g == nil {
			return
		}
		m := n.close(w, g)
		_, err := w.attempt(ctx, m)
		if err == nil {
			n.took(w.target.Name)
		} else {
			n.lost(w.target.Name, lostShutdown)
			n.log.Error("a notification was not delivered before the shutdown", "notifier", w.target.Name, "db",
				list(m.Databases, 3), "policy", m.Policy, "message", m.Message, "err", err)
			err = fmt.Errorf("notify %s: %w: %w", w.target.Name, errEnded, err)
		}
		n.done(w, g, err)
	}
}
