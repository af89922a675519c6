package replicator_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/fault"
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

// TestVerify_P18_panic: a bug that the files of one replica bring out ends neither the program nor the drill of
// another, wherever in the drill it is.
func TestVerify_P18_panic(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var left atomic.Int32 // calls until one panics; 0 or less: none does
	faulty := storetest.NewFaulty(storetest.NewMemory().Enforce(t), func(string, string, int) storetest.Fault {
		if left.Add(-1) == 0 {
			panic("a fault")
		}
		return storetest.None
	})
	h := newHost(t, path, replica("memory.a", faulty), replica("memory.b", storetest.NewMemory().Enforce(t)))
	h.begin()
	w.commit(3)
	h.synced()
	for call := int32(1); ; call++ {
		before := h.r.Replicas()[1].LastVerified
		left.Store(call)
		err := h.r.VerifyNow(t.Context())
		if left.Swap(0) > 0 { // the drill makes fewer calls
			if err != nil || call == 1 {
				t.Errorf("after %d panics: %v", call-1, err)
			}
			return
		}
		var bug *fault.Error
		if !errors.As(err, &bug) || !h.r.Replicas()[1].LastVerified.After(before) {
			t.Errorf("call %d: %v; the other replica: %+v", call, err, h.r.Replicas()[1])
		}
	}
}
