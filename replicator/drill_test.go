package replicator_test

import (
	"errors"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_drillBeforeTheFirstSnapshot: a drill on demand right after the first start waits until
// there is something to restore, and does not count as failed until then. The log reports only the
// first of several drills that pass in a row.
func TestShip_drillBeforeTheFirstSnapshot(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	w.commit(3)
	h := newHost(t, path, replica("memory.a", storetest.NewMemory().Enforce(t)))
	h.start()
	h.eventually("a drill", func() bool {
		err := h.r.VerifyNow(t.Context())
		if err != nil && !errors.Is(err, replicator.ErrNotOpen) {
			t.Fatal(err)
		}
		return err == nil
	})
	if s := h.r.Replicas()[0]; s.LastVerified.IsZero() || s.DrillErr != "" {
		t.Errorf("after a drill: %+v", s)
	}
	for range 2 {
		if err := h.r.VerifyNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.passed.Load(); n != 1 {
		t.Errorf("the log says %d times that a drill passed, want once", n)
	}
}
