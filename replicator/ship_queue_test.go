package replicator_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_S36_queued: while other databases are read from end to end, a new one waits, reports
// that, and is read as soon as its turn comes. A shutdown does not wait for its turn, and a
// database whose files were closed keeps no place.
func TestShip_S36_queued(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.options.Queue, h.options.FinalSync = queue.New(1), time.Hour
	other := h.options.Queue.Place(nil)
	if !other.Begin(1, true) {
		t.Fatal("the queue has no place at all")
	}
	waits := func() bool {
		other.Advance()
		_, err := h.r.Captured()
		return errors.Is(err, capture.ErrQueued) && strings.Contains(err.Error(), "the first capture waits for its turn")
	}
	h.start()
	h.eventually("it waits", waits)
	h.eventually("its replica's lag is reported", func() bool {
		other.Advance()
		s := h.r.Replicas()[0]
		return s.LagSeconds > 0 && s.CaughtUp.IsZero()
	})
	h.halt()

	h.start()
	h.eventually("it waits", waits)
	h.closeFiles()
	other.End()
	if !other.Begin(1, true) {
		t.Error("a database whose files were closed keeps its turn")
	}
	h.openFiles()
	h.eventually("it waits again", waits)
	synced := make(chan error, 1)
	go func() { synced <- h.sync() }()
	w.commit(5)
	if n := count(st.Keys(), ".ltx"); n > 0 {
		t.Errorf("%d files of a database that waits", n)
	}
	other.End()
	if err := <-synced; err != nil {
		t.Errorf("a sync that was asked for meanwhile: %v", err)
	}
	h.synced()
	wantRestored(t, st, path)
	if _, err := h.r.Captured(); err != nil {
		t.Errorf("Captured, once it was read: %v", err)
	}
	if !other.Begin(1, true) {
		t.Error("it still has its place in the queue")
	}
}
