package watchdog

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The metrics of this package, in the order of the reference.
var (
	metricCheckpoints = metric.Metric{Name: "sqlwatch_checkpoints_total", Type: metric.Counter,
		Labels: []string{"db", "mode"},
		Help:   "Checkpoints that sqlwatch began, or refrained from after looking."}
	metricCheckpointFailures = metric.Metric{Name: "sqlwatch_checkpoint_failures_total", Type: metric.Counter,
		Labels: []string{"db", "mode", "reason"},
		Help: "Checkpoints that did not do what their mode asks for: busy = the write lock was taken, pinned = a reader " +
			"was in the way, contended = another checkpointer was at work, stall_budget = it would have held writers up for " +
			"too long, io = an error.", AbsentAtZero: true}
	metricCheckpointDuration = metric.Metric{Name: "sqlwatch_checkpoint_duration_seconds", Type: metric.Histogram,
		Labels: []string{"db", "mode"},
		Help:   "How long checkpoints took.", AbsentAtZero: true, Bounds: []float64{0.01, 0.1, 1}}
	metricWriterStall = metric.Metric{Name: "sqlwatch_writer_stall_seconds", Type: metric.Histogram,
		Labels:       []string{"db", "mode"},
		Help:         "How long checkpoints kept transactions of others waiting.",
		AbsentAtZero: true, Bounds: []float64{0.05, 0.2, 1}}
	metricReclaimed = metric.Metric{Name: "sqlwatch_checkpoint_reclaimed_bytes_total", Type: metric.Counter,
		Labels: []string{"db"},
		Help:   "Bytes of WAL files given back to the file system."}
	metricPolicyState = metric.Metric{Name: "sqlwatch_policy_state", Type: metric.Gauge,
		Labels: []string{"db", "policy", "state"},
		Help:   "1 for the state that the policy is in for the database, 0 for the others.", AbsentAtZero: true}
	metricPolicyActions = metric.Metric{Name: "sqlwatch_policy_actions_total", Type: metric.Counter,
		Labels: []string{"db", "policy", "action"},
		Help:   "Actions that policies began."}
	metricPolicyFailures = metric.Metric{Name: "sqlwatch_policy_action_failures_total", Type: metric.Counter,
		Labels: []string{"db", "policy", "action"},
		Help:   "Actions of policies that did not reach their end.", AbsentAtZero: true}
	metricPolicyRefusals = metric.Metric{Name: "sqlwatch_policy_refusals_total", Type: metric.Counter,
		Labels:       []string{"db", "policy", "guard"},
		Help:         "Times a guard began to keep a policy from acting; a refusal that lasts is one.",
		AbsentAtZero: true}
	metricWindowOpen = metric.Metric{Name: "sqlwatch_policy_window_open", Type: metric.Gauge,
		Labels: []string{"db", "window"},
		Help:   "1 while the window is open."}
	metricTuned = metric.Metric{Name: "sqlwatch_tuned_value", Type: metric.Gauge,
		Labels: []string{"db", "policy", "parameter"},
		Help: "What a policy's tune block suggests for its parameter, in base units; it is in force where the block says " +
			"so."}
	metricPaused = metric.Metric{Name: "sqlwatch_policy_paused", Type: metric.Gauge, Labels: []string{"db"},
		Help: "1 while an operator has paused the actions of all policies for the database.", AbsentAtZero: true}
	metricPanics = metric.Metric{Name: "sqlwatch_database_panics_total", Type: metric.Counter, Labels: []string{"db"},
		Help:         "Faults of sqlwatch itself while it was at work for the database; what was at work began anew.",
		AbsentAtZero: true}
	metricReloadSuccessful = metric.Metric{Name: "sqlwatch_config_last_reload_successful", Type: metric.Gauge,
		Help: "1 if the last attempt to load the configuration succeeded; 0 if the one before it is still in force."}
	metricReloadTime = metric.Metric{Name: "sqlwatch_config_last_reload_success_timestamp_seconds", Type: metric.Gauge,
		Help: "When a configuration was last loaded with success."}
	metricBuildInfo = metric.Metric{Name: "sqlwatch_build_info", Type: metric.Gauge, Labels: []string{"version", "commit",
		"goversion", "sqlite_version"},
		Help: "Always 1: what this process was built from."}
)

var catalogue = []metric.Metric{
	metricCheckpoints, metricCheckpointFailures, metricCheckpointDuration, metricWriterStall, metricReclaimed,
	metricPolicyState, metricPolicyActions, metricPolicyFailures, metricPolicyRefusals, metricWindowOpen, metricTuned,
	metricPaused,
	metricPanics, metricReloadSuccessful, metricReloadTime, metricBuildInfo,
}

// Catalogue returns every metric that Metrics exports.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }

// The upper bounds of the histograms' buckets. Those of the writer stall are dense in the
// range of usual stall budgets.
var (
	durationBuckets = []float64{0.001, 0.01, 0.05, 0.1, 0.25, 1, 5, 30}
	stallBuckets    = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1}
)

var modes = []sqlite.Mode{sqlite.Passive, sqlite.Truncate}

// failureReasons maps each outcome that counts as a failure to its label; shortened is not one.
var failureReasons = map[sqlite.Outcome]string{
	sqlite.OutcomeWriterBusy:  "busy",
	sqlite.OutcomePinned:      "pinned",
	sqlite.OutcomeNotReset:    "pinned",
	sqlite.OutcomeContended:   "contended",
	sqlite.OutcomeBudgetSpent: "stall_budget",
	sqlite.OutcomeFailed:      "io",
	sqlite.OutcomeNotWAL:      "io",
}

// refusedLocks maps an outcome to the lock that another process refused us.
var refusedLocks = map[sqlite.Outcome]collector.Lock{
	sqlite.OutcomeWriterBusy: collector.LockRead, // a freeze asks for these, hardly ever for WRITE
	sqlite.OutcomeContended:  collector.LockCheckpoint,
	sqlite.OutcomeNotReset:   collector.LockRead,
}

// Metrics counts what the loop does. The series of a database exist, at zero, from the
// moment it is watched until a reload removes it. Those that are AbsentAtZero appear when
// something happens.
type Metrics struct {
	// Detail makes the AbsentAtZero series exist from the start too. Set it before the first
	// database is watched.
	Detail bool

	checkpoints, checkpointFailures, reclaimed    *prometheus.CounterVec
	policyActions, policyFailures, policyRefusals *prometheus.CounterVec
	panics                                        *prometheus.CounterVec
	checkpointDuration, writerStall               *prometheus.HistogramVec
	policyState, windowOpen, tuned, paused        *prometheus.GaugeVec
	buildInfo, reloadSuccessful, reloadTime       *prometheus.GaugeVec
}

// NewMetrics returns Metrics that count from zero.
func NewMetrics() *Metrics {
	return &Metrics{
		checkpoints:        counters(metricCheckpoints),
		checkpointFailures: counters(metricCheckpointFailures),
		checkpointDuration: histograms(metricCheckpointDuration, durationBuckets),
		writerStall:        histograms(metricWriterStall, stallBuckets),
		reclaimed:          counters(metricReclaimed),
		policyState:        gauges(metricPolicyState),
		policyActions:      counters(metricPolicyActions),
		policyFailures:     counters(metricPolicyFailures),
		policyRefusals:     counters(metricPolicyRefusals),
		windowOpen:         gauges(metricWindowOpen),
		tuned:              gauges(metricTuned),
		paused:             gauges(metricPaused),
		panics:             counters(metricPanics),
		reloadSuccessful:   gauges(metricReloadSuccessful),
		reloadTime:         gauges(metricReloadTime),
		buildInfo:          gauges(metricBuildInfo),
	}
}

func counters(m metric.Metric) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
}

func gauges(m metric.Metric) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels)
}

func histograms(m metric.Metric, buckets []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.2, NativeHistogramMaxBucketNumber: 60, NativeHistogramMinResetDuration: time.Hour,
	}, m.Labels)
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.checkpoints, m.checkpointFailures, m.checkpointDuration, m.writerStall, m.reclaimed,
		m.policyState, m.policyActions, m.policyFailures, m.policyRefusals, m.windowOpen, m.tuned, m.paused,
		m.panics, m.reloadSuccessful, m.reloadTime, m.buildInfo}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

// Built exports what this process was built from.
func (m *Metrics) Built(version, commit, goVersion, sqliteVersion string) {
	m.buildInfo.WithLabelValues(version, commit, goVersion, sqliteVersion).Set(1)
}

// Reloaded exports how the attempt to load a configuration ended.
func (m *Metrics) Reloaded(at time.Time, err error) {
	if err != nil {
		m.reloadSuccessful.WithLabelValues().Set(0)
		return
	}
	m.reloadSuccessful.WithLabelValues().Set(1)
	m.reloadTime.WithLabelValues().Set(metric.Timestamp(at))
}

// Panicked counts a fault of sqlwatch in something done for a database.
func (m *Metrics) Panicked(db string) { m.panics.WithLabelValues(db).Inc() }

// zero creates the series of a database, except, without Detail, those of events that seldom
// happen. With a thousand databases those were more than all others together, and each scrape
// built them only to leave them out.
func (m *Metrics) zero(db string, labels map[string]string, policies *policy.Set) {
	for _, mode := range modes {
		m.checkpoints.WithLabelValues(db, mode.String())
	}
	m.reclaimed.WithLabelValues(db)
	if m.Detail {
		m.zeroDetail(db)
	}
	for _, p := range policies.Policies {
		if p.AppliesTo(db, labels) {
			m.zeroPolicy(db, p, policies.DryRun)
		}
	}
}

// zeroDetail creates the AbsentAtZero series of a database.
func (m *Metrics) zeroDetail(db string) {
	for _, mode := range modes {
		m.checkpointDuration.WithLabelValues(db, mode.String())
		for _, reason := range failureReasons {
			m.checkpointFailures.WithLabelValues(db, mode.String(), reason)
		}
	}
	m.writerStall.WithLabelValues(db, sqlite.Truncate.String()) // PASSIVE never holds the write lock
	m.panics.WithLabelValues(db)
	m.paused.WithLabelValues(db)
}

// forgetPolicies drops the series of policies and windows that no longer exist.
func (m *Metrics) forgetPolicies(before, now *policy.Set) {
	for _, p := range before.Policies {
		if now.Named(p.Name) == nil {
			deleteAll(prometheus.Labels{"policy": p.Name}, m.policyState, m.policyActions, m.policyFailures, m.policyRefusals,
				m.tuned)
		}
	}
	for name := range before.Windows {
		if now.Windows[name] == nil {
			deleteAll(prometheus.Labels{"window": name}, m.windowOpen)
		}
	}
}

// forget drops every series of a database.
func (m *Metrics) forget(db string) {
	deleteAll(prometheus.Labels{"db": db}, m.policyState, m.policyActions, m.policyFailures, m.policyRefusals,
		m.windowOpen, m.tuned,
		m.checkpoints, m.checkpointFailures, m.checkpointDuration, m.writerStall, m.reclaimed, m.paused, m.panics)
}

func deleteAll(match prometheus.Labels, vecs ...interface {
	DeletePartialMatch(prometheus.Labels) int
}) {
	for _, vec := range vecs {
		vec.DeletePartialMatch(match)
	}
}

// checkpoint counts one checkpoint's result.
func (m *Metrics) checkpoint(db string, r sqlite.Result) {
	mode := r.Mode.String()
	m.checkpoints.WithLabelValues(db, mode).Inc()
	if reason, failed := failureReasons[r.Outcome]; failed {
		m.checkpointFailures.WithLabelValues(db, mode, reason).Inc()
	}
	m.checkpointDuration.WithLabelValues(db, mode).Observe(r.Duration.Seconds())
	if r.WriterStall > 0 {
		m.writerStall.WithLabelValues(db, mode).Observe(r.WriterStall.Seconds())
	}
	if r.Reclaimed > 0 {
		m.reclaimed.WithLabelValues(db).Add(float64(r.Reclaimed))
	}
}

// phase moves the one-hot state of a policy.
func (m *Metrics) phase(db, name string, was, now policy.Phase) {
	if was != "" {
		m.policyState.WithLabelValues(db, name, string(was)).Set(0)
	}
	m.policyState.WithLabelValues(db, name, string(now)).Set(1)
}

// zeroPolicy creates the series of one policy.
func (m *Metrics) zeroPolicy(db string, p *policy.Policy, dryRun bool) {
	for _, t := range p.Tunes {
		m.tuned.WithLabelValues(db, p.Name, t.Name).Set(t.Start)
	}
	m.policyActions.WithLabelValues(db, p.Name, string(p.Kind))
	if !m.Detail {
		return
	}
	for _, phase := range policy.Phases() {
		m.policyState.WithLabelValues(db, p.Name, string(phase))
	}
	for _, guard := range policy.Guards() {
		if canRefuse(p, guard, dryRun || p.DryRun) {
			m.policyRefusals.WithLabelValues(db, p.Name, string(guard))
		}
	}
	m.policyFailures.WithLabelValues(db, p.Name, string(p.Kind))
}

// canRefuse reports whether a guard can ever refuse this policy. A guard that cannot has no
// series: a thousand databases have enough of them.
func canRefuse(p *policy.Policy, guard policy.Guard, dryRun bool) bool {
	switch guard {
	case policy.GuardMode:
		return dryRun
	case policy.GuardHoldOff:
		return p.HoldOff > 0
	case policy.GuardReader, policy.GuardStall:
		return p.Ladder != nil && p.Ladder.Truncates()
	}
	return true
}
