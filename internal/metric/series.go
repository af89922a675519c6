package metric

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Series is one counter or gauge at one moment. A thousand databases have fifty
// thousand at each scrape: their labels are shared, with other series and with
// scrapes before, and what reads them need not make anything either.
type Series struct {
	Of     *prometheus.Desc
	Type   Type
	Labels []*dto.LabelPair // sorted by name, which the protocol wants; nobody changes them
	Value  float64
}

// Desc implements prometheus.Metric.
func (s *Series) Desc() *prometheus.Desc { return s.Of }

// Write implements prometheus.Metric.
func (s *Series) Write(out *dto.Metric) error {
	out.Label = s.Labels
	if s.Type == Counter {
		out.Counter = &dto.Counter{Value: &s.Value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.Value}
	}
	return nil
}

// Labels returns the labels of a series of that description. The client library
// sees to it that they are what it describes, and UTF-8.
func Labels(of *prometheus.Desc, values ...string) ([]*dto.LabelPair, error) {
	one, err := prometheus.NewConstMetric(of, prometheus.UntypedValue, 0, values...)
	if err != nil {
		return nil, err
	}
	var written dto.Metric
	if err := one.Write(&written); err != nil {
		return nil, err
	}
	return written.Label, nil
}
