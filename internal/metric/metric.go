// Package metric describes exported metrics, so that what /metrics says and what the
// reference in docs/metrics.md says come from one list. It carries their series from
// collectors to a scrape, and writes them as text.
package metric

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Type is a metric's Prometheus type.
type Type string

// The metric types in use.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Metric describes one exported metric. Every package that exports metrics
// lists them as Metrics and makes its descriptors from the list, so that the
// reference in docs/metrics.md cannot say anything else than /metrics does.
type Metric struct {
	Name   string
	Type   Type
	Labels []string
	Help   string

	// What is not exported unless all detail is asked for: a series at 0, which tells
	// of something that never happened, or does not hold; and the buckets of a
	// histogram but those with these bounds (none given: all are exported).
	AbsentAtZero bool
	Bounds       []float64
}

// Desc returns the Prometheus descriptor of m.
func (m Metric) Desc() *prometheus.Desc {
	return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
}

// Markdown returns metrics as a table of the metrics reference, in the order
// given.
func Markdown(metrics []Metric) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range metrics {
		labels := "none"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		meaning := strings.ReplaceAll(m.Help, "|", `\|`)
		if m.AbsentAtZero {
			meaning += " *Absent at 0.*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, meaning)
	}
	return b.String()
}

// UpdateReference returns the text of docs/metrics.md with the table of section
// (a package's name) recreated from metrics. Each package that exports metrics
// has a test that does so and compares. An error says that the text has no
// such section.
func UpdateReference(text, section string, metrics []Metric) (string, error) {
	begin, end := "<!-- begin: "+section+" -->\n", "<!-- end: "+section+" -->\n"
	head, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("metrics reference has no line %q", begin)
	}
	_, tail, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("metrics reference has no line %q after %q", end, begin)
	}
	return head + begin + Markdown(metrics) + end + tail, nil
}

// Bool returns the value of a gauge that is 1 while something holds.
func Bool(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// Timestamp returns t as a Unix timestamp in seconds; 0 for the zero time.
func Timestamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
