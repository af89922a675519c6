package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestSeam: a store behind a Seam fulfils the contract.
func TestSeam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return store.Through(storetest.NewMemory(), store.NewBudget(2, 0), nil)
	})
}

// spoiling is a store that stores other bytes than it was given.
type spoiling struct {
	*storetest.Memory
	spoil func([]byte) []byte
}

// Put implements store.Store.
func (s spoiling) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	object, err := s.Memory.Put(ctx, key, body, opts)
	if err == nil {
		s.Memory.Tamper(key, s.spoil)
	}
	return object, err
}

// TestReadBack_S37: a stream that was not stored as it was sent is not acknowledged, and is deleted
// again.
func TestReadBack_S37(t *testing.T) {
	t.Parallel()
	key := store.LTXKey(store.SnapshotLevel, 1, 7)
	for _, size := range []int{0, 1, 4096, 4097, 5 * 4096, 1<<20 + 77} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rand.Int())
		}
		for name, spoil := range map[string]func([]byte) []byte{
			"nothing":        func(b []byte) []byte { return b },
			"first byte":     func(b []byte) []byte { b[0] ^= 1; return b },
			"last byte":      func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"cut":            func(b []byte) []byte { return b[:len(b)-1] },
			"longer":         func(b []byte) []byte { return append(b, 0) },
			"zeros for half": func(b []byte) []byte { clear(b[:len(b)/2]); return b },
		} {
			if size == 0 && name != "nothing" && name != "longer" || size < 10 && name == "zeros for half" {
				continue
			}
			m := storetest.NewMemory()
			_, err := store.Through(spoiling{m, spoil}, nil, nil).Put(t.Context(), key, storetest.Stream(bytes.NewReader(data)),
				store.PutOptions{Create: true})
			switch {
			case name == "nothing" && err != nil:
				t.Errorf("%d bytes: %v", size, err)
			case name != "nothing" && size > 0 && !errors.Is(err, store.ErrCorrupt):
				t.Errorf("%d bytes, %s: %v, want ErrCorrupt", size, name, err)
			case name != "nothing" && size > 0 && len(m.Keys()) != 0:
				t.Errorf("%d bytes, %s: the wrong object was not deleted", size, name)
			}
			if n := m.Requests()["get"]; n > 7 {
				t.Errorf("%d bytes were read back in %d requests", size, n)
			}
		}
	}
}

// overtaken is a store without conditions, in which another writer replaces each object as soon as it is stored.
type overtaken struct{ spoiling }

// Get implements store.Store.
func (o overtaken) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	body, object, err := o.spoiling.Get(ctx, key, offset, length)
	object.ETag = "of the other writer"
	return body, object, err
}

// TestReadBack_S13: on a store without conditions, an object that another writer has stored under
// the key meanwhile counts as corrupt too, but is not deleted.
func TestReadBack_S13(t *testing.T) {
	t.Parallel()
	m, key := storetest.NewMemory(), store.LTXKey(store.SnapshotLevel, 1, 7)
	other := func(b []byte) []byte { b[0] ^= 1; return b }
	_, err := store.Through(overtaken{spoiling{m, other}}, nil, nil).Put(t.Context(), key,
		storetest.Stream(bytes.NewReader(make([]byte, 5000))), store.PutOptions{})
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	if len(m.Keys()) != 1 {
		t.Error("the other writer's object was deleted")
	}
	spoiled := storetest.NewMemory()
	_, err = store.Through(spoiling{spoiled, other}, nil, nil).Put(t.Context(), key,
		storetest.Stream(bytes.NewReader(make([]byte, 5000))), store.PutOptions{})
	if !errors.Is(err, store.ErrCorrupt) || len(spoiled.Keys()) != 0 {
		t.Errorf("%v, left %q: want ErrCorrupt, and our own wrong object deleted", err, spoiled.Keys())
	}
}

// TestWhole_S7: the bytes of an object that is read whole are compared with its metadata, whatever
// the store.
func TestWhole_S7(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	seam := store.Through(m, nil, nil)
	body := storetest.Bytes([]byte("0123456789"))
	if _, err := seam.Put(t.Context(), "sqlwatch/x", body,
		store.PutOptions{Metadata: map[string]string{store.MetaSHA256: body.SHA256}}); err != nil {
		t.Fatal(err)
	}
	m.Tamper("sqlwatch/x", func(b []byte) []byte { b[5] ^= 1; return b })
	r, _, err := seam.Get(t.Context(), "sqlwatch/x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}

// deaf is a store that reads all of a body, whatever becomes of its context.
type deaf struct {
	*storetest.Memory
	read int64
}

func (d *deaf) Put(_ context.Context, _ string, body store.Body, _ store.PutOptions) (store.Object, error) {
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	d.read, err = io.Copy(io.Discard, r)
	return store.Object{}, err
}

// reads calls f at each read.
type reads struct {
	io.Reader
	f func()
}

func (r reads) Read(p []byte) (int, error) { r.f(); return r.Reader.Read(p) }

// TestPut_P3_cancelled: an upload that is cancelled reads no more of its body, as where its digest is made first.
func TestPut_P3_cancelled(t *testing.T) {
	t.Parallel()
	d := &deaf{Memory: storetest.NewMemory()}
	ctx, cancel := context.WithCancel(t.Context())
	body := store.Body{Size: 10 << 20, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(reads{bytes.NewReader(make([]byte, 10<<20)), cancel}), nil
	}}
	if _, err := store.Through(d, nil, nil).Put(ctx, "sqlwatch/x", body, store.PutOptions{}); !errors.Is(err,
		context.Canceled) || d.read > 1<<20 {
		t.Errorf("%v after %d bytes", err, d.read)
	}
}

// line is a store behind a slow connection that all uploads share. It gives up on uploads that take
// too long, as servers do.
type line struct {
	*storetest.Memory
	rate    float64
	patient time.Duration

	mu      sync.Mutex
	free    time.Time
	active  atomic.Int64
	most    atomic.Int64
	late    atomic.Int64
	longest time.Duration // the longest upload of level 0
}

// Put implements store.Store.
func (l *line) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	start := time.Now()
	level, _, _, err := store.ParseLTXKey(key)
	if err == nil && level > 0 {
		n := l.active.Add(1)
		defer l.active.Add(-1)
		for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
		}
	}
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Read(buffer[:body.Pace.Chunk(len(buffer))])
		body.Pace.Spend(n)
		l.mu.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
		wait := time.Until(l.free)
		l.mu.Unlock()
		time.Sleep(wait)
		if time.Since(start) > l.patient {
			l.late.Add(1)
			return store.Object{}, fmt.Errorf("%w: too late", store.ErrUnavailable)
		}
		if err == io.EOF {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if took := time.Since(start); level == 0 {
		l.longest = max(l.longest, took)
	}
	return store.Object{Key: key}, nil
}

func zeros(size int) store.Body {
	return store.Body{Size: int64(size), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, size))), nil
	}}
}

// TestBudget_S36: sixty databases upload over a connection of 7 Mbit/s, in simulated time. All
// uploads end within 1.15 of the ideal time, none starts over, and the commits of a busy database
// are uploaded in the meantime.
func TestBudget_S36(t *testing.T) {
	for name, bandwidth := range map[string]int64{"as fast as the line": 0, "half of the line": 437_500} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const databases, size, rate = 60, 4 << 20, 875_000
				l := &line{Memory: storetest.NewMemory(), rate: rate, patient: 90 * time.Second}
				seam := store.Through(l, store.NewBudget(4, bandwidth), nil)
				start := time.Now()
				ctx, stop := context.WithCancel(t.Context())
				var all, busy sync.WaitGroup
				busy.Go(func() {
					for n := 1; ctx.Err() == nil; n++ {
						if _, err := seam.Put(ctx, store.LTXKey(0, 1, 1), zeros(8<<10), store.PutOptions{}); err != nil &&
							ctx.Err() == nil {
							t.Error(err)
						}
						time.Sleep(time.Second)
					}
				})
				for i := range databases {
					all.Go(func() {
						for {
							if _, err := seam.Put(ctx, store.LTXKey(store.SnapshotLevel, 1, 7), zeros(size+i),
								store.PutOptions{}); err == nil {
								return
							}
						}
					})
				}
				all.Wait()
				took := time.Since(start)
				stop()
				busy.Wait()
				share := float64(rate)
				if bandwidth > 0 {
					share = float64(bandwidth)
				}
				ideal := time.Duration(databases * size / share * float64(time.Second))
				if took > ideal*115/100 || l.late.Load() > 0 || l.most.Load() != 4 {
					t.Errorf("%v, ideal is %v; %d started over; %d at a time, want 4", took, ideal, l.late.Load(), l.most.Load())
				}
				if l.longest > 2*time.Second {
					t.Errorf("a file of level 0 took %v", l.longest)
				}
			})
		})
	}
}

// TestBudgetOrder_S36: small uploads go before large ones, but large ones do not wait for ever and
// never take the last place. An upload that gives up waiting takes no place.
func TestBudgetOrder_S36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const small, large = 1 << 20, 1 << 30
		seam := store.Through(storetest.NewMemory(), store.NewBudget(2, 0), nil)
		admit := func(ctx context.Context, size int64) (func(), error) {
			_, done, err := store.Admit(ctx, seam, size)
			return done, err
		}
		first, err := admit(t.Context(), large)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := admit(ctx, large); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second large upload with two places: %v, want it to wait", err)
		}
		second, err := admit(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		var order []int64
		var mu sync.Mutex
		var waiting sync.WaitGroup
		for _, size := range []int64{large, small, small, small, small, small} {
			waiting.Go(func() {
				done, err := admit(t.Context(), size)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, size)
				mu.Unlock()
				time.Sleep(time.Second)
				done()
			})
			synctest.Wait()
		}
		first()
		synctest.Wait()
		second()
		waiting.Wait()
		at := 0
		for i, size := range order {
			if size == large {
				at = i
			}
		}
		if len(order) != 6 || at == 0 || at > 4 {
			t.Errorf("the large upload was number %d of %d, counted from 0", at, len(order))
		}
	})
}

// TestBudgetLists_S36: a list of page checksums waits for a place like other bulk uploads; a lease
// does not.
func TestBudgetLists_S36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seam := store.Through(storetest.NewMemory(), store.NewBudget(1, 0), nil)
		_, done, err := store.Admit(t.Context(), seam, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		list, _ := store.SumsKey(store.SnapshotLevel, 1, 7)
		put := func(key string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := seam.Put(ctx, key, zeros(9), store.PutOptions{})
			return err
		}
		if err := put(list); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a list during a large upload: %v, want it to wait", err)
		}
		if err := put("sqlwatch/lease"); err != nil {
			t.Errorf("a lease during a large upload: %v", err)
		}
		done()
		if err := put(list); err != nil {
			t.Errorf("a list after the large upload: %v", err)
		}
	})
}

// stuck is a store whose writes end only when they are cancelled.
type stuck struct{ *storetest.Memory }

// Put implements store.Store.
func (stuck) Put(ctx context.Context, _ string, _ store.Body, _ store.PutOptions) (store.Object, error) {
	<-ctx.Done()
	return store.Object{}, ctx.Err()
}

// tardy is a store that reads a body at once and answers late.
type tardy struct{ *storetest.Memory }

// Put implements store.Store.
func (tardy) Put(_ context.Context, key string, body store.Body, _ store.PutOptions) (store.Object, error) {
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	buffer := make([]byte, 64<<10)
	for left := body.Size; left > 0 && err == nil; { // to the last byte, but not to io.EOF, as HTTP does
		var n int
		n, err = r.Read(buffer[:body.Pace.Chunk(len(buffer))])
		body.Pace.Spend(n)
		left -= int64(n)
	}
	time.Sleep(time.Hour)
	return store.Object{Key: key}, err
}

// TestBudgetAnsweredLate_S38: with bandwidth for three senders, an upload that has sent everything
// and waits for the answer does not take a place that the commits of other databases need.
func TestBudgetAnsweredLate_S38(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, bandwidth = 70_000, 3 * 4096 / 2
		budget := store.NewBudget(4, bandwidth).At("a")
		late, beside := store.Through(tardy{}, budget, nil), store.Through(&hasty{Memory: storetest.NewMemory()}, budget, nil)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, err := late.Put(t.Context(), store.LTXKey(0, 1, 1), zeros(size), store.PutOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		if _, err := beside.Put(t.Context(), store.LTXKey(0, 1, 1), zeros(size), store.PutOptions{}); err != nil {
			t.Error(err)
		}
		if took, most := time.Since(start), 4*size*time.Second/bandwidth*11/10; took > most {
			t.Errorf("the commits of another database took %v, want at most %v", took, most)
		}
		all.Wait()
	})
}

// TestBudgetHanging_S38: more uploads to one store hang than there are places. Uploads to another
// endpoint do not wait for them; those to the same endpoint do.
func TestBudgetHanging_S38(t *testing.T) {
	for name, bandwidth := range map[string]int64{"as fast as the line": 0, "room for three": 3 * 4096 / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget := store.NewBudget(4, bandwidth)
				hanging := store.Through(stuck{storetest.NewMemory()}, budget.At("a"), nil)
				healthy := store.Through(storetest.NewMemory(), budget.At("b"), nil)
				beside := store.Through(storetest.NewMemory(), budget.At("a"), nil)
				ctx, stop := context.WithCancel(t.Context())
				var all sync.WaitGroup
				for i := range 8 {
					all.Go(func() {
						_, _ = hanging.Put(ctx, store.LTXKey(i%2*9, 1, 7), zeros(100_000), store.PutOptions{})
					})
				}
				synctest.Wait()
				put := func(st store.Store, level int) error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, err := st.Put(ctx, store.LTXKey(level, 1, 7), zeros(100_000), store.PutOptions{})
					return err
				}
				for _, level := range []int{0, 1, 9} {
					if err := put(healthy, level); err != nil {
						t.Errorf("level %d at another endpoint: %v", level, err)
					}
				}
				if err := put(beside, 9); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("at the same endpoint: %v, want it to wait", err)
				}
				stop()
				all.Wait()
			})
		})
	}
}
