package replicator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestSnapshotNow_S16_removed: a snapshot is asked for after somebody removed the one that was there. That nothing was
// committed since is no reason to leave it out.
func TestSnapshotNow_S16_removed(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory()
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	w.commit(3)
	h.synced()
	if err := h.r.SnapshotNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := captured(st)
	if err := h.r.SnapshotNow(t.Context()); err != nil || !slices.Equal(captured(st), before) {
		t.Fatalf("again: %v", err)
	}
	keys := slices.DeleteFunc(keysOf(t, st), func(k string) bool { return !strings.HasPrefix(k, "000") })
	if err := st.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	if err := h.r.SnapshotNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, st, path)
}

// TestShip_checkedOverRestart: a check that found no snapshot needed counts as one after a restart too.
func TestShip_checkedOverRestart(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	w.commit(200)
	o := replica("memory.a", storetest.NewMemory().Enforce(t))
	o.SnapshotEvery, o.FullEvery = 2*time.Hour, 1000*time.Hour
	h := newHost(t, path, o)
	h.begin()
	taken := h.r.Replicas()[0].LastSnapshot
	h.commits(w, 1, 1)
	h.skew.Add(int64(3 * time.Hour))
	checked := taken
	h.eventually("a check", func() bool {
		h.r.Wake()
		checked = h.r.Replicas()[0].LastSnapshot
		return checked.After(taken.Add(time.Hour))
	})
	h.halt()
	h.begin()
	if got := h.r.Replicas()[0].LastSnapshot; got.Before(checked) {
		t.Errorf("after a restart the last check is of %s, was of %s", got, checked)
	}
}
