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

// Past holds the Hours of all databases, and keeps them in a file across restarts of the
// daemon. Its methods may be called from any goroutine.
type Past struct {
	path string

	mu    sync.Mutex
	hours map[string]*Hour           // by database
	saved map[string]map[string]kept // from the file: databases that Of was not called for yet; by replica
}

// kept is a ring as it is stored in the file.
type kept struct {
	Minute int64      `json:"minute"` // the minute of Worst, since 1970
	Worst  *float64   `json:"worst"`
	Ended  []*float64 `json:"ended"` // the minutes before it, oldest first
}

// LoadPast reads the file. A file that cannot be read counts as empty: it is only for display.
func LoadPast(path string) *Past {
	p := &Past{path: path, hours: map[string]*Hour{}}
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &p.saved)
	}
	return p
}

// Of returns a new Hour of a database that reads the status with ask. It starts with what the
// file or the database's previous Hour knows.
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

// Keep saves the file once a minute until ctx ends, because a killed process cannot save it at its
// end. failed is called with each error, and may be nil.
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

// Save writes the file, for the next start.
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

// all returns the content of the file. It includes the saved hours of databases that were not opened
// yet, for example because a disk hangs, while these are of the past hour.
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
