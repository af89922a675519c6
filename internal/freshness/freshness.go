// Package freshness remembers, minute by minute for an hour, how far behind the replicas of a
// database were: for a sparkline, and for an operator who looks only after the trouble is
// over.
package freshness

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// Minutes is how far Hour looks back.
const Minutes = 60

// Hour reads the status of a database's replicas and remembers it. Its methods may be called
// from any goroutine.
type Hour struct {
	ask func() []collector.Replica
	now func() time.Time

	mu       sync.Mutex
	replicas map[string]*ring
}

// NewHour returns an empty Hour that reads the status with ask.
func NewHour(ask func() []collector.Replica) *Hour {
	return &Hour{ask: ask, now: time.Now, replicas: map[string]*ring{}}
}

// Replicas returns the present status of the replicas, each with its past hour.
func (h *Hour) Replicas() []collector.Replica {
	replicas := h.ask()
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for i := range replicas {
		r := &replicas[i]
		past := h.replicas[r.Name]
		if past == nil {
			past = &ring{minute: minuteOf(now)}
			h.replicas[r.Name] = past
		}
		past.note(minuteOf(now), Behind(r))
		r.BehindByMinute = past.ended
	}
	return replicas
}

// Behind returns the age in seconds of the oldest commit that a replica lacks, rounded as every
// view shows it; 0 if it lacks none; nil if it has never been caught up, so that its lag is
// unknown.
func Behind(r *collector.Replica) *float64 {
	if r.CaughtUp.IsZero() {
		return nil
	}
	return new(math.Round(1000*max(0, r.LagSeconds)) / 1000)
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// ring is one replica's past hour.
type ring struct {
	minute int64      // the present minute, since 1970
	worst  *float64   // in the present minute
	ended  []*float64 // the worst of each minute before; shared with callers, so never changed
}

// note records a value that was seen in a minute; nil is unknown.
func (r *ring) note(minute int64, behind *float64) {
	if minute > r.minute {
		next := append(slices.Clone(r.ended), r.worst)
		// Minutes in which nobody asked are unknown: the machine was suspended, or a disk hung.
		next = append(next, make([]*float64, min(minute-r.minute-1, Minutes))...)
		r.ended, r.worst = next[max(0, len(next)-Minutes):], nil
	}
	r.minute = minute // if the clock was set back, continue from there
	if behind != nil && (r.worst == nil || *behind > *r.worst) {
		r.worst = behind
	}
}
