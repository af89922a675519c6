package alerts_test

import (
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/metrics.md")

// docs/metrics.md describes what the code exports: every section of it is generated from
// the descriptions in the code, in their order.
func TestMetricsReferenceIsInStep(t *testing.T) {
	const name = "../docs/metrics.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	sections := 0
	for section, metrics := range map[string][]metric.Metric{
		"collector":  collector.Catalogue(),
		"watchdog":   watchdog.Catalogue(),
		"health":     health.Catalogue(),
		"notify":     notify.Catalogue(),
		"replicator": replicator.Catalogue(),
	} {
		if want, err = metric.UpdateReference(want, section, metrics); err != nil {
			t.Fatal(err)
		}
		sections++
	}
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what the code exports; go test ./alerts -update rewrites it", name)
	}
	if n := strings.Count(want, "<!-- begin: "); n != sections {
		t.Errorf("%s has %d sections, %d are written from code", name, n, sections)
	}
}

// collectors returns all collectors that the daemon exports.
func collectors() []prometheus.Collector {
	return []prometheus.Collector{
		collector.NewExporter(func() []*collector.Sample { return nil }),
		watchdog.NewMetrics(),
		health.NewBoard(),
		notify.New(slog.New(slog.DiscardHandler)),
		replicator.NewMetrics(),
	}
}
