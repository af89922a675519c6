package collector

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// series is one line of a scrape. Its labels are shared with the scrapes before.
type series struct {
	desc    *prometheus.Desc
	counter bool
	labels  []*dto.LabelPair
	value   float64
}

// Desc implements prometheus.Metric.
func (s *series) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *series) Write(out *dto.Metric) error {
	out.Label = s.labels
	if s.counter {
		out.Counter = &dto.Counter{Value: &s.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// row is the series of one database, in the order in which a scrape writes
// them. The n-th has nearly always the labels that it had in the scrape before:
// to make them anew was a quarter of a scrape's work.
type row struct {
	db      string
	written []labelled
	next    int
}

// labelled is what was made of label values.
type labelled struct {
	metric string
	values []string
	pairs  []*dto.LabelPair
}

// reused returns db's row of an earlier scrape, or a new one.
func reused(before *map[string]*row, db string) *row {
	if before != nil {
		if r := (*before)[db]; r != nil {
			r.next = 0
			return r
		}
	}
	return &row{db: db}
}

// pairs returns the labels of the row's next series.
func (r *row) pairs(descs map[string]*prometheus.Desc, m metric.Metric, values []string) ([]*dto.LabelPair, error) {
	if r.next == len(r.written) || r.written[r.next].metric != m.Name || !slices.Equal(r.written[r.next].values, values) {
		values := append([]string(nil), values...)
		// Checked by the library, once: later ones are the same.
		metric, err := prometheus.NewConstMetric(descs[m.Name], prometheus.UntypedValue, 0, values...)
		if err != nil {
			return nil, err
		}
		var checked dto.Metric
		if err := metric.Write(&checked); err != nil {
			return nil, err
		}
		r.written = append(r.written[:r.next], labelled{m.Name, values, checked.Label})
	}
	r.next++
	return r.written[r.next-1].pairs, nil
}
