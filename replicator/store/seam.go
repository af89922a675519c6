package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"log/slog"
	"time"
)

// Seam is the one place through which the name and the body of every object pass on
// their way to a store and back. What is to be done with all of them is done here,
// once for every kind of store, and nothing on either side knows of it:
//
//   - bodies wait for their turn and keep to the bandwidth (Budget);
//   - what was stored as a stream, whose bytes nobody has any more, is compared with a
//     sample of what the store returns (Witness) before Put returns nil;
//   - what is read whole is compared with the SHA-256 in its metadata;
//   - requests are counted, where the store does not count its own.
//
// Sealing objects (encryption by the client) belongs here too: into outward and
// inward, and where names are to be hidden into name and key. Listings are in order of
// key, so names must keep it.
type Seam struct {
	inner   Store
	budget  *Budget
	observe func(Request)
}

// Through returns st behind a Seam. A nil budget limits nothing. observe, which may
// be nil and must not block, is told of every call: for stores that send no requests
// of their own to report, such as a directory. A get ends when its reader is there, a
// list with its last object.
func Through(st Store, budget *Budget, observe func(Request)) *Seam {
	if observe == nil {
		observe = func(Request) {}
	}
	return &Seam{inner: st, budget: budget, observe: observe}
}

// Unwrap returns the store behind the seam.
func (s *Seam) Unwrap() Store { return s.inner }

// name is what an object is called in the store, and key its inverse.
func (s *Seam) name(key string) string { return key }

func (s *Seam) key(name string) (key string, ours bool) { return name, true }

// Put implements Store.
func (s *Seam) Put(ctx context.Context, key string, body Body, opts PutOptions) (Object, error) {
	pace, done, err := s.budget.admit(ctx, key, body)
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	defer done()
	start := time.Now()
	name := s.name(key)
	body.Pace = pace
	body, witness := s.outward(body)
	object, err := s.inner.Put(ctx, name, body, opts)
	s.report("put", start, err)
	if err == nil && witness != nil {
		err = s.confirm(ctx, name, witness)
	}
	object.Key = key
	return object, err
}

// outward is a body on its way to the store.
func (s *Seam) outward(body Body) (Body, *Witness) {
	if body.Size >= 0 {
		return body, nil
	}
	return Witnessed(body)
}

// confirm compares what was stored with what was sent. What is something else is
// taken away again: under its key it would keep what is right from being stored.
func (s *Seam) confirm(ctx context.Context, name string, witness *Witness) error {
	err := witness.Confirm(ctx, s.inner, name)
	if errors.Is(err, ErrCorrupt) {
		err = errors.Join(err, s.inner.Delete(ctx, name))
	}
	return err
}

// Get implements Store.
func (s *Seam) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	operation := "get"
	if length == 0 {
		operation = "head"
	}
	start := time.Now()
	body, object, err := s.inner.Get(ctx, s.name(key), offset, length)
	s.report(operation, start, err)
	object.Key = key
	if err != nil || body == nil {
		return body, object, err
	}
	return s.inward(key, offset, length, body, object), object, nil
}

// inward is a body on its way back.
func (s *Seam) inward(key string, offset, length int64, body io.ReadCloser, object Object) io.ReadCloser {
	whole := offset == 0 && (length < 0 || length >= object.Size)
	if want := object.Metadata[MetaSHA256]; whole && want != "" {
		return &verified{ReadCloser: body, key: key, hash: sha256.New(), want: want, left: object.Size}
	}
	return body
}

// List implements Store.
func (s *Seam) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		start := time.Now()
		var failed error
		defer func() { s.report("list", start, failed) }()
		if after != "" {
			after = s.name(after)
		}
		for object, err := range s.inner.List(ctx, s.name(prefix), after) {
			failed = err
			key, ours := s.key(object.Key)
			if err == nil && !ours {
				continue
			}
			object.Key = key
			if !yield(object, err) {
				return
			}
		}
	}
}

// Delete implements Store.
func (s *Seam) Delete(ctx context.Context, keys ...string) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.name(key)
	}
	start := time.Now()
	err := s.inner.Delete(ctx, names...)
	s.report("delete", start, err)
	var refused *DeleteError
	if errors.As(err, &refused) {
		for i := range refused.Refused {
			refused.Refused[i].Key, _ = s.key(refused.Refused[i].Key)
		}
	}
	return err
}

func (s *Seam) report(operation string, start time.Time, err error) {
	s.observe(Request{Operation: operation, Reason: FailureReason(err), Duration: time.Since(start)})
}

// verified is the body of a whole object that ends with an error where it is not what
// its metadata says.
type verified struct {
	io.ReadCloser
	key  string
	hash hash.Hash
	want string
	left int64
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	v.left -= int64(n)
	if err != io.EOF || v.left > 0 {
		return n, err
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
		return n, fmt.Errorf("get %s: %w: sha256 is %s, its metadata says %s", v.key, ErrCorrupt, got, v.want)
	}
	return n, io.EOF
}

// Sweeper is a store that may hold unfinished uploads, which a crash leaves behind.
type Sweeper interface {
	// SweepUploads aborts those that were begun before a time and are not under way in
	// this process. It returns how many.
	SweepUploads(ctx context.Context, before time.Time) (int, error)
}

// abandoned is how old an unfinished upload is that nobody goes on with.
const abandoned = 48 * time.Hour

// Sweep frees what a crash in the middle of an upload left at the store, where it is
// invisible and paid for, and tells log. What fails waits for the next time.
func Sweep(ctx context.Context, st Store, now time.Time, log *slog.Logger) {
	sweeper, ok := As[Sweeper](st)
	if !ok {
		return
	}
	if n, err := sweeper.SweepUploads(ctx, now.Add(-abandoned)); n > 0 || err != nil {
		log.Info("looked in the store for uploads that a crash left unfinished", "removed", n, "err", err)
	}
}

// As returns the first store of type T among st and what is behind it.
func As[T any](st Store) (found T, ok bool) {
	for st != nil {
		if found, ok = st.(T); ok {
			return found, true
		}
		inner, wrapped := st.(interface{ Unwrap() Store })
		if !wrapped {
			break
		}
		st = inner.Unwrap()
	}
	return found, false
}
