package replicator_test

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_P3_outstay: application and sqlwatch are told to end at the same moment. sqlwatch
// captures and stores what the application still commits while it drains, and ends only once the
// application is idle.
func TestShip_P3_outstay(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.options.Outstay = func() bool { return true }
	h.options.FinalSync = 30 * time.Second
	h.begin()
	w.commit(20)
	began, drained := time.Now(), make(chan time.Duration)
	go func() {
		for time.Since(began) < 2*time.Second {
			w.commit(3)
			time.Sleep(20 * time.Millisecond)
		}
		drained <- time.Since(began)
	}()
	h.halt()
	left := time.Since(began)
	select {
	case took := <-drained:
		t.Logf("the application drained for %v, sqlwatch stayed for %v", took, left)
	default:
		<-drained
		t.Errorf("sqlwatch left after %v, before the application", left)
	}
	wantRestored(t, st, path)
}

// TestShip_P3_leavesAtOnce: if Outstay returns false, sqlwatch ends at once, after it has stored
// what was committed before.
func TestShip_P3_leavesAtOnce(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.options.Outstay = func() bool { return false } // as when only sqlwatch is restarted
	h.begin()
	w.commit(20)
	h.halt()
	wantRestored(t, st, path)
}
