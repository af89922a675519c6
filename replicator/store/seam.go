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

// Seam wraps a store: every key and body passes through it on the way to the store and back.
// It does what is common to all kinds of stores, so that neither they nor their callers have
// to:
//
//   - uploads wait for a place and keep to the bandwidth (Budget);
//   - an object stored from a stream, which cannot be read again, is compared with a sample of
//     what was sent (Witness) before Put returns nil;
//   - an object that is read whole is compared with the SHA-256 in its metadata;
//   - requests are counted, if the store does not count its own.
//
// Client-side encryption would belong here too: in outward and inward, and in name and key if
// it hides names. Listings are in order of key, so names must keep that order.
type Seam struct {
	inner   Store
	budget  *Budget
	observe func(Request)
}

// Through returns st behind a Seam. A nil budget limits nothing. observe, which may be nil and
// must not block, is called with every call: for stores that report no requests of their own,
// such as a directory. A get is timed until its reader is returned, a list until its last
// object.
func Through(st Store, budget *Budget, observe func(Request)) *Seam {
	if observe == nil {
		observe = func(Request) {}
	}
	return &Seam{inner: st, budget: budget, observe: observe}
}

// Unwrap returns the store behind the seam.
func (s *Seam) Unwrap() Store { return s.inner }

// name maps a key to the object's name in the store; key is its inverse.
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
	body, witness := s.outward(body.until(ctx.Err))
	object, err := s.inner.Put(ctx, name, body, opts)
	s.report("put", start, err)
	if err == nil && witness != nil {
		etag := object.ETag
		if opts.Create {
			etag = "" // nobody can have replaced it
		}
		err = s.confirm(ctx, name, etag, witness)
	}
	object.Key = key
	return object, err
}

// until returns a body that cannot be read once done returns an error: to hash a snapshot before it is sent can take
// longer than a shutdown may.
func (b Body) until(done func() error) Body {
	open := b.Open
	b.Open = func() (io.ReadCloser, error) {
		r, err := open()
		return bounded{r, done}, err
	}
	return b
}

// bounded is a reader until done returns an error.
type bounded struct {
	io.ReadCloser
	done func() error
}

// Read implements io.Reader.
func (b bounded) Read(p []byte) (int, error) {
	if err := b.done(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// outward prepares a body for the store, with a Witness if it is a stream.
func (s *Seam) outward(body Body) (Body, *Witness) {
	if body.Size >= 0 {
		return body, nil
	}
	return Witnessed(body)
}

// confirm compares the stored object with what was sent. If they differ, it deletes the object,
// which would otherwise prevent the right one from being stored under its key. If etag is not "", it is that of the
// object that was stored, and an object with another one was stored by another writer: that is left alone.
func (s *Seam) confirm(ctx context.Context, name, etag string, witness *Witness) error {
	err := witness.Confirm(ctx, s.inner, name)
	if !errors.Is(err, ErrCorrupt) {
		return err
	}
	if etag != "" {
		if _, now, headErr := s.inner.Get(ctx, name, 0, 0); headErr != nil || now.ETag != "" && now.ETag != etag {
			return errors.Join(err, headErr)
		}
	}
	return errors.Join(err, s.inner.Delete(ctx, name))
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

// inward returns the body of a Get; one that is read whole is verified.
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

// verified is the body of a whole object; it ends with ErrCorrupt if it does not match the
// SHA-256 in the metadata.
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

// Sweeper is a store in which a crash may leave unfinished multipart uploads.
type Sweeper interface {
	// SweepUploads aborts uploads that were begun before the given time and that this process
	// does not have under way. It returns how many.
	SweepUploads(ctx context.Context, before time.Time) (int, error)
}

// abandoned is the age from which an unfinished upload counts as abandoned.
const abandoned = 48 * time.Hour

// Sweep aborts uploads that a crash left unfinished in the store, where they are invisible but
// billed, and logs what it did. It is called regularly, so an error is only logged.
func Sweep(ctx context.Context, st Store, now time.Time, log *slog.Logger) {
	sweeper, ok := As[Sweeper](st)
	if !ok {
		return
	}
	if n, err := sweeper.SweepUploads(ctx, now.Add(-abandoned)); n > 0 || err != nil {
		log.Info("looked in the store for uploads that a crash left unfinished", "removed", n, "err", err)
	}
}

// As returns the first store of type T among st and the stores that it wraps.
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
