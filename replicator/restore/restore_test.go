package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// layered returns a replica with compacted files and snapshots, as maintenance leaves it.
func layered(t testing.TB, st store.Store, pageSize int, seed uint64, options ...func(*history)) *history {
	t.Helper()
	h := newHistory(t, st, pageSize, seed)
	for _, option := range options {
		option(h)
	}
	for range 60 {
		h.commit()
		if h.txid%10 == 0 {
			h.compact(1, h.txid-9, h.txid)
		}
		if h.txid%30 == 0 {
			h.compact(2, h.txid-29, h.txid)
		}
		if h.txid == 25 || h.txid == 47 {
			h.snapshot()
		}
	}
	return h
}

func TestRestoreEveryState(t *testing.T) {
	plain := func(h *history) { h.plain = true }
	frames := func(h *history) { h.plain, h.lz4Frame = true, true }
	for name, options := range map[string][]func(*history){"ours": nil, "litestream": {plain}, "litestream lz4 frames": {
		frames}} {
		for _, pageSize := range []int{512, 4096, 65536} {
			if pageSize == 65536 && raceDetector {
				continue
			}
			t.Run(fmt.Sprintf("%s/R16_page size %d", name, pageSize), func(t *testing.T) {
				t.Parallel()
				h := layered(t, storetest.NewMemory().Enforce(t), pageSize, uint64(pageSize), options...)
				h.want(catalog.Target{}, 60)
				stride := ltx.TXID(1 + pageSize/4096)
				for txid := ltx.TXID(1); txid <= 60; txid += stride {
					h.want(catalog.Target{TXID: txid}, txid)
				}
				for txid := ltx.TXID(1); txid < 60; txid += stride { // times in headers are in milliseconds
					h.want(catalog.Target{Timestamp: h.times[txid]}, txid)
					h.want(catalog.Target{Timestamp: h.times[txid+1].Truncate(time.Millisecond).Add(-time.Nanosecond)}, txid)
				}
			})
		}
	}
}

func TestRestoreFromFiles(t *testing.T) {
	s, err := file.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := layered(t, s, 1024, 3)
	h.want(catalog.Target{}, 60)
	h.want(catalog.Target{TXID: 33}, 33)
	h.want(catalog.Target{Timestamp: h.times[34].Add(-1)}, 33)
}

func TestRestoreThinnedOut(t *testing.T) {
	m := storetest.NewMemory()
	h := layered(t, m, 512, 9)
	for txid := ltx.TXID(1); txid <= 40; txid++ { // level 0 is kept only for a while
		if err := m.Delete(context.Background(), store.LTXKey(0, txid, txid)); err != nil {
			t.Fatal(err)
		}
	}
	h.want(catalog.Target{}, 60)
	h.want(catalog.Target{TXID: 25}, 25)
	h.want(catalog.Target{TXID: 30}, 30)
	h.want(catalog.Target{TXID: 41}, 41)
	h.want(catalog.Target{Timestamp: h.times[38]}, 30)
	_, err := catalog.MakePlan(context.Background(), m, catalog.Target{TXID: 33})
	var inside *catalog.RangeError
	if !errors.As(err, &inside) || !inside.Inside || inside.First.TXID != 30 || inside.Last.TXID != 40 {
		t.Errorf("a compacted txid: %v, want the neighbours 30 and 40", err)
	}
}

// TestRestore_P18_panic: a bug in one of the goroutines that put a database together is an error of the restore. One
// that is a drill of the daemon's must not end the daemon.
func TestRestore_P18_panic(t *testing.T) {
	t.Parallel()
	st, _ := small(t, false)
	var bug *fault.Error
	_, err := restore.Run(t.Context(), st, restore.Options{Output: filepath.Join(t.TempDir(), "out.db"),
		Progress: func(done, _ int64) {
			if done > 0 {
				panic("a fault")
			}
		}})
	if !errors.As(err, &bug) {
		t.Errorf("restored, %v; want a fault of sqlwatch", err)
	}
}

func TestRestore_R9_outOfRange(t *testing.T) {
	h := layered(t, storetest.NewMemory(), 512, 1)
	for name, target := range map[string]catalog.Target{
		"before the first": {Timestamp: h.times[1].Add(-1)},
		"after the last":   {Timestamp: h.times[60].Add(1)},
		"future txid":      {TXID: 61},
	} {
		_, _, err := restored(t, h.store, target)
		var out *catalog.RangeError
		if !errors.As(err, &out) || out.First.TXID != 1 || out.Last.TXID != 60 || !strings.Contains(err.Error(),
			h.times[60].Format(time.RFC3339Nano)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := restored(t, storetest.NewMemory(), catalog.Target{}); !errors.Is(err, catalog.ErrEmpty) {
		t.Errorf("an empty replica: %v", err)
	}
	if _, _, err := restored(t, h.store, catalog.Target{TXID: 5, Timestamp: h.times[5]}); err == nil {
		t.Error("both txid and timestamp: no error")
	}
}

func TestRestore_R2_gap(t *testing.T) {
	ctx := context.Background()
	m := storetest.NewMemory()
	h := newHistory(t, m, 512, 2)
	for range 20 {
		h.commit()
	}
	if err := m.Delete(ctx, store.LTXKey(0, 8, 8), store.LTXKey(0, 9, 9)); err != nil {
		t.Fatal(err)
	}
	for _, target := range []catalog.Target{{}, {TXID: 15}, {Timestamp: h.times[15]}} {
		_, _, err := restored(t, m, target)
		var gap *catalog.GapError
		if !errors.As(err, &gap) || gap.From != 8 || gap.To != 9 || gap.Reached != 7 {
			t.Errorf("%s: %v, want a gap of 8 to 9", describe(target), err)
		}
	}
	h.want(catalog.Target{TXID: 7}, 7)
	t.Run("overlap and duplicate", func(t *testing.T) {
		h.compact(1, 5, 12)
		h.compact(2, 5, 12)
		h.compact(1, 11, 14)
		h.want(catalog.Target{}, 20)
		h.want(catalog.Target{TXID: 13}, 13)
	})
	t.Run("no snapshot", func(t *testing.T) {
		if err := m.Delete(ctx, store.LTXKey(0, 1, 1)); err != nil {
			t.Fatal(err)
		}
		var gap *catalog.GapError
		if _, _, err := restored(t, m, catalog.Target{}); !errors.As(err, &gap) || gap.From != 1 || gap.To != 1 {
			t.Errorf("%v, want a gap of 1", err)
		}
	})
}

// small returns a replica whose objects have a few hundred bytes each.
func small(t testing.TB, plain bool) (*storetest.Memory, *history) {
	m := storetest.NewMemory()
	h := newHistory(t, m, 512, 4)
	h.plain = plain
	zeros := make([]byte, 4*512) // compresses well, so that there are few bytes to corrupt
	copy(zeros[100:], "the first state")
	h.commitState(bytes.Clone(zeros))
	copy(zeros[700:], "the second")
	h.commitState(bytes.Clone(zeros))
	copy(zeros[1500:], "the third")
	h.commitState(bytes.Clone(append(zeros, bytes.Repeat([]byte{7}, 512)...)))
	h.compact(1, 2, 3)
	return m, h
}

// TestRestore_R1_everyDamage changes bytes of every object, and truncates it: at every position of
// its header and its end, and at every eleventh in between, or at all positions if
// SQLWATCH_TEST_EVERY_BYTE is set.
func TestRestore_R1_everyDamage(t *testing.T) {
	t.Parallel()
	every := os.Getenv("SQLWATCH_TEST_EVERY_BYTE") != ""
	for _, plain := range []bool{false, true} {
		m, h := small(t, plain)
		for _, key := range m.Keys() {
			if strings.HasPrefix(key, "0000") && !strings.HasSuffix(key, "1.ltx") {
				continue // not in the plan
			}
			t.Run(fmt.Sprintf("%s/plain %v", key, plain), func(t *testing.T) {
				var original []byte
				m.Tamper(key, func(data []byte) []byte { original = bytes.Clone(data); return data })
				errs := 0
				try := func(what string, corrupt []byte) {
					m.Tamper(key, func([]byte) []byte { return corrupt })
					data, _, err := restored(t, m, catalog.Target{})
					if err == nil && !bytes.Equal(data, h.states[3]) {
						t.Fatalf("%s: success with other contents", what)
					}
					if err != nil && !strings.Contains(err.Error(), key) {
						t.Fatalf("%s: the error does not name the object: %v", what, err)
					}
					if err != nil {
						errs++
					}
				}
				picked := func(i int) bool {
					return every || i < ltx.HeaderSize+16 || i >= len(original)-64 || i%11 == 3
				}
				for i := range original {
					if !picked(i) {
						continue
					}
					for _, x := range []byte{1 << (i % 8), 0xff} {
						corrupt := bytes.Clone(original)
						corrupt[i] ^= x
						try(fmt.Sprintf("byte %d ^ %#x", i, x), corrupt)
					}
				}
				for n := range original {
					if !picked(n) {
						continue
					}
					try(fmt.Sprintf("cut to %d of %d", n, len(original)), original[:n])
				}
				try("one byte more", append(bytes.Clone(original), 0))
				if strings.HasPrefix(key, "0000") && errs == 0 {
					t.Error("no corruption of the only snapshot was noticed")
				}
				m.Tamper(key, func([]byte) []byte { return original })
			})
		}
	}
}

func TestRestore_R1_otherPlan(t *testing.T) {
	m, h := small(t, false)
	m.Tamper(store.LTXKey(1, 2, 3), func(data []byte) []byte { data[len(data)/2] ^= 4; return data })
	data, result, err := restored(t, m, catalog.Target{})
	if err != nil || !bytes.Equal(data, h.states[3]) {
		t.Fatalf("with a corrupt compacted file and intact originals: %v", err)
	}
	if result.Replans != 2 || len(result.Objects) != 3 {
		t.Errorf("%d plans more, objects %q", result.Replans, result.Objects)
	}
}

func TestRestore_R3_swapped(t *testing.T) {
	m := storetest.NewMemory()
	h := newHistory(t, m, 512, 5)
	other := storetest.NewMemory()
	o := newHistory(t, other, 512, 6)
	for range 5 {
		h.commit()
		o.commit()
	}
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"another history's file of the same name", o.encode(3, 3, o.states[2])},
		{"another txid's file", h.encode(4, 4, h.states[3])},
		{"a file of another page size", (&history{t: t, pageSize: 1024, rnd: h.rnd, states: map[ltx.TXID][]byte{
			3: make([]byte, 4096)}, times: h.times}).encode(3, 3, nil)},
	} {
		key := store.LTXKey(0, 3, 3)
		var original []byte
		m.Tamper(key, func(data []byte) []byte { original = bytes.Clone(data); return test.data })
		if _, _, err := restored(t, m, catalog.Target{}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", test.name, err)
		}
		m.Tamper(key, func([]byte) []byte { return original })
	}
	h.want(catalog.Target{}, 5)
	t.Run("sound file, sound hash, wrong history", func(t *testing.T) {
		if err := m.Delete(context.Background(), store.LTXKey(0, 3, 3)); err != nil {
			t.Fatal(err)
		}
		o.store = m
		o.put(store.LTXKey(0, 3, 3), o.encode(3, 3, o.states[2]), 3)
		found := 0
		for txid := ltx.TXID(3); txid <= 5; txid++ {
			data, _, err := restored(t, m, catalog.Target{TXID: txid})
			var sum *restore.ChecksumError
			if errors.As(err, &sum) || errors.Is(err, restore.ErrIncomplete) {
				found++
			} else if err != nil || !bytes.Equal(data, h.states[txid]) {
				t.Errorf("txid %d: %v, want a *ChecksumError", txid, err)
			}
		}
		if found == 0 {
			t.Error("the foreign file was never noticed")
		}
	})
}

func TestRestore_R10_vanished(t *testing.T) {
	m := storetest.NewMemory()
	h := layered(t, m, 512, 11)
	var once sync.Once
	gone := false
	f := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
		if op == "get" && key == store.LTXKey(2, 31, 60) {
			once.Do(func() { // retention runs
				gone = true
				h.compact(3, 31, 60)
				if err := m.Delete(context.Background(), key); err != nil {
					t.Error(err)
				}
			})
		}
		return storetest.None
	})
	data, result, err := restored(t, f, catalog.Target{})
	if err != nil || !bytes.Equal(data, h.states[60]) || !gone {
		t.Fatalf("retention during a restore: %v (it happened: %v)", err, gone)
	}
	if result.Replans == 0 {
		t.Error("no second plan was needed: the test proves nothing")
	}
}

func TestRestore_R11_faults(t *testing.T) {
	m := storetest.NewMemory()
	h := layered(t, m, 4096, 12)
	for _, fault := range []storetest.Fault{storetest.NotStored, storetest.Truncated, storetest.Short, storetest.Corrupt,
		storetest.Slow} {
		for n := range 4 {
			f := storetest.NewFaulty(m, storetest.Nth(n, fault, "get"))
			data, _, err := restored(t, f, catalog.Target{TXID: 58})
			if err != nil && !errors.Is(err, storetest.ErrInjected) {
				t.Errorf("fault %d at get %d: %v", fault, n, err)
			}
			if err == nil && !bytes.Equal(data, h.states[58]) {
				t.Errorf("fault %d at get %d: wrong contents", fault, n)
			}
			if f.Injected(fault) != 1 {
				t.Errorf("fault %d at get %d did not happen", fault, n)
			}
		}
	}
}
