package replicator_test

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// flip changes one bit of a stored object.
func flip(st *storetest.Memory, key string) {
	st.Tamper(key, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
}

// last returns the last key that begins with prefix.
func last(t *testing.T, st *storetest.Memory, prefix string) (key string) {
	t.Helper()
	for _, k := range st.Keys() {
		if strings.HasPrefix(k, prefix) {
			key = k
		}
	}
	if key == "" {
		t.Fatalf("nothing begins with %q", prefix)
	}
	return key
}

// TestShip_S16_corruptBase: a drill passes without a snapshot that is corrupt, by the one before it. Another snapshot
// is stored at once, and retention deletes nothing because of the corrupt one: every promised restore point stays.
func TestShip_S16_corruptBase(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.Retention = replicator.RetentionOptions{Keep: 10 * time.Hour, Grace: time.Minute}
	o.SnapshotEvery = 1000 * time.Hour
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.begin()
	commit := func() ltx.TXID {
		t.Helper()
		w.commit(2)
		h.synced()
		return h.r.Replicas()[0].TXID
	}
	pass := func(hours int) {
		t.Helper()
		for range 2 * hours {
			h.skew.Add(int64(30 * time.Minute))
			commit()
		}
	}
	commit()
	if err := h.r.SnapshotNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	flip(st, last(t, st, "0009/"))
	pass(3)
	promised, then := commit(), dump(t, path)
	pass(3)
	verify := func() {
		t.Helper()
		if err := h.r.VerifyNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	verify()
	h.eventually("another snapshot", func() bool { return h.sync() == nil && count(st.Keys(), "0009/") == 3 })
	commit()
	verify() // the chain before the corrupt snapshot is no longer the one that a drill has verified
	pass(9)
	out := filepath.Join(t.TempDir(), "then.db")
	target := catalog.Target{TXID: promised}
	if _, err := restore.Run(t.Context(), st, restore.Options{Output: out, Target: target}); err != nil {
		t.Fatalf("a restore point of 9 hours ago: %v", err)
	}
	if got := dump(t, out); got != then {
		t.Errorf("restored %q, want %q", got, then)
	}
	pass(9)
	h.eventually("the newest snapshot is the only one left", func() bool { // retention works beside the commits
		pass(1)
		return count(st.Keys(), "0009/") == 1
	})
}

// TestShip_S16_lostOverRestart: sqlwatch ends after it has found a lost file, and before the snapshot that makes it
// good is stored. A sync after the start does not succeed before the newest state can be restored.
func TestShip_S16_lostOverRestart(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var refuse atomic.Bool
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
		if op == "put" && strings.HasPrefix(key, "0009/") && refuse.Load() {
			return storetest.NotStored
		}
		return storetest.None
	})))
	h.options.FinalSync = quick
	h.begin()
	h.commits(w, 5, 3)
	flip(st, captured(st)[2])
	h.unkeep()
	refuse.Store(true)
	h.eventually("the lost file is found", func() bool {
		h.skew.Add(int64(10 * time.Second))
		w.commit(1)
		h.r.Wake()
		return h.r.Replicas()[0].LostFiles > 0
	})
	h.halt()
	refuse.Store(false)
	h.begin()
	wantRestored(t, st, path)
}
