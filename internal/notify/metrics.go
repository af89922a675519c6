package notify

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

var (
	metricSent = metric.Metric{Name: "sqlwatch_notifications_total", Type: metric.Counter, Labels: []string{"notifier"},
		Help: "Notifications that a notifier has taken."}
	metricFailures = metric.Metric{Name: "sqlwatch_notification_failures_total", Type: metric.Counter,
		Labels: []string{"notifier", "reason"},
		Help: "Notifications that were lost: refused = the notifier will not have them, expired = it did not answer for " +
			"an hour, queue_full = too many were waiting for it, shutdown = it did not answer while sqlwatch ended."}
	metricWaiting = metric.Metric{Name: "sqlwatch_notifications_waiting", Type: metric.Gauge, Labels: []string{"notifier"},
		Help: "Notifications that wait for the notifier; while it does not answer they are tried again for an hour."}
)

var catalogue = []metric.Metric{metricSent, metricFailures, metricWaiting}

// Catalogue returns every metric that Notifiers export.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }

// Why a notification was lost, as metricFailures tells it.
const (
	lostRefused   = "refused"
	lostExpired   = "expired"
	lostQueueFull = "queue_full"
	lostShutdown  = "shutdown"
)

var lostReasons = []string{lostRefused, lostExpired, lostQueueFull, lostShutdown}

// metrics count what became of notifications. Every series of a notifier exists
// from its configuration on.
type metrics struct {
	sent, failures *prometheus.CounterVec
	waiting        *prometheus.Desc
}

func newMetrics() metrics {
	counters := func(m metric.Metric) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
	}
	return metrics{sent: counters(metricSent), failures: counters(metricFailures), waiting: metricWaiting.Desc()}
}

func (m metrics) zero(notifier string) {
	m.sent.WithLabelValues(notifier)
	for _, reason := range lostReasons {
		m.failures.WithLabelValues(notifier, reason)
	}
}

func (m metrics) forget(notifier string) {
	m.sent.DeletePartialMatch(prometheus.Labels{"notifier": notifier})
	m.failures.DeletePartialMatch(prometheus.Labels{"notifier": notifier})
}

// took counts a notification that a notifier has taken.
func (n *Notifiers) took(notifier string) {
	n.count(notifier, func() { n.metrics.sent.WithLabelValues(notifier).Inc() })
}

// lost counts a notification that was lost.
func (n *Notifiers) lost(notifier, reason string) {
	n.count(notifier, func() { n.metrics.failures.WithLabelValues(notifier, reason).Inc() })
}

// count adds to a series, unless its notifier was removed and with it the series.
func (n *Notifiers) count(notifier string, add func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.notifiers[notifier] != nil {
		add()
	}
}

// Describe implements prometheus.Collector.
func (n *Notifiers) Describe(ch chan<- *prometheus.Desc) {
	n.metrics.sent.Describe(ch)
	n.metrics.failures.Describe(ch)
	ch <- n.metrics.waiting
}

// Collect implements prometheus.Collector.
func (n *Notifiers) Collect(ch chan<- prometheus.Metric) {
	n.metrics.sent.Collect(ch)
	n.metrics.failures.Collect(ch)
	n.mu.Lock()
	waiting := make(map[string]int, len(n.notifiers))
	for name, w := range n.notifiers {
		waiting[name] = len(w.queue)
	}
	n.mu.Unlock()
	for name, count := range waiting {
		ch <- prometheus.MustNewConstMetric(n.metrics.waiting, prometheus.GaugeValue, float64(count), name)
	}
}
