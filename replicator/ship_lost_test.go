package replicator_test

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// bulk makes a database of that many incompressible megabytes, and starts a writer on it.
func bulk(t *testing.T, megabytes int) (db string, w *writer) {
	t.Helper()
	db = filepath.Join(t.TempDir(), "app.db")
	sql := fmt.Sprintf(`pragma journal_mode=wal; create table bulk(id integer primary key, v blob);
		with recursive n(i) as (select 1 union all select i+1 from n where i<%d)
		insert into bulk(v) select randomblob(3900) from n; pragma wal_checkpoint(truncate)`, megabytes<<20/4096)
	if out, err := exec.Command("sqlite3", db, sql).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return db, startWriter(t, db)
}

// TestShip_P12_lostCosts: a state directory is lost while replica and database are intact and the
// application continues. sqlwatch then reads only page checksums from the replica, and stores only
// the pages that differ. SQLWATCH_LOST_MB makes the database larger.
func TestShip_P12_lostCosts(t *testing.T) {
	t.Parallel()
	megabytes, _ := strconv.Atoi(os.Getenv("SQLWATCH_LOST_MB"))
	if megabytes == 0 {
		megabytes = 12
	}
	db, w := bulk(t, megabytes)
	inner, err := file.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &metered{Store: inner}
	h := newHost(t, db, replica("file.a", m))
	h.begin()
	w.commit(3)
	h.eventually("sync", func() bool { return h.sync() == nil })
	for _, lists := range []bool{true, false} {
		h.halt()
		before := wantRestored(t, inner, db)
		if err := os.RemoveAll(h.state); err != nil {
			t.Fatal(err)
		}
		if key, _ := store.SumsKey(store.SnapshotLevel, 1, before.TXID); !lists {
			removeLists(t, inner, key)
		}
		w.commit(3)
		paid, start := m.now(), time.Now()
		h.begin()
		took, bill := time.Since(start), m.now()
		down, up, whole := bill.down-paid.down, bill.up-paid.up, before.ObjectBytes
		after := wantRestored(t, inner, db)
		t.Logf("%d MB of database, %d MB of replica, lists %v: %.2f MB were read, %.2f MB stored, in %v", megabytes,
			whole>>20, lists, float64(down)/(1<<20), float64(up)/(1<<20), took)
		if lists != (down < whole/50) || up > whole/50 || after.TXID != before.TXID+1 {
			t.Errorf("%d bytes read and %d stored of %d; txid %d after %d", down, up, whole, after.TXID, before.TXID)
		}
	}
}

// removeLists removes all lists of page checksums, so that the replica is like one of an earlier
// version.
func removeLists(t *testing.T, st store.Store, key string) {
	t.Helper()
	n := 0
	for object, err := range st.List(t.Context(), path.Dir(key)+"/", "") {
		if err == nil {
			err = st.Delete(t.Context(), object.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 {
		t.Fatal("there were no lists to remove")
	}
}

// TestShip_P12_lists: a list of page checksums that is missing, corrupt or of another file costs a
// download, nothing else; and a list is deleted together with its file.
func TestShip_P12_lists(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(st *storetest.Memory, key string){
		"gone": func(st *storetest.Memory, key string) { st.Delete(t.Context(), key) },
		"corrupt": func(st *storetest.Memory, key string) {
			st.Tamper(key, func(data []byte) []byte { data[len(data)/2] ^= 4; return data })
		},
		"cut": func(st *storetest.Memory, key string) {
			st.Tamper(key, func(data []byte) []byte { return data[:len(data)/2] })
		},
		"of another file": func(st *storetest.Memory, key string) { swapList(t, st, key) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, w := database(t)
			st := storetest.NewMemory()
			h := newHost(t, db, replica("memory.a", st))
			h.begin()
			w.commit(100)
			h.synced()
			h.halt()
			before := wantRestored(t, st, db)
			lists := listed(st)
			if len(lists) != 1 {
				t.Fatalf("lists: %q", lists)
			}
			harm(st, lists[0])
			if err := os.RemoveAll(h.state); err != nil {
				t.Fatal(err)
			}
			w.commit(3)
			h.begin()
			after := wantRestored(t, st, db)
			if after.TXID != before.TXID+1 || count(st.Keys(), "0009/") != 1 {
				t.Errorf("txid %d after %d, keys %q: want one comparison", after.TXID, before.TXID, st.Keys())
			}
		})
	}
}

func listed(st *storetest.Memory) (keys []string) {
	for _, key := range st.Keys() {
		if strings.HasPrefix(key, "sqlwatch/sums/") {
			keys = append(keys, key)
		}
	}
	return keys
}

// swapList replaces a list of page checksums with another database's.
func swapList(t *testing.T, st *storetest.Memory, key string) {
	t.Helper()
	db, _ := database(t)
	other := storetest.NewMemory()
	h := newHost(t, db, replica("memory.other", other))
	h.begin()
	h.halt()
	r, object, err := other.Get(t.Context(), listed(other)[0], 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data := make([]byte, object.Size)
	if _, err := r.Read(data); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Put(t.Context(), key, storetest.Bytes(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestShip_P12_sameSums: page checksums are the same with lists and without.
func TestShip_P12_sameSums(t *testing.T) {
	t.Parallel()
	db, w := database(t)
	st := storetest.NewMemory()
	h := newHost(t, db, replica("memory.a", st))
	h.begin()
	h.commits(w, 5, 10)
	txid, with, err := restore.PageChecksums(t.Context(), st, catalog.Target{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range listed(st) {
		if err := st.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	again, without, err := restore.PageChecksums(t.Context(), st, catalog.Target{})
	if err != nil || again != txid || fmt.Sprint(with) != fmt.Sprint(without) || len(with.Sums) == 0 {
		t.Errorf("txid %d and %d, %d and %d pages, %v", txid, again, len(with.Sums), len(without.Sums), err)
	}
}
