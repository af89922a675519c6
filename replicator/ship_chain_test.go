package replicator_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_C2_syncIsOfOneChain: a sync that begins while the replica is being examined does not
// mistake another writer's TXID, which is higher, for its own.
func TestShip_C2_syncIsOfOneChain(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	store := storetest.NewMemory().Enforce(t)
	var gate sync.Mutex
	var refuse atomic.Bool
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(store, func(op, key string, _ int) storetest.Fault {
		if op == "get" {
			gate.Lock()
			defer gate.Unlock()
		}
		if op == "put" && refuse.Load() && strings.HasSuffix(key, ".ltx") {
			return storetest.NotStored
		}
		return storetest.None
	})))
	h.options.FinalSync = time.Second
	h.begin()
	h.halt()
	other, _ := database(t)
	b := newHost(t, other, replica("memory.a", store))
	b.owner = "host-b"
	b.begin()
	b.halt()

	w.commit(7)
	refuse.Store(true)
	gate.Lock()
	h.start()
	h.eventually("a segment waits", func() bool { return h.r.Replicas()[0].PendingBytes > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	synced := make(chan error, 1)
	go func() { synced <- h.r.SyncNow(ctx) }()
	<-time.After(200 * time.Millisecond) // time for the sync to begin; otherwise nothing is proven
	gate.Unlock()
	if err := <-synced; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a sync while nothing can be stored: %v, want it to wait", err)
	}
	refuse.Store(false)
	h.eventually("sync", func() bool { return h.sync() == nil })
	wantRestored(t, store, path)
}

// reopen makes the host's capture start over without its state, in the same process.
func (h *host) reopen() {
	h.t.Helper()
	h.closeFiles()
	if err := os.RemoveAll(filepath.Join(h.state, "capture")); err != nil {
		h.t.Fatal(err)
	}
	h.openFiles()
}

// TestShip_P12_stateLostWhileAway: segments of a chain that began while the replica was unreachable
// are not released as shipped just because the replica has the same TXIDs of another chain.
func TestShip_P12_stateLostWhileAway(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var away atomic.Bool
	store, faulty := failing(t, &away, "")
	h := newHost(t, path, replica("memory.a", faulty))
	h.begin()
	h.commits(w, 4, 1)
	has := h.r.Replicas()[0].TXID
	away.Store(true)
	h.reopen()
	spooled := func() (n int) {
		names, _ := filepath.Glob(filepath.Join(h.state, "capture", "spool", "*.ltx"))
		return len(names)
	}
	for n := 1; n <= int(has)+2; n++ {
		h.skew.Add(int64(time.Minute)) // gives segments a chance to be released
		w.commit(1)
		h.eventually("everything stays in the spool", func() bool { h.r.Wake(); return spooled() >= n })
	}
	away.Store(false)
	w.commit(1)
	h.eventually("sync", func() bool { return h.sync() == nil })
	wantRestored(t, store, path)
}

// TestShip_P12_fartherReplicaAway: the state directory is lost while the replica that is farthest
// ahead is unreachable. Capture continues from the other one. When the first is back, both get one
// new chain, and neither asks for another.
func TestShip_P12_fartherReplicaAway(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	var aAway, bAway atomic.Bool
	a, aFaulty := failing(t, &aAway, "")
	b, bFaulty := failing(t, &bAway, "")
	h := newHost(t, path, replica("memory.a", aFaulty), replica("memory.b", bFaulty))
	h.begin()
	txid := func(i int) uint64 { return uint64(h.r.Replicas()[i].TXID) }
	bAway.Store(true)
	for ahead := txid(1) + 5; txid(0) < ahead; {
		w.commit(1)
		h.eventually("a is up to date", func() bool { h.r.Wake(); return h.r.Replicas()[0].LagSeconds == 0 })
	}
	aAway.Store(true)
	bAway.Store(false)
	ahead := txid(0)
	h.reopen()
	for txid(1) < ahead+2 {
		w.commit(1)
		h.eventually("b is up to date", func() bool { h.r.Wake(); return h.r.Replicas()[1].LagSeconds == 0 })
	}
	aAway.Store(false)
	w.commit(1)
	h.eventually("sync", func() bool { return h.sync() == nil })
	chains := count(a.Keys(), "0009/") + count(b.Keys(), "0009/")
	h.commits(w, 3, 1)
	if n := count(a.Keys(), "0009/") + count(b.Keys(), "0009/"); n != chains {
		t.Errorf("%d snapshots, then %d: the replicas keep asking for new chains", chains, n)
	}
	wantRestored(t, a, path)
	wantRestored(t, b, path)
}

// copyDatabase copies a database between two commits.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShip_C3_sameName: a container is created again under the same name on the same machine,
// with its own state directory, while the old one still runs. The new one waits, and the two
// never write to one chain.
func TestShip_C3_sameName(t *testing.T) {
	t.Parallel()
	path, wa := database(t)
	store := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("memory.a", store))
	a.begin()
	wa.commit(3)
	if err := a.sync(); err != nil {
		t.Fatal(err)
	}
	b := newHost(t, filepath.Join(t.TempDir(), "app.db"), replica("memory.a", store))
	copyDatabase(t, path, b.path)
	wb := startWriter(t, b.path)
	wb.commit(5)
	b.start()
	b.refused(lineage.Foreign, "host-a")
	wa.commit(2)
	if err := a.sync(); err != nil {
		t.Fatalf("sync of the first container: %v", err)
	}
	b.skew.Store(int64(time.Hour)) // the first is quiet for that long
	if err := b.sync(); !errors.Is(err, custody.ErrForeign) {
		t.Errorf("sync of the second container: %v, want ErrForeign", err)
	}
	wantRestored(t, store, path)
}

// TestShip_P1_crash: after a kill, the next process with the same state directory continues at
// once: nobody else can hold its lease.
func TestShip_P1_crash(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	store := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", store))
	h.begin()
	w.commit(3)
	h.synced()
	state := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(state, os.DirFS(h.state)); err != nil {
		t.Fatal(err)
	}
	var held []byte
	store.Tamper("sqlwatch/lease", func(data []byte) []byte { held = data; return data })
	h.halt()
	store.Tamper("sqlwatch/lease", func([]byte) []byte { return held })
	h.state = state
	w.commit(3)
	h.begin() // does not wait for the lease, which lasts two minutes
	if n := count(store.Keys(), "0009/"); n != 1 {
		t.Errorf("a crash cost %d snapshots", n-1)
	}
	wantRestored(t, store, path)
}

// TestShip_S16_emptied: the whole replica is deleted, including the lease. sqlwatch notices when it
// renews the lease or is restarted, stores everything again, and reports it.
func TestShip_S16_emptied(t *testing.T) {
	t.Parallel()
	for name, notice := range map[string]func(h *host, empty func()){
		"renewal":        func(h *host, empty func()) { empty(); h.synced(); h.skew.Store(int64(5 * time.Minute)) },
		"while not seen": func(h *host, empty func()) { h.halt(); empty(); h.begin() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			store := storetest.NewMemory().Enforce(t)
			h := newHost(t, path, replica("memory.a", store))
			h.begin()
			notice(h, func() {
				w.commit(3)
				if err := store.Delete(t.Context(), store.Keys()...); err != nil {
					t.Fatal(err)
				}
			})
			w.commit(3)
			h.eventually("a snapshot", func() bool { return h.sync() == nil && count(store.Keys(), "0009/") > 0 })
			wantRestored(t, store, path)
			if s := h.r.Replicas()[0]; s.LostFiles == 0 {
				t.Errorf("the lost files are not reported: %+v", s)
			}
			h.halt()
			h.begin()
			if s := h.r.Replicas()[0]; s.LostFiles > 0 {
				t.Errorf("lost files are reported although everything is there: %+v", s)
			}
		})
	}
}

// TestShip_S16_corruptSnapshot: the newest snapshot is corrupt, and the application no longer
// commits. After a drill has found that, the state is stored again under another key.
func TestShip_S16_corruptSnapshot(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	store := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", store))
	h.begin()
	w.commit(3)
	if err := errors.Join(h.sync(), h.r.SnapshotNow(t.Context())); err != nil {
		t.Fatal(err)
	}
	keys := store.Keys()
	i, _ := slices.BinarySearch(keys, "sqlwatch/")
	newest := keys[i-1]
	store.Tamper(newest, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
	for _, key := range keys[:i-1] { // so that the newest state can be restored from nothing else
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.r.VerifyNow(t.Context()); err == nil {
		t.Fatalf("a drill of the corrupt %s succeeded", newest)
	}
	h.eventually("a drill succeeds again", func() bool { return h.r.VerifyNow(t.Context()) == nil })
	wantRestored(t, store, path)
}
