package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// ErrInjected is the error of a broken call of a Faulty or Late store, together with
// store.ErrUnavailable.
var ErrInjected = errors.New("injected fault")

// Fault is one way in which a call can go wrong.
type Fault int

// The faults. There are two for a write, because it matters whether a failed write happened.
const (
	None      Fault = iota
	NotStored       // Put, Delete: fails, nothing happened. Get, List: fails
	Stored          // Put, Delete: fails, but it was done
	Truncated       // Get: the reader fails half way with an error
	Short           // Get: the reader ends half way as if that were all
	Corrupt         // Get: one bit of the middle byte is flipped
	Slow            // Get: the reader gives one byte at a time
	Hidden          // List: the newest object is missing
)

// Faulty wraps a store and breaks calls as Decide says.
type Faulty struct {
	inner store.Store

	// Decide is called before each call with its operation ("put", "get", "list", "delete"), its
	// key, and the number of calls before it. It may be called concurrently.
	Decide func(op, key string, n int) Fault

	n        atomic.Int64
	mu       sync.Mutex
	injected map[Fault]int
}

// NewFaulty wraps inner. A nil decide breaks nothing.
func NewFaulty(inner store.Store, decide func(op, key string, n int) Fault) *Faulty {
	if decide == nil {
		decide = func(string, string, int) Fault { return None }
	}
	return &Faulty{inner: inner, Decide: decide, injected: make(map[Fault]int)}
}

// Nth returns a decide function that breaks call n, counted from 0 over the operations in ops, or
// over all if ops is empty.
func Nth(n int, fault Fault, ops ...string) func(op, key string, call int) Fault {
	var seen atomic.Int64
	return func(op, _ string, _ int) Fault {
		match := len(ops) == 0
		for _, o := range ops {
			match = match || o == op
		}
		if match && seen.Add(1) == int64(n)+1 {
			return fault
		}
		return None
	}
}

// Calls returns the number of calls so far.
func (f *Faulty) Calls() int { return int(f.n.Load()) }

// Injected returns how often the fault happened, so that a test can check that it broke something.
func (f *Faulty) Injected(fault Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected[fault]
}

func (f *Faulty) fault(op, key string) Fault {
	fault := f.Decide(op, key, int(f.n.Add(1))-1)
	if fault != None {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.injected[fault]++
	}
	return fault
}

func injected(op, key string) error {
	return fmt.Errorf("%s %s: %w: %w", op, key, store.ErrUnavailable, ErrInjected)
}

// Put implements store.Store.
func (f *Faulty) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	switch f.fault("put", key) {
	case NotStored:
		return store.Object{}, injected("put", key)
	case Stored:
		if _, err := f.inner.Put(ctx, key, body, opts); err != nil {
			return store.Object{}, err
		}
		return store.Object{}, injected("put", key)
	default:
		return f.inner.Put(ctx, key, body, opts)
	}
}

// Get implements store.Store.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	fault := f.fault("get", key)
	if fault == NotStored {
		return nil, store.Object{}, injected("get", key)
	}
	r, obj, err := f.inner.Get(ctx, key, offset, length)
	if err != nil || r == nil || fault == None {
		return r, obj, err
	}
	n := obj.Size - offset
	if length > 0 && length < n {
		n = length
	}
	return &brokenReader{ReadCloser: r, fault: fault, middle: n / 2}, obj, nil
}

// brokenReader applies its fault at the byte at offset middle.
type brokenReader struct {
	io.ReadCloser
	fault  Fault
	middle int64
	at     int64
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	switch {
	case b.fault == Slow:
		p = p[:1]
	case b.fault == Corrupt:
	case b.at >= b.middle && b.fault == Short:
		return 0, io.EOF
	case b.at >= b.middle && b.fault == Truncated:
		return 0, injected("read", "body")
	default:
		p = p[:min(int64(len(p)), b.middle-b.at)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.fault == Corrupt && b.at <= b.middle && b.middle < b.at+int64(n) {
		p[b.middle-b.at] ^= 0x10
	}
	b.at += int64(n)
	return n, err
}

// List implements store.Store.
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		fault := f.fault("list", prefix)
		if fault == NotStored {
			yield(store.Object{}, injected("list", prefix))
			return
		}
		if fault != Hidden {
			f.inner.List(ctx, prefix, after)(yield)
			return
		}
		var held *store.Object
		for obj, err := range f.inner.List(ctx, prefix, after) {
			if err != nil {
				yield(obj, err)
				return
			}
			if held != nil && !yield(*held, nil) {
				return
			}
			held = &obj
		}
	}
}

// Delete implements store.Store.
func (f *Faulty) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	switch f.fault("delete", first) {
	case NotStored:
		return injected("delete", first)
	case Stored:
		if err := f.inner.Delete(ctx, keys...); err != nil {
			return err
		}
		return injected("delete", first)
	default:
		return f.inner.Delete(ctx, keys...)
	}
}
