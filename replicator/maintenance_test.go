package replicator_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_S1_failedMaintenance: the status tells of a scheduled snapshot or drill that failed until the next attempt,
// and of a look at the store that failed until one succeeds, which is soon.
func TestShip_S1_failedMaintenance(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(op, key string) bool{
		"snapshot": func(op, key string) bool { return op == "put" && strings.HasPrefix(key, "0009/") },
		"drill":    func(op, key string) bool { return op == "get" && strings.HasPrefix(key, "0009/") },
		"look":     func(op, key string) bool { return op == "get" && strings.HasPrefix(key, "0009/") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			st := storetest.NewMemory().Enforce(t)
			var failing atomic.Bool
			o := replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
				if failing.Load() && fails(op, key) {
					return storetest.NotStored
				}
				return storetest.None
			}))
			o.SnapshotEvery, o.FullEvery = 1000*time.Hour, 1000*time.Hour
			switch name {
			case "snapshot":
				o.SnapshotEvery, o.FullEvery = 2*time.Hour, 2*time.Hour
			case "drill":
				o.VerifyEvery = 2 * time.Hour
			}
			h := newHost(t, path, o)
			st.SetClock(h.clock)
			h.begin()
			h.commits(w, 3, 2)
			failing.Store(true)
			hindrance := func() string { return h.r.Replicas()[0].MaintenanceErr }
			h.skew.Add(int64(3 * time.Hour))
			step := func() {
				h.skew.Add(int64(time.Second))
				w.commit(1)
				h.r.Wake()
			}
			h.eventually("it is told", func() bool { step(); return hindrance() != "" })
			for range 20 {
				h.skew.Add(int64(3 * time.Second))
				if step(); hindrance() == "" {
					t.Fatal("the last attempt failed, and the status tells nothing")
				}
				h.pass(quick)
			}
			failing.Store(false)
			if name != "look" {
				h.skew.Add(int64(15 * time.Minute)) // the next attempt
			}
			before := h.clock()
			h.eventually("all is well", func() bool { step(); return hindrance() == "" })
			if took := h.clock().Sub(before); took > 20*time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}
