package daemon

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator"
)

// After a panic, replication of a database begins again ten seconds later. In the meantime the
// status says that nothing is captured.
func TestReplicationThatPanicked(t *testing.T) {
	t.Parallel()
	r, err := replicator.New(replicator.Options{Name: "app", StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Files: func() *dbfile.Files { panic("planted by a test") }})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{log: slog.New(slog.DiscardHandler), metrics: watchdog.NewMetrics()}
	if err := d.replicateOnce(t.Context(), r); err == nil {
		t.Fatal("no error of a panic")
	}
	if n := testutil.CollectAndCount(d.metrics, "sqlwatch_database_panics_total"); n != 1 {
		t.Errorf("%d databases with panics are counted, want 1", n)
	}
	_, failure := r.Captured()
	now := time.Now()
	found := health.OfDatabase(health.Database{Name: "app", Now: now, Sample: &collector.Sample{State: collector.StateUp,
		Capture: captureOf(0, failure, now.Add(-time.Minute))}})
	if len(found) != 1 || found[0].ID != "capture_stopped" ||
		!strings.Contains(found[0].What, "fault of sqlwatch: planted") {
		t.Errorf("after a panic: %v", found)
	}
}
