package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// What keeps a replica back or stops capture leads to its own condition, by the
// error's type.
func TestErrorsHaveConditions_V3(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for want, err := range map[string]error{
		"replica_fenced": lease.ErrFenced, "replica_held": lease.ErrHeld, "replica_foreign": replicator.ErrForeign,
		"replica_auth_failed": store.ErrAuth, "replica_misplaced": store.ErrMisplaced, "replica_unavailable": store.ErrUnavailable,
		"replica_failing": store.ErrDamaged,
	} {
		r := collector.Replica{Name: "s3.main", Err: "x", Reason: reasonOf(fmt.Errorf("put: %w", err)), FailingSince: now, CaughtUp: now}
		found := health.OfDatabase(health.Database{Name: "app", Now: now, Sample: &collector.Sample{State: collector.StateUp, Replicas: []collector.Replica{r}}})
		if len(found) != 1 || found[0].ID != want || found[0].Subject != "s3.main" {
			t.Errorf("%v leads to %v, want %s", err, found, want)
		}
	}
	for want, err := range map[string]error{"spool_full": capture.ErrSpoolFull, "capture_stopped": store.ErrDamaged, "": replicator.ErrNotOpen} {
		c := captureOf(0, fmt.Errorf("step: %w", err), now.Add(-time.Hour))
		found := health.OfDatabase(health.Database{Name: "app", Now: now, Sample: &collector.Sample{State: collector.StateUp, Capture: c}})
		if want == "" && len(found) != 0 || want != "" && (len(found) != 1 || found[0].ID != want) {
			t.Errorf("%v leads to %v, want %s", err, found, want)
		}
	}
}
