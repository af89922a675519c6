package metric

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Table remembers the series of a collector from one scrape to the next: only their
// values are new then.
type Table struct {
	descs map[string]*prometheus.Desc
	rows  atomic.Pointer[map[string]*Row] // of the last scrape; nil while one is under way
}

// NewTable returns a Table of series of these metrics.
func NewTable(metrics []Metric) *Table {
	t := &Table{descs: make(map[string]*prometheus.Desc, len(metrics))}
	for _, m := range metrics {
		t.descs[m.Name] = m.Desc()
	}
	return t
}

// Desc returns the description of a metric of the table.
func (t *Table) Desc(m *Metric) *prometheus.Desc { return t.descs[m.Name] }

// Describe sends all descriptions.
func (t *Table) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range t.descs {
		ch <- d
	}
}

// Begin begins a scrape. Several at once each have rows of their own.
func (t *Table) Begin(to Sink) *Scrape {
	return &Scrape{table: t, to: to, before: t.rows.Swap(nil), rows: map[string]*Row{}}
}

// Scrape is one under way.
type Scrape struct {
	table  *Table
	to     Sink
	before *map[string]*Row
	rows   map[string]*Row
}

// Row returns the row of that name, to be written from its beginning. It reports
// false where this scrape has begun it already.
func (s *Scrape) Row(name string) (r *Row, first bool) {
	if r := s.rows[name]; r != nil {
		return r, false
	}
	if s.before != nil {
		r = (*s.before)[name]
	}
	if r == nil {
		r = &Row{}
	}
	r.scrape, r.next = s, 0
	s.rows[name] = r
	return r, true
}

// End ends the scrape. Rows that it did not write are forgotten.
func (s *Scrape) End() { s.table.rows.Store(&s.rows) }

// Row is the series of one database, or of whatever else a collector has many of, in
// the order in which a scrape writes them. The n-th is nearly always of the metric and
// has the labels of the n-th in the scrape before.
type Row struct {
	scrape  *Scrape
	written []written
	next    int
}

// written is a series, and what its labels were made of.
type written struct {
	of     *Metric
	values []string
	Series
}

// Put writes the row's next series.
func (r *Row) Put(m *Metric, value float64, labels ...string) {
	if r.next == len(r.written) || r.written[r.next].of != m || !slices.Equal(r.written[r.next].values, labels) {
		one, err := r.newSeries(m, labels)
		if err != nil {
			r.scrape.to.PutOther(prometheus.NewInvalidMetric(r.scrape.table.Desc(m), err))
			return
		}
		r.written = append(r.written[:r.next], one)
	}
	one := &r.written[r.next]
	r.next++
	one.Value = value
	r.scrape.to.Put(&one.Series)
}

// newSeries makes a series, whose labels are another's of the row if that has the same.
func (r *Row) newSeries(m *Metric, labels []string) (w written, err error) {
	desc := r.scrape.table.Desc(m)
	w = written{of: m, values: slices.Clone(labels), Series: Series{Of: desc, Type: m.Type}}
	for i := range r.written[:r.next] {
		if same := &r.written[i]; slices.Equal(same.of.Labels, m.Labels) && slices.Equal(same.values, labels) {
			w.values, w.Labels = same.values, same.Labels
			return w, nil
		}
	}
	w.Labels, err = NewLabels(desc, w.values...) // checked once: later ones are the same
	return w, err
}
