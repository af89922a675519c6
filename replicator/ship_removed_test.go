package replicator_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// keysOf returns the keys in the store, in order.
func keysOf(t *testing.T, st store.Store) (keys []string) {
	t.Helper()
	for object, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// TestShip_S16_removed: files that the newest state of an idle database needs are removed. A sync
// does not succeed until that state is in the replica again.
func TestShip_S16_removed(t *testing.T) {
	t.Parallel()
	prefixed := func(prefix string) func(t *testing.T, st store.Store) {
		return func(t *testing.T, st store.Store) {
			t.Helper()
			keys := slices.DeleteFunc(keysOf(t, st), func(k string) bool { return !strings.HasPrefix(k, prefix) })
			if len(keys) == 0 {
				t.Fatalf("nothing begins with %q", prefix)
			}
			if err := st.Delete(t.Context(), keys...); err != nil {
				t.Fatal(err)
			}
		}
	}
	newest := func(t *testing.T, st store.Store) {
		t.Helper()
		all := slices.DeleteFunc(keysOf(t, st), func(k string) bool { return !strings.HasPrefix(k, "0000/") })
		if err := st.Delete(t.Context(), all[len(all)-1]); err != nil {
			t.Fatal(err)
		}
	}
	stores := map[string]func(t *testing.T) (store.Store, string){
		"directory": func(t *testing.T) (store.Store, string) {
			dir := filepath.Join(t.TempDir(), "replica")
			st, err := file.New(dir)
			if err != nil {
				t.Fatal(err)
			}
			return st, dir
		},
		"bucket": func(t *testing.T) (store.Store, string) {
			st, err := s3.New(t.Context(), s3.Config{
				Bucket: s3test.Bucket, Prefix: "app", Endpoint: s3test.NewFake(t, s3test.Profile{}).URL, Region: s3test.Region,
				AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, PathStyle: new(true),
			})
			if err != nil {
				t.Fatal(err)
			}
			return st, ""
		},
	}
	for kind, open := range stores {
		for name, harm := range map[string]func(t *testing.T, st store.Store){
			"all": prefixed(""), "files": prefixed("000"), "snapshot": prefixed("0009/"), "newest": newest, "rm": nil,
		} {
			for where, release := range map[string]bool{"spooled": false, "released": true} {
				t.Run(kind+"/"+name+"/"+where, func(t *testing.T) {
					t.Parallel()
					st, dir := open(t)
					if harm != nil {
						removed(t, st, "", release, harm)
					} else if dir != "" {
						removed(t, st, dir, release, func(t *testing.T, _ store.Store) {
							t.Helper()
							if err := os.RemoveAll(dir); err != nil {
								t.Fatal(err)
							}
						})
					}
				})
			}
		}
	}
}

// removed checks that a sync repairs a replica after harm. If harm removes the whole directory of
// the replica, dir is its path, otherwise "".
func removed(t *testing.T, st store.Store, dir string, release bool, harm func(t *testing.T, st store.Store)) {
	t.Helper()
	path, w := database(t)
	h := newHost(t, path, replica("any.a", st))
	h.begin()
	h.commits(w, 3, 2)
	if release {
		h.eventually("the spool is released", func() bool {
			h.skew.Add(int64(time.Second))
			h.r.Wake()
			spooled, _ := h.r.Captured()
			return spooled == 0
		})
	}
	harm(t, st)
	if err := h.sync(); errors.Is(err, store.ErrMisplaced) { // the directory may just not be mounted
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h.eventually("in a new directory", func() bool { return h.sync() == nil })
	} else if err != nil || dir != "" {
		t.Fatalf("sync: %v, without %q", err, dir)
	}
	wantRestored(t, st, path)
	w.commit(2)
	h.synced()
	wantRestored(t, st, path)
	h.halt()
	h.begin() // the replica is still ours
	w.commit(2)
	h.synced()
	wantRestored(t, st, path)
}

// TestShip_S16_removedCosts: a sync that has nothing to store sends two requests.
func TestShip_S16_removedCosts(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	w.commit(2)
	for range 2 {
		h.synced()
	}
	least := 100
	for range 5 { // the lease or maintenance may send requests in the meantime
		before := requestsOf(st)
		h.synced()
		least = min(least, requestsOf(st)-before)
	}
	if least != 2 {
		t.Errorf("a sync sent %d requests, want 2", least)
	}
}

func requestsOf(st *storetest.Memory) (n int) {
	for _, count := range st.Requests() {
		n += count
	}
	return n
}

// TestShip_S16_removedIdle: even without a sync, the hourly check notices removed files.
func TestShip_S16_removedIdle(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.SnapshotEvery = 1000 * time.Hour
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.begin()
	w.commit(2)
	h.synced()
	if err := st.Delete(t.Context(), store.LTXKey(store.SnapshotLevel, 1, 1)); err != nil {
		t.Fatal(err)
	}
	h.skew.Add(int64(2 * time.Hour))
	h.eventually("another snapshot", func() bool {
		h.skew.Add(int64(time.Second))
		h.r.Wake()
		return count(st.Keys(), "0009/") > 0
	})
	h.eventually("as before", func() bool {
		return slices.IndexFunc(h.r.Replicas(), func(s replicator.ReplicaStatus) bool { return s.LagSeconds > 0 }) < 0
	})
	wantRestored(t, st, path)
}

// TestShip_S16_removedIdle_directory: in a directory, removed files are noticed within seconds, without
// a sync.
func TestShip_S16_removedIdle_directory(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	dir := filepath.Join(t.TempDir(), "replica")
	st, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, path, replica("file.a", store.Through(st, nil, nil)))
	h.begin()
	w.commit(2)
	h.synced()
	for _, harm := range []func() error{
		func() error { return os.RemoveAll(filepath.Join(dir, "ltx")) },
		func() error { // removes everything in the directory, but not the directory itself
			return errors.Join(os.RemoveAll(filepath.Join(dir, "ltx")), os.RemoveAll(filepath.Join(dir, "sqlwatch")))
		},
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		passed := 0 // seconds
		h.eventually("everything is stored again", func() bool {
			if passed < 30 {
				passed++
				h.skew.Add(int64(time.Second))
			}
			h.r.Wake()
			return count(keysOf(t, st), "0009/") > 0
		})
		h.eventually("as before", func() bool { return h.r.Replicas()[0].LagSeconds == 0 })
		wantRestored(t, st, path)
	}
}

// TestShip_S16_removedTwoLooks: the hourly check finds the newest file gone while a sync checks
// too. The sync does not succeed because of an older state that it saw without that file.
func TestShip_S16_removedTwoLooks(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := storetest.NewMemory().Enforce(t)
	var syncing, returned atomic.Bool
	var h *host
	st := storetest.NewFaulty(m, nil)
	st.Decide = func(op, key string, _ int) storetest.Fault {
		switch {
		case op == "put" && strings.HasPrefix(key, "0009/") && syncing.Load() && !returned.Load():
			return storetest.NotStored // the snapshot that replaces the file is delayed
		case op == "get" && strings.HasPrefix(key, "0009/") && syncing.CompareAndSwap(false, true):
			keys := slices.DeleteFunc(m.Keys(), func(k string) bool { return !strings.HasPrefix(k, "0000/") })
			if err := m.Delete(context.Background(), keys[len(keys)-1]); err != nil {
				t.Error(err)
			}
			h.skew.Add(int64(2 * time.Hour))
			h.eventually("the hourly check has found it", func() bool {
				h.skew.Add(int64(time.Second))
				h.r.Wake()
				s := h.r.Replicas()[0]
				return s.TXID != 0 && s.TXID < 4
			})
		}
		return storetest.None
	}
	syncing.Store(true)
	returned.Store(true)
	o := replica("memory.a", st)
	o.SnapshotEvery = 1000 * time.Hour
	h = newHost(t, path, o)
	m.SetClock(h.clock)
	h.begin()
	h.commits(w, 3, 2)
	h.eventually("the spool is released", func() bool {
		h.skew.Add(int64(time.Second))
		h.r.Wake()
		spooled, _ := h.r.Captured()
		return spooled == 0
	})
	returned.Store(false)
	syncing.Store(false)
	go func() {
		time.Sleep(time.Second) // a correct sync waits for the snapshot
		returned.Store(true)
	}()
	h.synced()
	wantRestored(t, m, path)
}
