// Package notify tells the world outside what a policy has to say. What has one
// cause is gathered into one message; a notifier that is down is tried again for an
// hour, and none waits for another. Addresses carry tokens: no log line, error or
// metric of this package shows them.
package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// Notice is what a policy has to say about one database.
type Notice struct {
	DB       string
	Policy   string
	Severity string // info, warning or critical
	Message  string
	Resolved bool // the policy does not hold any more
	Time     time.Time
}

const (
	queueLimit = 100       // messages that wait for one notifier
	keepTrying = time.Hour // older messages are given up
	firstWait  = time.Second
	longWait   = channel.LongestWait
	lastWords  = 3 * time.Second // for what still waits when Run ends
)

// Errors of Send.
var (
	ErrUnknown = errors.New("no such notifier")
	ErrFull    = errors.New("too many notifications wait for this notifier")
	errEnded   = errors.New("it was not delivered before the shutdown")
	errGone    = errors.New("its notifier was taken out of the configuration")
)

// Notifiers sends messages. All methods may be called concurrently; nothing is sent
// before Run.
type Notifiers struct {
	log     *slog.Logger
	wake    chan struct{}
	metrics metrics

	mu        sync.Mutex // guards what follows, and every notifier's fields
	notifiers map[string]*notifier
	failing   map[string]string // why the last attempt of a notifier failed, until one succeeds
}

// notifier is one target, and what waits for it.
type notifier struct {
	target  channel.Target
	send    channel.Send
	queue   []*group // oldest first
	working bool     // someone sends
	firing  map[string]map[string]bool
}

// cause is what notices of one message have in common.
type cause struct {
	policy, severity string
	resolved         bool
}

// group is notices of one cause, to be one message.
type group struct {
	cause   cause
	first   Notice
	names   []string // of databases, each once
	begun   time.Time
	closed  bool // it is being sent: nothing more belongs to it
	id      string
	waiting []chan error // who wants to know; each is told once
	fresh   []string     // databases of which nothing was told before
}

// New returns Notifiers without any target.
func New(log *slog.Logger) *Notifiers {
	return &Notifiers{log: log, wake: make(chan struct{}, 1), metrics: newMetrics(), notifiers: map[string]*notifier{},
		failing: map[string]string{}}
}

// Configure replaces the targets. What waits for one is sent to the new target of
// that name. On an error, which names the target and not its address, nothing has
// changed.
func (n *Notifiers) Configure(targets []channel.Target) error {
	next := make(map[string]*notifier, len(targets))
	for _, t := range targets {
		send, err := channel.New(t)
		if err != nil {
			return fmt.Errorf("notifier %s: %w", t.Name, err)
		}
		next[t.Name] = &notifier{target: t, send: send, firing: map[string]map[string]bool{}}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, w := range n.notifiers {
		same := next[name]
		if same != nil && reflect.DeepEqual(same.target, w.target) {
			next[name] = w
			continue
		}
		delete(n.failing, name)
		if same != nil {
			same.queue, same.firing = w.queue, w.firing
		} else {
			n.metrics.forget(name)
			for _, g := range w.queue {
				g.end(errGone)
			}
		}
		w.queue = nil // who works on it finds nothing more
	}
	for name := range next {
		n.metrics.zero(name)
	}
	n.notifiers = next
	n.look()
	return nil
}

// Holds tells a notifier what an earlier life told it: the policy holds for the database.
// An incident of several databases ends with the last of them, over a restart too.
func (n *Notifiers) Holds(name, db, policy string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.notifiers[name]; w != nil {
		w.holds(db, policy, true)
	}
}

// Drop tells the end of what a policy has told of a database, where one of the two is no longer
// configured and no other end will come.
func (n *Notifiers) Drop(db, policy string) {
	n.mu.Lock()
	var told []string
	for name, w := range n.notifiers {
		if w.firing[policy][db] {
			told = append(told, name)
		}
	}
	n.mu.Unlock()
	for _, name := range told {
		// That a queue is full shows as the notifier's failure.
		_, _ = n.enqueue(name, Notice{DB: db, Policy: policy, Severity: "info", Resolved: true, Time: time.Now().UTC(),
			Message: fmt.Sprintf("%s: %s is no longer configured for it", db, policy)})
	}
}

// look makes Run see what there is to do.
func (n *Notifiers) look() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Send hands a notice to the named notifier and returns when it was delivered, or
// was given up, or Run or ctx has ended. Errors: ErrUnknown, ErrFull, what the other
// side answered.
func (n *Notifiers) Send(ctx context.Context, name string, m Notice) error {
	done, err := n.enqueue(name, m)
	if done == nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// Run may be ending with it, and has a moment for what waits.
	last := time.NewTimer(lastWords + time.Second)
	defer last.Stop()
	select {
	case err := <-done:
		return err
	case <-last.C:
		return fmt.Errorf("notify %s: %w", name, ctx.Err())
	}
}

// enqueue returns what tells how the notice fares; nil where it will not be sent.
func (n *Notifiers) enqueue(name string, m Notice) (<-chan error, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.notifiers[name]
	switch {
	case w == nil || w.target.Type == channel.HeartbeatType:
		return nil, fmt.Errorf("notify %s: %w", name, ErrUnknown)
	}
	if m.Resolved {
		w.holds(m.DB, m.Policy, false)
		if w.target.NoResolved {
			return nil, nil
		}
	}
	of := cause{m.Policy, m.Severity, m.Resolved}
	g := w.open(of)
	if g == nil {
		if len(w.queue) >= queueLimit {
			n.metrics.failures.WithLabelValues(name, lostQueueFull).Inc() // the lock is held
			n.failing[name] = ErrFull.Error()
			return nil, fmt.Errorf("notify %s: %w (%d)", name, ErrFull, queueLimit)
		}
		g = &group{cause: of, first: m, begun: time.Now(), id: "msg_" + rand.Text()}
		w.queue = append(w.queue, g)
	}
	if !m.Resolved && !w.firing[m.Policy][m.DB] {
		w.holds(m.DB, m.Policy, true)
		g.fresh = append(g.fresh, m.DB)
	}
	g.add(m.DB)
	done := make(chan error, 1)
	g.waiting = append(g.waiting, done)
	n.look()
	return done, nil
}

// open returns the group of a cause that still takes notices, nil where there is none.
func (w *notifier) open(of cause) *group {
	for _, g := range w.queue {
		if !g.closed && g.cause == of {
			return g
		}
	}
	return nil
}

// holds keeps account of where a policy holds.
func (w *notifier) holds(db, policy string, yes bool) {
	where := w.firing[policy]
	if where == nil {
		where = map[string]bool{}
		w.firing[policy] = where
	}
	if yes {
		where[db] = true
	} else {
		delete(where, db)
	}
}

// add adds a database to a group.
func (g *group) add(db string) {
	if !slices.Contains(g.names, db) {
		g.names = append(g.names, db)
	}
}

// over ends a group. What nobody has heard of does not hold for the other side, and has no end.
func (w *notifier) over(g *group, err error) {
	for _, db := range g.fresh {
		if err != nil {
			w.holds(db, g.cause.policy, false)
		}
	}
	g.end(err)
}

// end tells everyone who waits for the group.
func (g *group) end(err error) {
	for _, done := range g.waiting {
		done <- err
	}
	g.waiting = nil
}

// message makes one message of a group.
func (w *notifier) message(g *group) channel.Message {
	const shown = 10
	m := channel.Message{ID: g.id, Status: channel.Firing, DB: g.names[0], Databases: g.names,
		Firing: len(w.firing[g.first.Policy]), Policy: g.first.Policy, Severity: g.first.Severity, Message: g.first.Message,
		Time: g.first.Time}
	word := m.Severity
	if g.first.Resolved {
		m.Status, word = channel.Resolved, channel.Resolved
	}
	m.Text = fmt.Sprintf("[%s] %s", word, m.Message)
	if len(g.names) > 1 {
		m.Text = fmt.Sprintf("[%s] %d databases: %s\n%s", word, len(g.names), m.Message, list(g.names, shown))
	}
	if g.first.Resolved && m.Firing > 0 {
		m.Text += fmt.Sprintf("\nIt still holds for %d.", m.Firing)
	}
	return m
}

// list names the first few.
func list(names []string, most int) string {
	text := ""
	for i, name := range names[:min(len(names), most)] {
		if i > 0 {
			text += ", "
		}
		text += name
	}
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Failing returns the notifiers whose last attempt failed, with the reason; for
// operators, without what is secret.
func (n *Notifiers) Failing() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string]string, len(n.failing))
	for name, why := range n.failing {
		all[name] = why
	}
	return all
}

// attempted notes how an attempt went.
func (n *Notifiers) attempted(w *notifier, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := w.target.Name
	if err == nil {
		delete(n.failing, name)
	} else if n.notifiers[name] == w {
		n.failing[name] = err.Error()
	}
}

// Choose returns the notifier of those known that a name means: "ops" is enough for
// slack.ops where it is the only one.
func Choose(known []string, name string) (string, error) {
	var found []string
	for _, k := range known {
		if k == name || strings.HasSuffix(k, "."+name) {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("no notifier %q; the configuration has: %s", name, strings.Join(known, ", "))
	}
	return found[0], nil
}

// Test sends one message of no consequence, at once, and tells how that went.
func Test(ctx context.Context, t channel.Target) error {
	send, err := channel.New(t)
	if err != nil {
		return err
	}
	m := channel.Message{ID: "msg_" + rand.Text(), Status: channel.Firing, DB: "test", Databases: []string{"test"},
		Firing: 1, Policy: "test", Severity: "info", Message: "This is a test of sqlwatch's notifier " + t.Name + ".",
		Time: time.Now().UTC()}
	m.Text = fmt.Sprintf("[%s] %s", m.Severity, m.Message)
	if t.Type == channel.HeartbeatType {
		m.Status = channel.Resolved // a ping, not a failure
	}
	_, err = send(ctx, m)
	if t.Type == "pagerduty" && err == nil { // nobody needs to close it
		m.Status, m.Firing = channel.Resolved, 0
		_, err = send(ctx, m)
	}
	return cmp.Or(err, ctx.Err())
}
