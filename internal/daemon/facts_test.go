package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Each error that stops capture has its own condition, which depends on the error's type.
func TestErrorsHaveConditions_V3(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for err, want := range map[error]string{capture.ErrSpoolFull: "spool_full", capture.ErrNoRoom: "capture_stopped",
		store.ErrCorrupt: "capture_stopped", capture.ErrCut: "file_cut", sqlite.ErrIndexCut: "index_cut",
		replicator.ErrNotOpen: ""} {
		c := captureOf(0, fmt.Errorf("step: %w", err), now.Add(-time.Hour))
		found := health.OfDatabase(health.Database{Name: "app", Now: now, Sample: &collector.Sample{State: collector.StateUp,
			Capture: c}})
		if want == "" && len(found) != 0 || want != "" && (len(found) != 1 || found[0].ID != want) {
			t.Errorf("%v leads to %v, want %s", err, found, want)
		}
	}
	// A full disk does not pass by itself any sooner than a full spool: it is reported at once,
	// with its cure.
	found := health.OfDatabase(health.Database{Name: "app", Now: now, Sample: &collector.Sample{State: collector.StateUp,
		Capture: captureOf(0, fmt.Errorf("step: %w", capture.ErrNoRoom), now)}})
	if len(found) != 1 || found[0].Severity != health.Critical || !strings.Contains(found[0].Cure, "free space") {
		t.Errorf("a state directory that has just become full: %v", found)
	}
}
