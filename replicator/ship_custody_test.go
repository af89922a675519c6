package replicator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_P9_nothingIsOld: the machine's clock is two months ahead of the store's. Nothing is
// deleted, however long that lasts.
func TestShip_P9_nothingIsOld(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	h.commits(w, 4, 3)
	before := st.Keys()
	h.skew.Store(int64(60 * 24 * time.Hour))
	asked := 0
	h.eventually("retention asks for the store's time", func() bool {
		h.skew.Add(int64(20 * time.Minute))
		w.commit(1)
		if h.sync() != nil {
			return false
		}
		if _, clock, err := st.Get(t.Context(), "sqlwatch/clock", 0, 0); err == nil &&
			clock.Modified.After(time.Now().Add(-time.Hour)) {
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

// TestShip_S16_baseExpired: a lifecycle rule removed the snapshot that the newest state needs. The
// regular check notices it, and another one is taken.
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
	h.synced()
	if err := st.Delete(t.Context(), store.LTXKey(store.SnapshotLevel, 1, 1)); err != nil {
		t.Fatal(err)
	}
	before := h.r.Replicas()[0].TXID
	w.commit(1)
	h.eventually("a commit is stored", func() bool { return h.r.Replicas()[0].TXID > before })
	if n := count(st.Keys(), "0009/"); n != 0 {
		t.Fatalf("%d snapshots before the regular check, want none", n)
	}
	h.skew.Add(int64(25 * time.Hour))
	h.eventually("another snapshot", func() bool {
		h.skew.Add(int64(10 * time.Second))
		w.commit(1)
		return count(st.Keys(), "0009/") > 0
	})
	h.synced()
	wantRestored(t, st, path)
}

// TestShip_R24_litestream03: sqlwatch does not write to a replica of Litestream 0.3 unless told to,
// and its files stay.
func TestShip_R24_litestream03(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	const theirs = "generations/0123456789abcdef/snapshots/00000000.snapshot.lz4"
	if _, err := st.Put(t.Context(), theirs, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	o := replica("memory.a", st)
	h := newHost(t, path, o)
	h.start()
	h.eventually("refused", func() bool { return strings.Contains(h.r.Replicas()[0].Err, "--adopt") })
	if keys := st.Keys(); len(keys) != 1 {
		t.Errorf("something was written to the replica: %q", keys)
	}
	h.halt()
	o.Adopt = true
	h.options.Replicas[0] = o
	h.begin()
	w.commit(1)
	h.synced()
	if !slices.Contains(st.Keys(), theirs) {
		t.Error("Litestream's file is gone")
	}
}

// TestShip_S10_shortListing: a store leaves the newest files out of its listings. A drill
// does not take the older state for the newest.
func TestShip_S10_shortListing(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	h.commits(w, 3, 1)
	if err := h.r.VerifyNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	txid := h.r.Replicas()[0].TXID
	if err := st.Delete(t.Context(), store.LTXKey(0, txid, txid)); err != nil {
		t.Fatal(err)
	}
	var gap *catalog.GapError
	if err := h.r.VerifyNow(t.Context()); !errors.As(err, &gap) || gap.To != txid {
		t.Errorf("%v, want a gap up to %d", err, txid)
	}
}
