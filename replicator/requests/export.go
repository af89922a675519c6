package requests

import (
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

var catalogue = []metric.Metric{
	{Name: "sqlwatch_replica_operations_total", Type: metric.Counter, Labels: []string{"db", "replica", "operation"},
		Help: "Requests sent to the replica's store, retries included.", AbsentAtZero: true},
	{Name: "sqlwatch_replica_operation_failures_total", Type: metric.Counter,
		Labels: []string{"replica", "operation", "reason"}, AbsentAtZero: true,
		Help: "Requests to the replica's store that failed, by reason, for all databases together; for each where all " +
			"detail is asked for."},
	{Name: "sqlwatch_replica_operation_duration_seconds", Type: metric.Histogram,
		Labels: []string{"replica", "operation"}, AbsentAtZero: true, Bounds: []float64{.1, 2},
		Help: "How long requests to the replica's store took, for all databases together; for each where all detail is " +
			"asked for."},
}

// detailed is a metric with the database's name.
func detailed(m metric.Metric) metric.Metric {
	m.Labels = append([]string{"db"}, m.Labels...)
	return m
}

var (
	descOperations, descFailures, descDurations = catalogue[0].Desc(), catalogue[1].Desc(), catalogue[2].Desc()
	descFailuresOf, descDurationsOf             = detailed(catalogue[1]).Desc(), detailed(catalogue[2]).Desc()
)

// Catalogue returns every metric that Collect sends.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }

// Describe sends the descriptions of what Collect and CollectDetail send: detail
// reports whether the latter is called for each database.
func Describe(descs chan<- *prometheus.Desc, detail bool) {
	descs <- descOperations
	if detail {
		descs <- descFailuresOf
		descs <- descDurationsOf
		return
	}
	descs <- descFailures
	descs <- descDurations
}

// Collect sends how often each operation was asked for, as metrics of that
// database and replica.
func (c *Counts) Collect(metrics chan<- prometheus.Metric, db, replica string) {
	labels := newLabels(db, replica)
	for i := range operations {
		metrics <- series{descOperations, labels.of(i), counter(float64(c.counted[i].total()))}
	}
}

// CollectDetail sends failures and durations as metrics of that replica and
// database; an empty name stands for all databases together. Durations are sent
// of operations that were ever asked for.
func (c *Counts) CollectDetail(metrics chan<- prometheus.Metric, db, replica string) {
	labels := newLabels(db, replica)
	failures, durations := descFailures, descDurations
	if db != "" {
		failures, durations = descFailuresOf, descDurationsOf
	}
	for i := range operations {
		one := &c.counted[i]
		if one.total() == 0 && db == "" {
			continue // it was never asked for, by anybody
		}
		for j := range reasons {
			metrics <- series{failures, labels.reason(i, j), counter(float64(one.failures[j].Load()))}
		}
		if one.total() > 0 {
			metrics <- series{durations, labels.of(i), one.histogram()}
		}
	}
}

// Sums are the counts of each replica, for all databases together.
type Sums map[string]*Counts

// Add counts what a database's replica was asked.
func (s Sums) Add(replica string, c *Counts) {
	if s[replica] == nil {
		s[replica] = new(Counts)
	}
	s[replica].Add(c)
}

// Clone returns a copy that goes on by itself.
func (s Sums) Clone() Sums {
	out := make(Sums, len(s))
	for replica, c := range s {
		out.Add(replica, c)
	}
	return out
}

// Collect sends the failures and durations of every replica.
func (s Sums) Collect(metrics chan<- prometheus.Metric) {
	for replica, c := range s {
		c.CollectDetail(metrics, "", replica)
	}
}

// labelSet has the pairs that all series of a replica share, so that a scrape of
// many databases makes few objects.
type labelSet struct {
	db         []*dto.LabelPair // one, or none
	replica    *dto.LabelPair
	operations [len(operations)]*dto.LabelPair
	reasons    [len(reasons)]*dto.LabelPair
}

func newLabels(db, replica string) *labelSet {
	l := &labelSet{replica: pair("replica", replica)}
	if db != "" {
		l.db = []*dto.LabelPair{pair("db", db)}
	}
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
	return slices.Concat(l.db, []*dto.LabelPair{l.operations[i], l.replica})
}

func (l *labelSet) reason(i, j int) []*dto.LabelPair {
	return slices.Concat(l.db, []*dto.LabelPair{l.operations[i], l.reasons[j], l.replica})
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
	o.native(h)
	return &dto.Metric{Histogram: h}
}

// native adds the buckets of the native histogram: powers of two (schema 0).
func (o *counted) native(h *dto.Histogram) {
	h.Schema, h.ZeroThreshold = new(int32(0)), new(math.Ldexp(1, firstPower-1))
	h.ZeroCount = new(o.powers[0].Load())
	before := int64(0)
	for i := range powers {
		now := int64(o.powers[i+1].Load())
		h.PositiveDelta = append(h.PositiveDelta, now-before)
		before = now
	}
	h.PositiveSpan = []*dto.BucketSpan{{Offset: new(int32(firstPower)), Length: new(uint32(powers))}}
}
