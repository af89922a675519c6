package collector

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// row is the series of one database, in the order in which a scrape writes
// them. The n-th has nearly always the labels that it had in the scrape before:
// to make them for each scrape was a quarter of a scrape's work.
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
func (r *row) pairs(desc *prometheus.Desc, m *metric.Metric, values []string) ([]*dto.LabelPair, error) {
	if r.next == len(r.written) || r.written[r.next].metric != m.Name || !slices.Equal(r.written[r.next].values, values) {
		values := append([]string(nil), values...)
		pairs, err := metric.Labels(desc, values...) // checked once: later ones are the same
		if err != nil {
			return nil, err
		}
		r.written = append(r.written[:r.next], labelled{m.Name, values, pairs})
	}
	r.next++
	return r.written[r.next-1].pairs, nil
}
