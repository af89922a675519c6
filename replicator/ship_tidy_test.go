package replicator_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_S2_slowBesideDead: the spool fills up because one replica is slow and the other one
// unreachable. Once the slow one has everything, capture continues.
func TestShip_S2_slowBesideDead(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var slow sync.RWMutex
	var dead atomic.Bool
	_, gone := failing(t, &dead, "")
	h := newHost(t, path, replica("memory.slow", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
		if op == "put" && strings.HasPrefix(key, "0000/") {
			slow.RLock()
			defer slow.RUnlock()
		}
		return storetest.None
	})), replica("memory.gone", gone))
	h.options.Capture.SpoolLimit = 1_000_000
	h.options.Capture.BatchAge = time.Millisecond
	h.options.FinalSync = time.Second
	h.begin()
	dead.Store(true)
	slow.Lock()
	h.eventually("the spool is full", func() bool {
		w.commit(1)
		h.r.Wake()
		return h.r.Replicas()[0].PendingBytes >= h.options.Capture.SpoolLimit
	})
	slow.Unlock()
	has := h.r.Replicas()[0].TXID
	h.eventually("the slow one has what was spooled", func() bool {
		s := h.r.Replicas()[0]
		return s.TXID > has && s.PendingBytes == 0
	})
	w.commit(10)
	h.eventually("capture continues", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = h.r.SyncNow(ctx) // cannot succeed while the other replica is unreachable
		s := h.r.Replicas()[0]
		return s.LagSeconds == 0 && s.PendingBytes == 0
	})
	wantRestored(t, st, path)
}

// captured returns the keys of level 0.
func captured(st *storetest.Memory) []string {
	return slices.DeleteFunc(st.Keys(), func(k string) bool { return !strings.HasPrefix(k, "0000/") })
}

// TestShip_S16_corruptFile: one uploaded file is corrupt, or its download breaks off at first.
// Compaction skips a corrupt file, at the cost of one snapshot, and does not take a broken
// connection for corruption.
func TestShip_S16_corruptFile(t *testing.T) {
	t.Parallel()
	for name, corrupt := range map[string]bool{"corrupt": true, "broken off": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			st := storetest.NewMemory().Enforce(t)
			var victim atomic.Pointer[string]
			var breaks atomic.Int64
			h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
				if v := victim.Load(); op == "get" && v != nil && key == *v && breaks.Add(1) <= 4 {
					return storetest.Truncated
				}
				return storetest.None
			})))
			h.begin()
			h.commits(w, 9, 3)
			key := captured(st)[4]
			if corrupt {
				st.Tamper(key, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
			} else {
				victim.Store(&key)
			}
			h.unkeep()
			_, txid, _, err := store.ParseLTXKey(key)
			if err != nil {
				t.Fatal(err)
			}
			before, behind, over := false, false, false
			h.eventually("compaction on both sides", func() bool {
				h.skew.Add(int64(10 * time.Second)) // eventually beyond the end of the window
				w.commit(1)
				if h.sync() != nil {
					return false
				}
				for _, k := range st.Keys() {
					if level, low, high, err := store.ParseLTXKey(k); err == nil && level == 1 {
						before, behind, over = before || high < txid, behind || low > txid, over || low <= txid && txid <= high
					}
				}
				return behind && (before || over)
			})
			if over == corrupt {
				t.Errorf("level 1 covers the file: %v", over)
			}
			if corrupt {
				h.eventually("a second snapshot", func() bool { return count(st.Keys(), "0009/") > 1 })
			} else if n := count(st.Keys(), "0009/"); n > 1 {
				t.Errorf("%d snapshots although a higher level covers the file", n)
			}
			if n := count(st.Keys(), "0009/"); n > 2 {
				t.Errorf("%d snapshots because of one file", n)
			}
			wantRestored(t, st, path)
		})
	}
}

// TestShip_S16_corruptOutput: a merged file reads back corrupt. It is made again, and nothing
// relies on it until then.
func TestShip_S16_corruptOutput(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var victim atomic.Pointer[string]
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
		if op == "get" && strings.HasPrefix(key, "0001/") && victim.CompareAndSwap(nil, &key) { // not read back yet
			st.Tamper(key, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
		}
		return storetest.None
	})))
	h.begin()
	h.eventually("a compaction", func() bool {
		h.skew.Add(int64(10 * time.Second))
		w.commit(1)
		return h.sync() == nil && victim.Load() != nil
	})
	h.eventually("the corrupt file is made again", func() bool { return whole(t, st, *victim.Load()) })
	if n := count(st.Keys(), "0009/"); n != 1 {
		t.Errorf("%d snapshots because of a file whose inputs all exist", n)
	}
	if err := h.r.VerifyNow(t.Context()); err != nil {
		t.Error(err)
	}
	wantRestored(t, st, path)
}

// whole reports whether an object exists and its bytes match its metadata.
func whole(t *testing.T, st store.Store, key string) bool {
	body, object, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		return false
	}
	defer body.Close()
	sha := sha256.New()
	if _, err := io.Copy(sha, body); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sha.Sum(nil)) == object.Metadata[store.MetaSHA256]
}

// TestShip_P8_clockWasAhead: the clock was ten years ahead for a while, and so are the times of the
// batches captured then. Snapshots and compaction continue by the present clock.
func TestShip_P8_clockWasAhead(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.SnapshotEvery = 10 * time.Minute
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.skew.Store(int64(10 * 365 * 24 * time.Hour))
	h.begin()
	w.commit(3)
	h.synced()
	h.halt()
	h.skew.Store(0)
	h.begin()
	h.eventually("snapshots and compaction", func() bool {
		h.skew.Add(int64(time.Minute / 4))
		w.commit(1)
		return h.sync() == nil && count(st.Keys(), "0009/") > 2 && count(st.Keys(), "0001/") > 1 &&
			count(st.Keys(), "0002/") > 0
	})
	if s := h.r.Replicas()[0]; s.LastSnapshot.After(h.clock()) {
		t.Errorf("the last snapshot is from %v", s.LastSnapshot)
	}
	wantRestored(t, st, path)
}

// TestShip_P1_scratch: temporary files that a killed process left are removed; files in use are
// not.
func TestShip_P1_scratch(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	h := newHost(t, path, replica("memory", storetest.NewMemory().Enforce(t)))
	scratch := filepath.Join(h.state, "replicas", "scratch")
	for name, age := range map[string]time.Duration{"verify-old": time.Hour, "verify-new": -time.Hour} {
		dir := filepath.Join(scratch, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "drill.db"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	h.begin()
	w.commit(1)
	h.synced()
	left, err := filepath.Glob(filepath.Join(scratch, "*"))
	left = slices.DeleteFunc(left, func(name string) bool { return strings.HasPrefix(filepath.Base(name), "kept-") })
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "verify-new" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestShip_S16_keptFile: recently uploaded files are merged from their local copies. Only outputs
// are read from the store, and an input that was removed from the store meanwhile does no harm.
func TestShip_S16_keptFile(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var read atomic.Int64
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(op, key string, _ int) storetest.Fault {
		if op == "get" && strings.HasPrefix(key, "0000/") {
			read.Add(1)
		}
		return storetest.None
	})))
	h.begin()
	h.commits(w, 9, 3)
	before := read.Load()
	if err := st.Delete(t.Context(), captured(st)[4]); err != nil {
		t.Fatal(err)
	}
	h.eventually("level 1", func() bool {
		h.skew.Add(int64(10 * time.Second)) // eventually beyond the end of the window
		w.commit(1)
		return count(st.Keys(), "0001/") > 0
	})
	if n := read.Load() - before; n > 0 {
		t.Errorf("%d files of level 0 were read again", n)
	}
	if err := h.sync(); err != nil { // checks that the newest one exists
		t.Fatal(err)
	}
	wantRestored(t, st, path)
	if n := count(st.Keys(), "0009/"); n != 1 {
		t.Errorf("%d snapshots although there was a local copy of the file", n)
	}
}
