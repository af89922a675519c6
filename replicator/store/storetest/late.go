package storetest

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Late is a host's connection to a store that loses packets: a write under way may reach the store
// long after its sender has given up.
type Late struct {
	inner store.Store

	mu    sync.Mutex // guards what follows; not held during requests
	holds func(key string) bool
	cut   bool
	under []func() error // the writes under way
	waits bool
}

// NewLate returns a connection that loses nothing yet.
func NewLate(inner store.Store) *Late { return &Late{inner: inner} }

// CutAt makes the next write of a key for which holds returns true stay under way. From then on all
// other requests are lost.
func (l *Late) CutAt(holds func(key string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = holds
}

// Waiting makes the senders of writes under way wait for the reply, as a suspended process
// does. Otherwise they give up at once.
func (l *Late) Waiting() *Late {
	l.waits = true
	return l
}

// Cut loses every request from now on.
func (l *Late) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
}

// UnderWay returns how many writes are under way.
func (l *Late) UnderWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.under)
}

// Deliver lets the writes under way reach the store.
func (l *Late) Deliver() (err error) {
	l.mu.Lock()
	under := l.under
	l.under = nil
	l.mu.Unlock()
	for _, put := range under {
		err = errors.Join(err, put())
	}
	return err
}

// Mend lets every request through again.
func (l *Late) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.holds = false, nil
}

func (l *Late) lost(op, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return injected(op, key)
	}
	return nil
}

// Put implements store.Store.
func (l *Late) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	if err := l.lost("put", key); err != nil {
		return store.Object{}, err
	}
	l.mu.Lock()
	if l.holds == nil || !l.holds(key) {
		l.mu.Unlock()
		return l.inner.Put(ctx, key, body, opts)
	}
	l.holds, l.cut = nil, true // before anything else is let through
	l.mu.Unlock()
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return store.Object{}, err
	}
	var object store.Object
	arrived := make(chan error, 1)
	l.mu.Lock()
	l.under = append(l.under, func() (err error) {
		object, err = l.inner.Put(context.WithoutCancel(ctx), key, Bytes(data), opts)
		arrived <- err
		return err
	})
	l.mu.Unlock()
	if !l.waits {
		return store.Object{}, injected("put", key)
	}
	select {
	case err := <-arrived:
		return object, err
	case <-ctx.Done():
		return store.Object{}, ctx.Err()
	}
}

// Get implements store.Store.
func (l *Late) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if err := l.lost("get", key); err != nil {
		return nil, store.Object{}, err
	}
	return l.inner.Get(ctx, key, offset, length)
}

// List implements store.Store.
func (l *Late) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		if err := l.lost("list", prefix); err != nil {
			yield(store.Object{}, err)
			return
		}
		l.inner.List(ctx, prefix, after)(yield)
	}
}

// Delete implements store.Store.
func (l *Late) Delete(ctx context.Context, keys ...string) error {
	if err := l.lost("delete", ""); err != nil {
		return err
	}
	return l.inner.Delete(ctx, keys...)
}
