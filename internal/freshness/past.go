package freshness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Past has the Hours of all databases, and keeps them over a restart of the daemon in one
// file. Its methods may be called from any goroutine.
type Past struct {
	path string

	mu    sync.Mutex
	hours map[string]*Hour           // by database
	saved map[string]map[string]kept // of databases that were not asked for yet; by replica
}

// kept is a ring in the file.
type kept struct {
	Minute int64      `json:"minute"` // since 1970: the one that Worst is of
	Worst  *float64   `json:"worst"`
	Ended  []*float64 `json:"ended"` // the minutes before, the oldest first
}

// LoadPast reads what was saved. What cannot be read is as good as nothing: it is for the eye.
func LoadPast(path string) *Past {
	p := &Past{path: path, hours: map[string]*Hour{}}
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &p.saved)
	}
	return p
}

// Of returns the Hour of a database, which asks by a function from now on. What is known of
// the past hour it knows already.
func (p *Past) Of(db string, ask func() []collector.Replica) *Hour {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := NewHour(ask)
	if old := p.hours[db]; old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		for name, r := range old.replicas {
			copied := *r
			h.replicas[name] = &copied
		}
	}
	for name, k := range p.saved[db] {
		h.replicas[name] = &ring{minute: k.Minute, worst: k.Worst, ended: k.Ended[max(0, len(k.Ended)-Minutes):]}
	}
	delete(p.saved, db)
	p.hours[db] = h
	return h
}

// Keep writes down what is known once a minute until ctx ends: whoever is killed has no last word.
// failed is told of each time that this fails, and may be nil.
func (p *Past) Keep(ctx context.Context, failed func(error)) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := p.Save(); err != nil && failed != nil {
				failed(err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Save writes down what is known, for the next start.
func (p *Past) Save() error {
	data, err := json.Marshal(p.all())
	if err == nil {
		err = durable.WriteFile(p.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save how far behind the replicas were: %w", err)
	}
	return nil
}

// all is what the file holds: also what is known of databases that were not opened yet, as of one
// whose disk does not answer, for as long as it is of the past hour.
func (p *Past) all() map[string]map[string]kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]map[string]kept{}
	for db, replicas := range p.saved {
		for name, k := range replicas {
			if minuteOf(time.Now())-k.Minute > Minutes {
				continue
			}
			if all[db] == nil {
				all[db] = map[string]kept{}
			}
			all[db][name] = k
		}
	}
	for db, h := range p.hours {
		all[db] = h.kept()
	}
	return all
}

func (h *Hour) kept() map[string]kept {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]kept{}
	for name, r := range h.replicas {
		all[name] = kept{Minute: r.minute, Worst: r.worst, Ended: r.ended}
	}
	return all
}
