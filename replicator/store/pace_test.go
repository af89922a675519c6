package store_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// hasty is a store on a fast connection that gives up on a sender that is idle for a while, as
// servers and our own client do.
type hasty struct {
	*storetest.Memory
	gaveUp atomic.Int64
}

// Put implements store.Store.
func (h *hasty) Put(_ context.Context, key string, body store.Body, _ store.PutOptions) (store.Object, error) {
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	const stall, flushed = 20 * time.Second, 4 << 10 // a connection's buffer is sent when it is full
	buffer, held, last := make([]byte, 64<<10), 0, time.Now()
	for err == nil {
		var n int
		n, err = r.Read(buffer[:body.Pace.Chunk(len(buffer))])
		body.Pace.Spend(n)
		if held += n; held < flushed && err == nil {
			continue
		}
		if time.Since(last) > stall {
			h.gaveUp.Add(1)
			return store.Object{}, fmt.Errorf("%w: nothing moved", store.ErrUnavailable)
		}
		held, last = 0, time.Now()
	}
	if err != io.EOF {
		return store.Object{}, err
	}
	return store.Object{Key: key}, nil
}

// after runs uploads at the same time, checks that none fails, and returns when each had ended.
func after(t *testing.T, seam *store.Seam, keys []string, sizes []int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(keys))
	var all sync.WaitGroup
	start := time.Now()
	for i, key := range keys {
		all.Go(func() {
			if _, err := seam.Put(t.Context(), key, zeros(sizes[i]), store.PutOptions{}); err != nil {
				t.Error(err)
			}
			took[i] = time.Since(start)
		})
	}
	all.Wait()
	return took
}

// TestBudgetOfMany_S36: after an outage hundreds of databases send what they have, over the lowest
// bandwidth that can be configured. No connection is idle for as long as a server waits, small
// files do not wait for large ones, and notes wait for nothing.
func TestBudgetOfMany_S36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, small, large, rate = 400, 8 << 10, 300_000, 64_000
		st := &hasty{Memory: storetest.NewMemory()}
		var keys []string
		var sizes []int
		for range many {
			keys, sizes = append(keys, store.LTXKey(0, 1, 1), store.LTXKey(0, 1, 1), "sqlwatch/lease", store.LTXKey(1, 1, 1)),
				append(sizes, large, small, 300, small)
		}
		var smalls, larges time.Duration
		for i, took := range after(t, store.Through(st, store.NewBudget(256, rate), nil), keys, sizes) {
			switch i % 4 {
			case 0:
				larges = max(larges, took)
			case 1:
				smalls = max(smalls, took)
			case 2:
				if took > 0 {
					t.Errorf("a note took %v", took)
				}
			}
		}
		ideal := func(bytes int) time.Duration { return time.Duration(bytes) * time.Second / rate }
		if most := ideal(2 * many * (small + 300)); smalls > most*11/10 {
			t.Errorf("small files of level 0 took %v, want at most %v, for half of the bandwidth", smalls, most)
		}
		if best := ideal(many * (2*small + 300 + large)); larges > best*102/100 || larges < best*98/100 {
			t.Errorf("all uploads took %v, ideal is %v", larges, best)
		}
		if n := st.gaveUp.Load(); n > 0 {
			t.Errorf("%d uploads were idle for too long", n)
		}
	})
}

// TestBudgetChanged_S36: a change of the bandwidth applies to uploads under way and to those that
// already wait.
func TestBudgetChanged_S36(t *testing.T) {
	for name, to := range map[string]int64{"more": 10_000_000, "no limit": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many, size, slow = 60, 1 << 20, 64_000
				budget := store.NewBudget(4, slow)
				time.AfterFunc(10*time.Second, func() { budget.Change(4, to) })
				var keys []string
				var sizes []int
				for i := range many {
					keys, sizes = append(keys, store.LTXKey(i%2*9, 1, 1)), append(sizes, size)
				}
				most := 12 * time.Second
				if to > 0 {
					most += many * size * time.Second / time.Duration(to)
				}
				for _, took := range after(t, store.Through(&hasty{Memory: storetest.NewMemory()}, budget, nil), keys, sizes) {
					if took < 10*time.Second || took > most {
						t.Fatalf("an upload took %v, want 10 s to %v", took, most)
					}
				}
			})
		})
	}
}

// TestBudgetLess_S36: an upload under way obeys a lower limit that is set in the meantime.
func TestBudgetLess_S36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := store.NewBudget(4, 1_000_000)
		time.AfterFunc(time.Second, func() { budget.Change(4, 100_000) })
		took := after(t, store.Through(&hasty{Memory: storetest.NewMemory()}, budget, nil),
			[]string{store.LTXKey(9, 1, 1)}, []int{2_000_000})
		if took[0] < 9500*time.Millisecond || took[0] > 12*time.Second {
			t.Errorf("one second at 1 MB/s and the rest at a tenth of it took %v, want about 11 s", took[0])
		}
	})
}

// TestBudgetEndless_S36: databases that upload without end get no more than their share: another
// database's commits are uploaded in time, and a first snapshot completes.
func TestBudgetEndless_S36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 200_000
		seam := store.Through(&hasty{Memory: storetest.NewMemory()}, store.NewBudget(1, rate), nil)
		ctx, stop := context.WithCancel(t.Context())
		put := func(key string, size int) {
			if _, err := seam.Put(ctx, key, zeros(size), store.PutOptions{}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		var others sync.WaitGroup
		for range 3 {
			others.Go(func() {
				for ctx.Err() == nil {
					put(store.LTXKey(0, 1, 1), 4<<20)
				}
			})
		}
		var longest time.Duration
		others.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				put(store.LTXKey(0, 1, 1), 8<<10)
				longest = max(longest, time.Since(start))
				time.Sleep(time.Second)
			}
		})
		const size = 5_000_000
		start := time.Now()
		put(store.LTXKey(9, 1, 1), size)
		took := time.Since(start)
		stop()
		others.Wait()
		if longest > time.Second {
			t.Errorf("a small file of level 0 took %v", longest)
		}
		// Beside three uploads with four times its weight each, its share is more than a fifteenth
		// of the bandwidth.
		if most := time.Duration(size) * time.Second / (rate / 15); took > most {
			t.Errorf("the first copy took %v, want at most %v", took, most)
		}
	})
}
