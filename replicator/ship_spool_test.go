package replicator_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_I9_snapshotOvertakes: a snapshot is stored while earlier commits still wait in the
// spool. Each of them becomes restorable nevertheless, even after a restart.
func TestShip_I9_snapshotOvertakes(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			m := storetest.NewMemory().Enforce(t)
			var held atomic.Bool
			st := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
				if held.Load() && op == "put" && strings.HasPrefix(key, store.LevelPrefix(0)) {
					return storetest.NotStored
				}
				return storetest.None
			})
			h := newHost(t, path, replica("memory.a", st))
			h.options.FinalSync = quick
			h.begin()
			w.commit(3)
			h.synced()
			first := h.r.Replicas()[0].TXID
			held.Store(true)
			for range 3 {
				before := h.r.Replicas()[0].PendingBytes
				w.commit(5)
				h.eventually("another segment in the spool", func() bool {
					h.r.Wake()
					return h.r.Replicas()[0].PendingBytes > before
				})
			}
			h.eventually("a snapshot before them", func() bool { return h.r.SnapshotNow(t.Context()) == nil })
			if restart {
				h.halt()
				held.Store(false)
				h.begin()
			}
			held.Store(false)
			w.commit(2)
			h.eventually("sync", func() bool { return h.sync() == nil })
			last := wantRestored(t, m, path).TXID
			if last < first+4 {
				t.Fatalf("txids %d to %d: the test proves nothing", first, last)
			}
			var gap *catalog.GapError
			for txid := first; txid <= last; txid++ { // not every txid is a state, but none is in a gap
				if _, err := catalog.MakePlan(t.Context(), m, catalog.Target{TXID: txid}); errors.As(err, &gap) {
					t.Errorf("txid %d: %v", txid, err)
				}
			}
			overtook := map[string]bool{}
			for _, key := range m.Keys() {
				if level, _, end, err := store.ParseLTXKey(key); err == nil && level == store.SnapshotLevel && end > first {
					overtook[key] = true
				}
			}
			plan, err := catalog.PlanWithout(t.Context(), m, catalog.Target{}, overtook)
			if err != nil || plan.TXID != last || len(overtook) == 0 {
				t.Errorf("without %v: %v, %v, want txid %d", overtook, plan, err, last)
			}
		})
	}
}
