package requests

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

var catalogue = []metric.Metric{
	{Name: "sqlwatch_replica_operations_total", Type: metric.Counter, Labels: []string{"db", "replica", "operation"},
		Help: "Requests sent to the replica's store, retries included."},
	{Name: "sqlwatch_replica_operation_failures_total", Type: metric.Counter,
		Labels: []string{"db", "replica", "operation", "reason"},
		Help:   "Requests to the replica's store that failed, by reason."},
	{Name: "sqlwatch_replica_operation_duration_seconds", Type: metric.Histogram,
		Labels: []string{"db", "replica", "operation"},
		Help:   "How long requests to the replica's store took."},
}

var descOperations, descFailures, descDurations = catalogue[0].Desc(), catalogue[1].Desc(), catalogue[2].Desc()

// Catalogue returns every metric that Collect sends.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }

// Describe sends the descriptions of what Collect sends.
func Describe(descs chan<- *prometheus.Desc) {
	descs <- descOperations
	descs <- descFailures
	descs <- descDurations
}

// Collect sends every count as a metric of that database and replica. Durations
// are sent of operations that were ever asked for.
func (c *Counts) Collect(metrics chan<- prometheus.Metric, db, replica string) {
	labels := newLabels(db, replica)
	for i := range operations {
		one := &c.counted[i]
		total := one.total()
		metrics <- series{descOperations, labels.of(i), counter(float64(total))}
		for j := range reasons {
			metrics <- series{descFailures, labels.reason(i, j), counter(float64(one.failures[j].Load()))}
		}
		if total > 0 {
			metrics <- series{descDurations, labels.of(i), one.histogram()}
		}
	}
}

// labelSet has the pairs that all series of a replica share, so that a scrape of
// many databases makes few objects.
type labelSet struct {
	db, replica *dto.LabelPair
	operations  [len(operations)]*dto.LabelPair
	reasons     [len(reasons)]*dto.LabelPair
}

func newLabels(db, replica string) *labelSet {
	l := &labelSet{db: pair("db", db), replica: pair("replica", replica)}
	for i := range operations {
		l.operations[i] = pair("operation", operations[i])
	}
	for i := range reasons {
		l.reasons[i] = pair("reason", reasons[i])
	}
	return l
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// of and reason return labels in the order of their names, which the protocol wants.
func (l *labelSet) of(i int) []*dto.LabelPair {
	return []*dto.LabelPair{l.db, l.operations[i], l.replica}
}

func (l *labelSet) reason(i, j int) []*dto.LabelPair {
	return []*dto.LabelPair{l.db, l.operations[i], l.reasons[j], l.replica}
}

// series is one prometheus.Metric.
type series struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  *dto.Metric
}

// Desc implements prometheus.Metric.
func (s series) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s series) Write(m *dto.Metric) error {
	m.Label, m.Counter, m.Histogram = s.labels, s.value.Counter, s.value.Histogram
	return nil
}

func counter(v float64) *dto.Metric { return &dto.Metric{Counter: &dto.Counter{Value: &v}} }

func (o *counted) histogram() *dto.Metric {
	sum := o.duration().Seconds()
	h := &dto.Histogram{SampleSum: &sum}
	var below uint64
	for i := range bounds {
		below += o.buckets[i].Load()
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bounds[i], CumulativeCount: new(below)})
	}
	h.SampleCount = new(below + o.buckets[len(bounds)].Load())
	return &dto.Metric{Histogram: h}
}
