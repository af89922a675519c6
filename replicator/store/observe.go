package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Request is one request to a store: what is counted.
type Request struct {
	Operation string // put, multipart, get, head, list, delete
	Reason    string // "" when it succeeded, otherwise a word of FailureReason
	Duration  time.Duration
}

// FailureReason is the label value for a store's error, "" for nil.
func FailureReason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, ErrConflict):
		return "conflict"
	case errors.Is(err, ErrAuth):
		return "auth"
	case errors.Is(err, ErrMisplaced):
		return "misplaced"
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "other"
}

// Observed returns a store that reports every call to observe, which must not
// block. It is for stores that send no requests of their own to report, such as
// a directory. A get ends when its reader is there, a list with its last object.
func Observed(store Store, observe func(Request)) Store { return observed{store, observe} }

type observed struct {
	store   Store
	observe func(Request)
}

func (o observed) report(operation string, start time.Time, err error) {
	o.observe(Request{Operation: operation, Reason: FailureReason(err), Duration: time.Since(start)})
}

// Put implements Store.
func (o observed) Put(ctx context.Context, key string, body Body, opts PutOptions) (Object, error) {
	start := time.Now()
	object, err := o.store.Put(ctx, key, body, opts)
	o.report("put", start, err)
	return object, err
}

// Get implements Store.
func (o observed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	operation := "get"
	if length == 0 {
		operation = "head"
	}
	start := time.Now()
	body, object, err := o.store.Get(ctx, key, offset, length)
	o.report(operation, start, err)
	return body, object, err
}

// List implements Store.
func (o observed) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		start := time.Now()
		var failed error
		defer func() { o.report("list", start, failed) }()
		for object, err := range o.store.List(ctx, prefix, after) {
			failed = err
			if !yield(object, err) {
				return
			}
		}
	}
}

// Delete implements Store.
func (o observed) Delete(ctx context.Context, keys ...string) error {
	start := time.Now()
	err := o.store.Delete(ctx, keys...)
	o.report("delete", start, err)
	return err
}
