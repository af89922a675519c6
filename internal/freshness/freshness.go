// Package freshness remembers how far behind the replicas of a database were, minute
// by minute, for an hour: what a sparkline shows, and what somebody wants to know who
// comes after the trouble is over.
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

// Hour asks how a database's replicas fare and remembers the answers. Its methods may
// be called from any goroutine.
type Hour struct {
	ask func() []collector.Replica
	now func() time.Time

	mu       sync.Mutex
	replicas map[string]*ring
}

// NewHour returns an Hour that asks by a function, and remembers nothing yet.
func NewHour(ask func() []collector.Replica) *Hour {
	return &Hour{ask: ask, now: time.Now, replicas: map[string]*ring{}}
}

// Replicas returns what the question's answer is now, each replica with the past hour.
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

// Behind returns the age in seconds of the oldest commit that a replica lacks, 0 where it
// has all, as every view says it; nil where it never held a whole state: that is not
// known, and not 0.
func Behind(r *collector.Replica) *float64 {
	if r.CaughtUp.IsZero() {
		return nil
	}
	return new(math.Round(1000*max(0, r.LagSeconds)) / 1000)
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// ring is one replica's past hour.
type ring struct {
	minute int64      // the present one, since 1970
	worst  *float64   // within it
	ended  []*float64 // of the minutes before; shared with whoever has asked, so never changed
}

// note takes what was seen in a minute.
func (r *ring) note(minute int64, behind *float64) {
	if minute > r.minute {
		next := append(slices.Clone(r.ended), r.worst)
		// Nobody asked in the meantime: the machine slept, or the disk did not answer.
		next = append(next, make([]*float64, min(minute-r.minute-1, Minutes))...)
		r.ended, r.worst = next[max(0, len(next)-Minutes):], nil
	}
	r.minute = minute // a clock that was set back goes on from there
	if behind != nil && (r.worst == nil || *behind > *r.worst) {
		r.worst = behind
	}
}
