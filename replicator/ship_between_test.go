package replicator_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_R21_betweenChains: the state directory of a large database is lost while the replica
// cannot be read, and the application keeps committing; then an old state directory is brought
// back, and lost too. The first states of each new chain are in no file. That makes no gap: a
// moment between two chains is answered with the older state and a doubt, or refused if the
// caller wants an exact state.
func TestShip_R21_betweenChains(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var down, late atomic.Bool
	var refused atomic.Int32
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
		whole := late.Load() && op == "put" && strings.HasPrefix(key, store.LevelPrefix(store.SnapshotLevel))
		if whole {
			refused.Add(1)
		}
		if whole || down.Load() {
			return storetest.NotStored
		}
		return storetest.None
	})))
	h.options.FinalSync, h.options.Capture.BatchAge = quick, quick
	h.options.Capture.StageLimit = 1 // too little for the first capture, so replicas read the database itself
	h.begin()
	h.commits(w, 3, 1)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(h.state)); err != nil {
		t.Fatal(err)
	}
	since := h.clock()
	spooled := func() int {
		names, _ := filepath.Glob(filepath.Join(h.state, "capture", "spool", "*.ltx"))
		return len(names)
	}
	more := func(n int) {
		t.Helper()
		h.eventually("more is captured", func() bool { w.commit(1); h.r.Wake(); return spooled() >= n })
	}
	// begun waits for a new chain whose first file has a later state than the first one captured.
	begun := func() {
		t.Helper()
		refused.Store(0)
		late.Store(true)
		down.Store(false)
		h.eventually("a snapshot is about to be stored", func() bool { h.r.Wake(); return refused.Load() > 0 })
		more(spooled() + 1)
		late.Store(false)
		h.eventually("sync", func() bool { return h.sync() == nil })
	}
	// again restarts with another state directory, or with none if state is "".
	again := func(state string) {
		t.Helper()
		h.halt()
		err := os.RemoveAll(h.state)
		if state != "" {
			err = errors.Join(err, os.CopyFS(h.state, os.DirFS(state)))
		}
		if err != nil {
			t.Fatal(err)
		}
		h.start()
	}
	for _, n := range []int{1, 30} { // fewer segments than the replica has, and more
		down.Store(true)
		again("")
		more(n)
		begun()
	}
	for _, state := range []string{old, ""} {
		w.commit(5)
		again(state)
		begun()
	}
	h.commits(w, 2, 1)
	end := wantRestored(t, st, path).Timestamp
	jumps := 0
	snapshots, _, err := catalog.Snapshots(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range snapshots {
		if _, object, err := st.Get(t.Context(), f.Object.Key, 0, 0); err != nil {
			t.Fatal(err)
		} else if after := object.Metadata[store.MetaAfter]; after != "" {
			t.Logf("%s follows %s", f.Object.Key, after)
			jumps++
		}
	}
	if jumps < 2 {
		t.Fatalf("only %d chains have their first states in no file: the test proves nothing", jumps)
	}
	between := 0
	for at := since; at.Before(end); at = at.Add(soon) {
		plan, err := catalog.MakePlan(t.Context(), st, catalog.Target{Timestamp: at})
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if plan.Next == nil || plan.Next.TXID == plan.TXID+1 || at.Sub(plan.Time()) <= 3*soon {
			continue
		}
		if between++; plan.Doubt(3*soon, time.Now()) == nil {
			t.Errorf("%s: txid %d, before %d, without a doubt", at, plan.TXID, plan.Next.TXID)
		}
	}
	if between == 0 {
		t.Error("no moment was between two chains")
	}
}
