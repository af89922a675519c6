package replicator_test

import (
	"slices"
	"strings"
	"testing"

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
