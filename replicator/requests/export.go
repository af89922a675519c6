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
			"detail is asked for. That there is nothing yet, or already, is an answer and no failure."},
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
	descFailures, descDurations     = catalogue[1].Desc(), catalogue[2].Desc()
	descFailuresOf, descDurationsOf = detailed(catalogue[1]).Desc(), detailed(catalogue[2]).Desc()
)

// Catalogue returns every metric that Collect sends.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }

// Operations returns the metrics that Collect writes.
func Operations() []metric.Metric { return slices.Clone(catalogue[:1]) }

// Describe sends the descriptions of what CollectDetail sends: detail reports whether
// it is called for each database.
func Describe(descs chan<- *prometheus.Desc, detail bool) {
	if detail {
		descs <- descFailuresOf
		descs <- descDurationsOf
		return
	}
	descs <- descFailures
	descs <- descDurations
}

// Collect writes how often each operation was asked for, as metrics of a database
// and a replica; zeros reports whether also what never was.
func (c *Counts) Collect(to *metric.Row, db, replica string, zeros bool) {
	for i := range operations {
		if n := c.counted[i].total(); n > 0 || zeros {
			to.Put(&catalogue[0], float64(n), db, replica, operations[i])
		}
	}
}

// CollectDetail sends failures and durations as metrics of that replica and
// database; an empty name stands for all databases together. Durations are sent
// of operations that were ever asked for.
func (c *Counts) CollectDetail(to metric.Sink, db, replica string) {
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
			to.Put(&metric.Series{Of: failures, Type: metric.Counter, Labels: labels.reason(i, j),
				Value: float64(one.failures[j].Load())})
		}
		if one.total() > 0 {
			to.PutOther(histogram{durations, labels.of(i), one.histogram()})
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
func (s Sums) Collect(to metric.Sink) {
	for replica, c := range s {
		c.CollectDetail(to, "", replica)
	}
}

// labelSet has the pairs that all series of a replica share.
type labelSet struct {
	db      []*dto.LabelPair // one, or none
	replica *dto.LabelPair
}

// The pairs that the series of all replicas share.
var operationPairs, reasonPairs = pairs("operation", operations[:]), pairs("reason", reasons[:])

func newLabels(db, replica string) *labelSet {
	l := &labelSet{replica: pair("replica", replica)}
	if db != "" {
		l.db = []*dto.LabelPair{pair("db", db)}
	}
	return l
}

func pairs(name string, values []string) []*dto.LabelPair {
	all := make([]*dto.LabelPair, len(values))
	for i, value := range values {
		all[i] = pair(name, value)
	}
	return all
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// of and reason return labels in the order of their names, which the protocol wants.
func (l *labelSet) of(i int) []*dto.LabelPair {
	return slices.Concat(l.db, []*dto.LabelPair{operationPairs[i], l.replica})
}

func (l *labelSet) reason(i, j int) *metric.Labels {
	return metric.LabelsOf(slices.Concat(l.db, []*dto.LabelPair{operationPairs[i], reasonPairs[j], l.replica}))
}

// histogram is one prometheus.Metric.
type histogram struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  *dto.Histogram
}

// Desc implements prometheus.Metric.
func (h histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h histogram) Write(m *dto.Metric) error {
	m.Label, m.Histogram = h.labels, h.value
	return nil
}

func (o *counted) histogram() *dto.Histogram {
	sum := o.duration().Seconds()
	h := &dto.Histogram{SampleSum: &sum}
	var below uint64
	for i := range bounds {
		below += o.buckets[i].Load()
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bounds[i], CumulativeCount: new(below)})
	}
	h.SampleCount = new(below + o.buckets[len(bounds)].Load())
	o.native(h)
	return h
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
