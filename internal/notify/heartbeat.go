package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// flapping is how far apart two requests that say the same are where the state changes all the time.
const flapping = time.Minute

// Pulse is how all fares, for heartbeats.
type Pulse struct {
	Alive bool   // the loop has turned for every database; where it has not, no heartbeat says anything
	Wrong string // what is critical; empty: all is well
}

// Beat asks for the addresses of all heartbeats at their pace while all is well, and
// for their failure addresses where something is critical, until ctx ends. Who is
// asked tells a person when nothing comes: also of a machine that is off.
func (n *Notifiers) Beat(ctx context.Context, pulse func() Pulse) error {
	last, was := map[beat]time.Time{}, map[string]bool{}
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
			wrong := now.Wrong != ""
			pause := h.target.Every
			if wrong != was[name] { // what changes is told at once, unless it flaps
				pause = min(pause, flapping)
			}
			if time.Since(last[beat{name, wrong}]) < pause {
				continue
			}
			last[beat{name, wrong}], was[name] = time.Now(), wrong
			asking.Go(func() { n.ask(ctx, h, now.Wrong) })
		}
	}
}

// beat is one of the two things that a heartbeat can say.
type beat struct {
	name  string
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
		_, err := h.attempt(ctx, m)
		if err != nil && ctx.Err() != nil {
			return
		}
		last := wait > 3*firstWait || errors.Is(err, channel.ErrRefused)
		if err == nil || last {
			n.attempted(h, err)
			if err == nil {
				n.took(h.target.Name)
				return
			}
			n.lost(h.target.Name, lostExpired)
			n.log.Warn("a heartbeat could not be delivered; the next one is sent on schedule", "notifier",
				h.target.Name, "err", err)
			return
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}
