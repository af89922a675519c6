package replicator_test

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_P8_clockApart: nothing is deleted while the clocks differ, and the status says so for as long as that lasts,
// not only until the next file is merged.
func TestShip_P8_clockApart(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory()
	o := replica("memory.a", st)
	o.Retention = replicator.RetentionOptions{Keep: time.Hour, Grace: time.Hour}
	h := newHost(t, path, o)
	h.begin()
	h.commits(w, 3, 2)
	if err := h.r.SnapshotNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	hindrance := func() string { return h.r.Replicas()[0].MaintenanceErr }
	h.eventually("it is told", func() bool {
		h.skew.Add(int64(30 * time.Minute))
		w.commit(1)
		return h.sync() == nil && hindrance() == "clock"
	})
	for range 3 {
		merged := count(st.Keys(), "0001/")
		h.eventually("a merge", func() bool {
			h.skew.Add(int64(10 * time.Second))
			w.commit(1)
			if err := h.sync(); err != nil {
				t.Fatal(err)
			}
			if got := hindrance(); got != "clock" {
				t.Fatalf("the status tells of %q", got)
			}
			return count(st.Keys(), "0001/") > merged
		})
	}
}
