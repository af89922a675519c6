package replicator_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_C3_clone: a machine is cloned while it replicates; the clone has the same database,
// state directory and name. It does not write, neither while the original may write nor when the
// original is quiet, because the original has continued from the cloned state: one history, one
// writer.
func TestShip_C3_clone(t *testing.T) {
	t.Parallel()
	path, original := database(t)
	store := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("memory.a", store))
	a.begin()
	original.commit(7)
	if err := a.sync(); err != nil {
		t.Fatal(err)
	}
	before := wantRestored(t, store, path)

	// The clone's disk looks like that of a machine after a power cut.
	b := newHost(t, filepath.Join(t.TempDir(), "app.db"), replica("memory.a", store))
	b.boot = "another"
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.path+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(b.state, os.DirFS(a.state)); err != nil {
		t.Fatal(err)
	}
	clone := startWriter(t, b.path)
	b.start()
	clone.commit(3)
	original.commit(5)
	if err := a.sync(); err != nil {
		t.Fatalf("the original beside its clone: %v", err)
	}
	b.refused(lineage.Diverged, "host-a")
	b.skew.Store(int64(time.Hour)) // the original is quiet for that long
	err := b.sync()
	for errors.Is(err, tail.ErrRestarting) { // the jump ended its patience with a writer that had just come
		err = b.sync()
	}
	if !errors.Is(err, lease.ErrFenced) {
		t.Errorf("sync of the clone: %v, want ErrFenced", err)
	}
	original.commit(1)
	if err := a.sync(); err != nil {
		t.Errorf("the original after that: %v", err)
	}
	if after := wantRestored(t, store, path); after.TXID > before.TXID+1000 {
		t.Errorf("the original continues at txid %d, far behind %d", after.TXID, before.TXID)
	}
}

// TestShip_P4_reboot: after a power cut, a machine waits until its own lease expires, and then
// continues its history: no new chain, no second snapshot.
func TestShip_P4_reboot(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	store := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("memory.a", store))
	a.begin()
	w.commit(7)
	if err := a.sync(); err != nil {
		t.Fatal(err)
	}
	before := wantRestored(t, store, path)
	state := filepath.Join(t.TempDir(), "state") // as the power cut leaves it: the lease was not released
	if err := os.CopyFS(state, os.DirFS(a.state)); err != nil {
		t.Fatal(err)
	}
	var held []byte
	store.Tamper("sqlwatch/lease", func(data []byte) []byte { held = data; return data })
	a.halt()
	store.Tamper("sqlwatch/lease", func([]byte) []byte { return held })
	a.state, a.boot = state, "the next"
	a.start()
	w.commit(3)
	a.eventually("it waits", func() bool {
		return strings.Contains(a.r.Replicas()[0].Err,
			"before the last boot")
	})
	a.skew.Store(int64(3 * time.Minute))
	a.eventually("it continues", func() bool { return a.sync() == nil })
	if after := wantRestored(t, store, path); after.TXID > before.TXID+10 {
		t.Errorf("it continues at txid %d, far behind %d", after.TXID, before.TXID)
	}
}
