package replicator

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
)

// Metrics exports what replication does. The replicators keep all values, and a scrape
// reads them without a request to a store and without waiting for a lock that is held
// across I/O. One Metrics serves all replicators of a process; register it once.
type Metrics struct {
	// Detail exports request failures and durations per database; without it they are summed
	// per replica name over all databases. It also exports metrics that are AbsentAtZero.
	// Set it before registration.
	Detail bool

	table *metric.Table

	mu      sync.Mutex
	sources map[string]*Replicator // by database
	past    requests.Sums          // request counts of replicators that have ended
}

// NewMetrics returns an empty Metrics; New adds each Replicator to its Options.Metrics.
func NewMetrics() *Metrics {
	return &Metrics{table: metric.NewTable(append(ofReplicas(), requests.Operations()...)),
		sources: map[string]*Replicator{}, past: requests.Sums{}}
}

// The metrics of this package, in the order of the reference.
var (
	metricUploaded = replicaMetric(metric.Counter, "sqlwatch_replica_uploaded_bytes_total",
		"Bytes of objects stored in the replica.")
	metricVerifyFailures = quiet(replicaMetric(metric.Counter, "sqlwatch_verify_failures_total",
		"Restore drills that failed."))
	metricDiscontinuities = metric.Metric{Name: "sqlwatch_replica_discontinuities_total", Type: metric.Counter,
		Labels:       []string{"db", "reason"},
		Help:         "Times that continuity was not proven and the database was compared or a snapshot taken, by reason.",
		AbsentAtZero: true}
	metricSnapshotEvery = replicaMetric(metric.Gauge, "sqlwatch_replica_snapshot_interval_seconds",
		"Configured time between snapshot checks (snapshot every) of the replica.")
	metricVerifyEvery = replicaMetric(metric.Gauge, "sqlwatch_verify_interval_seconds",
		"Configured time between restore drills (verify every) of the replica; 0 where there are none but by hand.")
)

// replicaGauges are read from Replicator.Status at scrape.
var replicaGauges = []replicaGauge{
	gauge("sqlwatch_replica_caught_up_timestamp_seconds",
		"Latest instant up to which every commit is durable in the replica; moves on while idle.",
		func(s *ReplicaStatus) float64 { return seconds(s.CaughtUp) }),
	gauge("sqlwatch_replica_lag_seconds", "Age of the oldest commit that is not durable in the replica; 0 when there is "+
		"none.",
		func(s *ReplicaStatus) float64 { return s.LagSeconds }),
	gauge("sqlwatch_replica_pending_bytes", "Bytes captured but not yet durable in the replica.",
		func(s *ReplicaStatus) float64 { return float64(s.PendingBytes) }),
	gauge("sqlwatch_replica_txid", "Last capture number that is durable in the replica.",
		func(s *ReplicaStatus) float64 { return float64(s.TXID) }),
	gauge("sqlwatch_replica_objective_seconds", "Configured bound of loss (sync_every) of the replica.",
		func(s *ReplicaStatus) float64 { return s.Objective.Seconds() }),
	gauge("sqlwatch_replica_stored_bytes", "Bytes of all files that the replica holds, as last listed and since changed.",
		func(s *ReplicaStatus) float64 { return float64(s.StoredBytes) }),
	gauge("sqlwatch_replica_snapshot_last_success_timestamp_seconds",
		"Time of the last snapshot check that succeeded: it took a snapshot, or found that none is needed. After a restart, "+
			"the time of the newest snapshot; 0 when there is none.",
		func(s *ReplicaStatus) float64 { return seconds(s.LastSnapshot) }),
	gauge("sqlwatch_replica_restore_point_oldest_timestamp_seconds",
		"Earliest time that the replica can be restored to; 0 when unknown.",
		func(s *ReplicaStatus) float64 { return seconds(s.OldestRestorePoint) }),
	gauge("sqlwatch_replica_conditional_writes",
		"1 when the store was found to refuse a second writer (If-None-Match and If-Match); 0 when it does not, or nothing "+
			"was written yet.",
		func(s *ReplicaStatus) float64 { return metric.Bool(s.Guard == lease.GuardConditional) }),
	quietGauge("sqlwatch_replica_refused", "1 while the replica is not written to because it holds another history: see "+
		"sqlwatch status.",
		func(s *ReplicaStatus) float64 { return metric.Bool(s.Custody != "" && !s.Custody.Writes()) }),
	quietGauge("sqlwatch_replica_lost_files",
		"Files of the replica that were found gone, corrupt or unreadable since the "+
			"start; a new snapshot was taken.",
		func(s *ReplicaStatus) float64 { return float64(s.LostFiles) }),
	gauge("sqlwatch_verify_last_success_timestamp_seconds",
		"Time of the last restore drill that succeeded; 0 when there is none.",
		func(s *ReplicaStatus) float64 { return seconds(s.LastVerified) }),
	quietGauge("sqlwatch_verify_duration_seconds", "How long the last restore drill took: the measured time to recover.",
		func(s *ReplicaStatus) float64 { return s.VerifyDuration.Seconds() }),
}

// replicaGauge is a metric and how to read its value from a status.
type replicaGauge struct {
	metric.Metric
	value func(*ReplicaStatus) float64
}

func gauge(name, help string, value func(*ReplicaStatus) float64) replicaGauge {
	return replicaGauge{replicaMetric(metric.Gauge, name, help), value}
}

// quietGauge is a gauge that is AbsentAtZero: 0 means that nothing is wrong, or nothing happened.
func quietGauge(name, help string, value func(*ReplicaStatus) float64) replicaGauge {
	g := gauge(name, help, value)
	g.Metric = quiet(g.Metric)
	return g
}

func quiet(m metric.Metric) metric.Metric {
	m.AbsentAtZero = true
	return m
}

func replicaMetric(kind metric.Type, name, help string) metric.Metric {
	return metric.Metric{Name: name, Type: kind, Labels: []string{"db", "replica"}, Help: help}
}

// Catalogue returns every metric that Metrics exports.
func Catalogue() []metric.Metric { return append(requests.Catalogue(), ofReplicas()...) }

// ofReplicas returns the metrics of this package.
func ofReplicas() []metric.Metric {
	all := []metric.Metric{metricUploaded, metricVerifyFailures, metricDiscontinuities, metricSnapshotEvery,
		metricVerifyEvery}
	for _, g := range replicaGauges {
		all = append(all, g.Metric)
	}
	return all
}

// seconds returns t as a Unix timestamp, rounded down to a millisecond, so that a float64
// never makes it later than t; 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	requests.Describe(descs, m.Detail)
	m.table.Describe(descs)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) { m.Export(metric.Channel(metrics)) }

// Export implements metric.Source.
func (m *Metrics) Export(to metric.Sink) {
	m.mu.Lock()
	sources := make([]*Replicator, 0, len(m.sources))
	for _, r := range m.sources {
		sources = append(sources, r)
	}
	sums := m.past.Clone()
	m.mu.Unlock()
	// Sort by name, so that the output is already in order.
	slices.SortFunc(sources, func(a, b *Replicator) int { return strings.Compare(a.o.Name, b.o.Name) })
	scrape := m.table.Begin(to)
	defer scrape.End()
	for _, r := range sources {
		row, _ := scrape.Row(r.o.Name)
		r.collect(exporting{row, m.Detail})
		for _, p := range r.replicas {
			if m.Detail {
				p.o.Requests.CollectDetail(to, r.o.Name, p.o.Name)
			} else {
				sums.Add(p.o.Name, p.o.Requests)
			}
		}
	}
	if !m.Detail {
		sums.Collect(to)
	}
}

// exporting is the row of one database while it is being written.
type exporting struct {
	*metric.Row
	all bool // include metrics that are AbsentAtZero
}

func (e exporting) send(m *metric.Metric, value float64, labels ...string) {
	if value != 0 || e.all || !m.AbsentAtZero {
		e.Put(m, value, labels...)
	}
}

func (r *Replicator) collect(e exporting) {
	db := r.o.Name
	for _, reason := range capture.Reasons() {
		e.send(&metricDiscontinuities, float64(r.source.discontinuities.of(string(reason))), db, string(reason))
	}
	for _, p := range r.replicas {
		replica := p.o.Name
		p.o.Requests.Collect(e.Row, db, replica, e.all)
		e.send(&metricUploaded, float64(p.uploader.Bytes()), db, replica)
		e.send(&metricVerifyFailures, float64(p.drill.failures.Load()), db, replica)
		e.send(&metricSnapshotEvery, p.o.SnapshotEvery.Seconds(), db, replica)
		e.send(&metricVerifyEvery, p.o.VerifyEvery.Seconds(), db, replica)
		s := p.status()
		for i := range replicaGauges {
			g := &replicaGauges[i]
			e.send(&g.Metric, g.value(&s), db, replica)
		}
	}
}

// add exports r from now on; its counters start at zero.
func (m *Metrics) add(r *Replicator) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retire(m.sources[r.o.Name])
	m.sources[r.o.Name] = r // in place of a predecessor that was stopped for it
}

// remove ends the export of a database that is no longer replicated.
func (m *Metrics) remove(r *Replicator) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sources[r.o.Name] == r {
		m.retire(r)
		delete(m.sources, r.o.Name)
	}
}

// retire keeps the request counts of a replicator that ends, so that the counters of
// each replica never go down.
func (m *Metrics) retire(r *Replicator) {
	if r == nil {
		return
	}
	for _, p := range r.replicas {
		m.past.Add(p.o.Name, p.o.Requests)
	}
}
