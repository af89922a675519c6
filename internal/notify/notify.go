// Package notify tells the world outside what a policy has to say: it posts JSON
// to webhooks. Sending waits for nobody; a webhook that is down is tried again
// for an hour, and none waits for another. Addresses carry tokens: no log line,
// error or metric of this package shows more of them than the host.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Message is what a webhook receives.
type Message struct {
	DB       string    `json:"db"`
	Policy   string    `json:"policy"`
	Severity string    `json:"severity"` // info, warning or critical
	Message  string    `json:"message"`
	Text     string    `json:"text"` // the message once more, under the name that chat programs read; filled in by Send
	Time     time.Time `json:"time"`
}

// Target is one webhook.
type Target struct {
	Name      string // as "webhook.ops"
	URL       string // secret; https, or http to this machine
	AllowHTTP bool   // http to other machines too
}

const (
	queueLimit = 100       // messages that wait for one webhook
	keepTrying = time.Hour // older messages are given up
	firstWait  = time.Second
	longWait   = 5 * time.Minute
	lastWords  = 3 * time.Second // for what still waits when Run ends
)

// Errors of Send and of deliveries.
var (
	ErrUnknown = errors.New("no such notifier")
	ErrFull    = errors.New("too many notifications wait for this notifier")
	errRefused = errors.New("refused for good")
)

// Notifiers sends messages to webhooks. All methods may be called concurrently;
// nothing is sent before Run.
type Notifiers struct {
	log     *slog.Logger
	wake    chan struct{}
	metrics metrics

	mu       sync.Mutex
	webhooks map[string]*webhook
}

// webhook is one target, and what waits for it.
type webhook struct {
	target  Target
	post    func(ctx context.Context, m Message) (retryAfter time.Duration, err error)
	queue   []Message // oldest first
	working bool      // someone sends; guarded, as queue, by Notifiers.mu
}

// New returns Notifiers without any webhook.
func New(log *slog.Logger) *Notifiers {
	return &Notifiers{log: log, wake: make(chan struct{}, 1), metrics: newMetrics(), webhooks: map[string]*webhook{}}
}

// Configure replaces the webhooks. One that stays the same keeps its queue. On an
// error, which names the webhook and not its address, nothing has changed.
func (n *Notifiers) Configure(targets []Target) error {
	next := make(map[string]*webhook, len(targets))
	for _, t := range targets {
		post, err := newPoster(t)
		if err != nil {
			return fmt.Errorf("notifier %s: %w", t.Name, err)
		}
		next[t.Name] = &webhook{target: t, post: post}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, w := range n.webhooks {
		if same := next[name]; same != nil && same.target == w.target {
			next[name] = w
		}
		if next[name] == nil {
			n.metrics.forget(name)
		}
	}
	for name := range next {
		n.metrics.zero(name)
	}
	n.webhooks = next
	return nil
}

// Send queues a message for the named webhook and returns at once. Errors:
// ErrUnknown, ErrFull. That a queued message was not delivered stands in the log
// and in the metrics.
func (n *Notifiers) Send(name string, m Message) error {
	m.Text = fmt.Sprintf("[%s] %s", m.Severity, m.Message)
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.webhooks[name]
	switch {
	case w == nil:
		return fmt.Errorf("notify %s: %w", name, ErrUnknown)
	case len(w.queue) >= queueLimit:
		n.metrics.lost(name, lostQueueFull)
		return fmt.Errorf("notify %s: %w (%d)", name, ErrFull, queueLimit)
	}
	w.queue = append(w.queue, m)
	select {
	case n.wake <- struct{}{}:
	default:
	}
	return nil
}

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

// idle returns the webhooks that have something to send and nobody who does it,
// as the caller's to work on.
func (n *Notifiers) idle() []*webhook {
	n.mu.Lock()
	defer n.mu.Unlock()
	var idle []*webhook
	for _, w := range n.webhooks {
		if len(w.queue) > 0 && !w.working {
			w.working = true
			idle = append(idle, w)
		}
	}
	return idle
}

// head returns the message to send next, and false when there is none: then the
// webhook is idle again.
func (n *Notifiers) head(w *webhook) (Message, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(w.queue) == 0 {
		w.working = false
		return Message{}, false
	}
	return w.queue[0], true
}

// done takes the head off the queue.
func (n *Notifiers) done(w *webhook) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.queue = w.queue[1:]
}

// drain delivers what waits for a webhook, in order.
func (n *Notifiers) drain(ctx context.Context, w *webhook) {
	for {
		m, some := n.head(w)
		if !some {
			return
		}
		err := n.deliver(ctx, w, m)
		if ctx.Err() != nil && err != nil {
			n.mu.Lock()
			w.working = false // the message stays for the flush
			n.mu.Unlock()
			return
		}
		n.done(w)
	}
}

// deliver tries until the message has arrived, is refused for good or is too old.
func (n *Notifiers) deliver(ctx context.Context, w *webhook, m Message) error {
	began, wait := time.Now(), firstWait
	for try := 1; ; try++ {
		retryAfter, err := w.post(ctx, m)
		if err == nil {
			n.metrics.sent.WithLabelValues(w.target.Name).Inc()
			if try > 1 {
				n.log.Info("the notifier answers again", "notifier", w.target.Name, "attempts", try)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refused := errors.Is(err, errRefused); refused || time.Since(began) > keepTrying {
			n.metrics.lost(w.target.Name, map[bool]string{true: lostRefused, false: lostExpired}[refused])
			n.log.Error("a notification was not delivered and is given up; check the notifier's url",
				"notifier", w.target.Name, "db", m.DB, "policy", m.Policy, "message", m.Message, "attempts", try, "err", err)
			return err
		}
		if try == 1 {
			n.log.Warn("a notification could not be delivered; it is tried again for an hour", "notifier", w.target.Name, "db",
				m.DB, "policy", m.Policy, "err", err)
		}
		pause := time.NewTimer(max(retryAfter, wait/2+rand.N(wait/2)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, longWait)
	}
}

// flush gives each message that still waits one attempt, and logs the others.
func (n *Notifiers) flush(ctx context.Context, w *webhook) {
	for {
		m, some := n.head(w)
		if !some {
			return
		}
		if _, err := w.post(ctx, m); err == nil {
			n.metrics.sent.WithLabelValues(w.target.Name).Inc()
		} else {
			n.metrics.lost(w.target.Name, lostShutdown)
			n.log.Error("a notification was not delivered before the shutdown", "notifier", w.target.Name, "db", m.DB, "policy",
				m.Policy, "message", m.Message, "err", err)
		}
		n.done(w)
	}
}
