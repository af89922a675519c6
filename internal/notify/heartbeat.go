package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// Pulse is how all fares, for heartbeats.
type Pulse struct {
	Alive bool   // the loop has turned for every database; where it has not, no heartbeat says anything
	Wrong string // what is critical; empty: all is well
}

// Beat asks for the addresses of all heartbeats at their pace while all is well, and
// for their failure addresses where something is critical, until ctx ends. Who is
// asked tells a person when nothing comes: also of a machine that is off.
func (n *Notifiers) Beat(ctx context.Context, pulse func() Pulse) error {
	last := map[string]beat{}
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		if err := sleep(ctx, time.Second); err != nil {
			return nil
		}
		hearts := n.hearts()
		if len(hearts) == 0 {
			continue
		}
		now := pulse()
		if !now.Alive && now.Wrong == "" {
			continue
		}
		for _, h := range hearts {
			name := h.target.Name
			// What changes is told at once.
			if was := last[name]; time.Since(was.at) < h.target.Every && was.wrong == (now.Wrong != "") {
				continue
			}
			last[name] = beat{time.Now(), now.Wrong != ""}
			asking.Go(func() { n.ask(ctx, h, now.Wrong) })
		}
	}
}

// beat is when a heartbeat was asked for last, and whether something was wrong.
type beat struct {
	at    time.Time
	wrong bool
}

// hearts returns the heartbeats of the configuration.
func (n *Notifiers) hearts() (all []*notifier) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.notifiers {
		if w.target.Type == channel.HeartbeatType {
			all = append(all, w)
		}
	}
	return all
}

// ask makes one beat, three times where it fails.
func (n *Notifiers) ask(ctx context.Context, h *notifier, wrong string) {
	m := channel.Message{ID: "msg_" + rand.Text(), Status: channel.Resolved, Text: wrong, Time: time.Now().UTC()}
	if wrong != "" {
		m.Status = channel.Firing
	}
	for wait := firstWait; ; wait *= 3 {
		_, err := h.send(ctx, m)
		if err != nil && ctx.Err() != nil {
			return
		}
		last := wait > 3*firstWait || errors.Is(err, channel.ErrRefused)
		if err == nil || last {
			n.attempted(h, err)
			if err == nil {
				n.metrics.sent.WithLabelValues(h.target.Name).Inc()
				return
			}
			n.metrics.lost(h.target.Name, lostExpired)
			n.log.Warn("a heartbeat could not be delivered; the next one is sent on schedule", "notifier",
				h.target.Name, "err", err)
			return
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}
