package replicator_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// failing returns a store in memory whose calls of one kind, or all if kind is "", fail while off
// is set.
func failing(t *testing.T, off *atomic.Bool, kind string) (*storetest.Memory, *storetest.Faulty) {
	m := storetest.NewMemory().Enforce(t)
	return m, storetest.NewFaulty(m, func(op, _ string, _ int) storetest.Fault {
		if off.Load() && (kind == "" || kind == op) {
			return storetest.NotStored
		}
		return storetest.None
	})
}

// TestShip_P12_stateLostInProcess: capture starts over without its state while the store is
// unreachable, in a process that has examined the replica before. No sync succeeds without the
// store, and later files join the replica correctly.
func TestShip_P12_stateLostInProcess(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var away atomic.Bool
	store, faulty := failing(t, &away, "")
	h := newHost(t, path, replica("memory.a", faulty))
	h.begin()
	h.commits(w, 8, 1)
	away.Store(true)
	h.reopen()
	w.commit(5)
	synced := make(chan error, 1)
	go func() {
		err := h.sync()
		for errors.Is(err, replicator.ErrNotOpen) {
			err = h.sync()
		}
		synced <- err
	}()
	select {
	case err := <-synced:
		if err == nil {
			t.Error("a sync succeeded without a store")
		}
	case <-time.After(time.Second): // it waits, as it should
	}
	away.Store(false)
	for range 12 {
		w.commit(1)
		h.eventually("sync", func() bool { return h.sync() == nil })
	}
	wantRestored(t, store, path)
}

// TestShip_S26_segmentGone: a segment that was removed from the spool is replaced by a snapshot.
// One snapshot is enough, even if later segments wait behind the missing one.
func TestShip_S26_segmentGone(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var away atomic.Bool
	store, err := file.New(filepath.Join(t.TempDir(), "copy")) // this store opens a body before it checks the context
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, path, replica("file.a", storetest.NewFaulty(store, func(op, _ string, _ int) storetest.Fault {
		if away.Load() && op == "put" {
			return storetest.NotStored
		}
		return storetest.None
	})))
	h.begin()
	away.Store(true)
	pending := func() int64 { return h.r.Replicas()[0].PendingBytes }
	var before int64
	for range 3 {
		w.commit(1)
		h.eventually("another segment in the spool", func() bool { h.r.Wake(); return pending() > before })
		before = pending()
	}
	names, err := filepath.Glob(filepath.Join(h.state, "capture", "spool", "*.ltx"))
	if err != nil || len(names) < 3 {
		t.Fatalf("the spool has %v, want three segments; %v", names, err)
	}
	if err := os.Remove(names[len(names)-3]); err != nil { // the first that the replica lacks
		t.Fatal(err)
	}
	away.Store(false)
	h.eventually("sync", func() bool { return h.sync() == nil })
	wantRestored(t, store, path)
	w.commit(1)
	h.eventually("sync of what comes after the snapshot", func() bool { return h.sync() == nil })
	wantRestored(t, store, path)
}

// TestShip_S1_failingUploadsAreNoHealth: a replica of which every upload fails does not count as
// healthy between two attempts.
func TestShip_S1_failingUploadsAreNoHealth(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var away atomic.Bool
	_, faulty := failing(t, &away, "put")
	a := replica("memory.a", faulty)
	a.SyncEvery = 2 * time.Second
	h := newHost(t, path, a)
	h.begin()
	away.Store(true)
	w.commit(3)
	h.eventually("a failure", func() bool { h.r.Wake(); return !h.r.Replicas()[0].Healthy })
	before := faulty.Injected(storetest.NotStored)
	h.eventually("further failures", func() bool {
		if s := h.r.Replicas()[0]; s.Healthy {
			t.Fatalf("healthy while every upload fails: %+v", s)
		}
		return faulty.Injected(storetest.NotStored) > before+3
	})
}
