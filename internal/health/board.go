package health

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// Board remembers since when each condition has held, and exports them as metrics. A daemon
// has one Board; its methods may be called from any goroutine.
type Board struct {
	mu   sync.Mutex
	held map[series]bool // every condition that ever held, and whether it holds now
	now  map[string][]Condition
}

// series is one series of sqlwatch_condition.
type series struct {
	db, condition string
	severity      Severity
}

// Itself is the name for the daemon's own conditions.
const Itself = ""

// NewBoard returns a Board without conditions.
func NewBoard() *Board {
	return &Board{held: map[series]bool{}, now: map[string][]Condition{}}
}

// Note replaces the conditions of a database, or of Itself, and returns them with the
// time since when each has held. A condition that held before keeps its time, even if
// its severity has changed.
func (b *Board) Note(db string, at time.Time, found []Condition) []Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.now[db]
	if len(found) == 0 && len(before) == 0 {
		return []Condition{} // nothing to remember if all is well
	}
	for i := range found {
		found[i].Since = at
		for _, old := range before {
			if old.ID == found[i].ID && old.Subject == found[i].Subject {
				found[i].Since = old.Since
			}
		}
	}
	for _, c := range before {
		b.held[series{db, c.ID, c.Severity}] = false
	}
	for _, c := range found {
		b.held[series{db, c.ID, c.Severity}] = true
	}
	b.now[db] = found
	return slices.Clone(found)
}

// Forget removes all conditions of a database that is no longer watched.
func (b *Board) Forget(db string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.now, db)
	for s := range b.held {
		if s.db == db {
			delete(b.held, s)
		}
	}
}

// Of returns the conditions of a database, or of Itself; never nil.
func (b *Board) Of(db string) []Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Condition{}, b.now[db]...)
}

var metricCondition = metric.Metric{Name: "sqlwatch_condition", Type: metric.Gauge,
	Labels: []string{"db", "condition", "severity"},
	Help: "1 while the condition holds, 0 after its end; absent where it never held. An empty db is sqlwatch itself. " +
		"docs/conditions.md says what each means."}

var descCondition = metricCondition.Desc()

// Catalogue returns every metric that a Board exports.
func Catalogue() []metric.Metric { return []metric.Metric{metricCondition} }

// Describe implements prometheus.Collector.
func (b *Board) Describe(ch chan<- *prometheus.Desc) { ch <- descCondition }

// Collect implements prometheus.Collector.
func (b *Board) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, holds := range b.held {
		value := 0.0
		if holds {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(descCondition, prometheus.GaugeValue, value, s.db, s.condition,
			string(s.severity))
	}
}
