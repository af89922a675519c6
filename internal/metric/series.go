package metric

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Series is one counter or gauge at one moment.
type Series struct {
	Of     *prometheus.Desc
	Type   Type
	Labels *Labels
	Value  float64
}

// Desc implements prometheus.Metric.
func (s *Series) Desc() *prometheus.Desc { return s.Of }

// Write implements prometheus.Metric.
func (s *Series) Write(out *dto.Metric) error {
	out.Label = s.Labels.Pairs
	if s.Type == Counter {
		out.Counter = &dto.Counter{Value: &s.Value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.Value}
	}
	return nil
}

// Labels are those of a series in the forms that formats want. A thousand databases
// have fifty thousand at each scrape, so they are made once, and shared with other
// series and with scrapes before; nobody changes them.
type Labels struct {
	Pairs []*dto.LabelPair // sorted by name, which the protocol wants
	text  string           // in braces, as both text formats have them; nothing where there are none
}

// NewLabels returns the labels of a series of that description. The client library
// sees to it that they are what it describes, and UTF-8.
func NewLabels(of *prometheus.Desc, values ...string) (*Labels, error) {
	one, err := prometheus.NewConstMetric(of, prometheus.UntypedValue, 0, values...)
	if err != nil {
		return nil, err
	}
	var written dto.Metric
	if err := one.Write(&written); err != nil {
		return nil, err
	}
	return LabelsOf(written.Label), nil
}

// LabelsOf returns labels that are pairs already, whose names need no quotes.
func LabelsOf(pairs []*dto.LabelPair) *Labels {
	var text strings.Builder
	for i, l := range pairs {
		text.WriteByte("{,"[min(i, 1)])
		text.WriteString(l.GetName() + `="` + quotedEscaper.Replace(l.GetValue()) + `"`)
	}
	if len(pairs) > 0 {
		text.WriteByte('}')
	}
	return &Labels{Pairs: pairs, text: text.String()}
}

// Sink takes the series of a scrape.
type Sink interface {
	// Put takes a series, which is the caller's again when it returns.
	Put(s *Series)
	// PutOther takes what is no Series: a histogram, or an error in the form of a metric.
	PutOther(m prometheus.Metric)
}

// Source is a collector that does without a channel, which at each series costs as
// much as to write it.
type Source interface {
	prometheus.Collector
	Export(to Sink)
}

// Channel is a Sink of what prometheus.Collector is given.
type Channel chan<- prometheus.Metric

// Put implements Sink.
func (c Channel) Put(s *Series) {
	one := *s
	c <- &one
}

// PutOther implements Sink.
func (c Channel) PutOther(m prometheus.Metric) { c <- m }
