package replicator_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_P9_nothingIsOld: the machine's clock is two months ahead, the store's is
// right. Nothing is deleted, however long that lasts.
func TestShip_P9_nothingIsOld(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	for range 4 {
		w.commit(3)
		if err := h.sync(); err != nil {
			t.Fatal(err)
		}
	}
	before := st.Keys()
	h.skew.Store(int64(60 * 24 * time.Hour))
	asked := 0
	h.eventually("retention asks for the store's time", func() bool {
		h.skew.Add(int64(20 * time.Minute))
		w.commit(1)
		if h.sync() != nil {
			return false
		}
		if _, clock, err := st.Get(t.Context(), "sqlwatch/clock", 0, 0); err == nil && clock.Modified.After(time.Now().Add(-time.Hour)) {
			asked++
		}
		return asked > 10
	})
	for _, key := range before {
		if !slices.Contains(st.Keys(), key) {
			t.Errorf("%s was deleted", key)
		}
	}
	wantRestored(t, st, path)
}

// TestShip_S16_baseExpired: a lifecycle rule removed the snapshot on which the newest
// state rests. A look a day finds it, and another one is taken.
func TestShip_S16_baseExpired(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.SnapshotEvery = 1000 * time.Hour
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.begin()
	w.commit(3)
	if err := h.sync(); err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), store.LTXKey(store.SnapshotLevel, 1, 1)); err != nil {
		t.Fatal(err)
	}
	w.commit(1)
	if err := h.sync(); err != nil {
		t.Fatal(err)
	}
	if n := count(st.Keys(), "0009/"); n != 0 {
		t.Fatalf("%d snapshots before anybody looked", n)
	}
	h.skew.Add(int64(25 * time.Hour))
	h.eventually("another snapshot", func() bool {
		h.skew.Add(int64(10 * time.Second))
		w.commit(1)
		return h.sync() == nil && count(st.Keys(), "0009/") > 0
	})
	wantRestored(t, st, path)
}
