package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// pageSize is how many objects one list request returns, as in S3.
const pageSize = 1000

// Memory is a store.Store in memory that checks how it is used: it is a violation to put an LTX
// file again with other bytes, or a body without the size or SHA-256 that it announces.
type Memory struct {
	// ListMetadata makes List return metadata, as store/file does and S3 does not.
	ListMetadata bool

	// Locked reports whether a key cannot be deleted. If it is nil, all can.
	Locked func(key string) bool

	mu         sync.Mutex
	objects    map[string]stored
	keys       []string // sorted
	next       int      // for ETags
	requests   map[string]int
	violations []string
	tb         testing.TB
	now        func() time.Time
}

type stored struct {
	object store.Object
	data   []byte
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{objects: make(map[string]stored), requests: make(map[string]int), now: time.Now}
}

// Enforce makes every violation of the protocol fail the test.
func (m *Memory) Enforce(tb testing.TB) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tb = tb
	return m
}

// SetClock gives the store another clock for Object.Modified.
func (m *Memory) SetClock(now func() time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = now
}

// Violations returns the violations of the protocol so far.
func (m *Memory) Violations() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.violations)
}

// Requests returns how many requests a remote store would have seen, by operation: "put", "get",
// "head", "list" (one for each thousand keys), "delete".
func (m *Memory) Requests() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.requests)
}

// Keys returns all keys in order.
func (m *Memory) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys)
}

// Tamper changes a stored object's bytes without a Put: its ETag and metadata stay the same.
func (m *Memory) Tamper(key string, edit func(data []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.objects[key]
	s.data = edit(bytes.Clone(s.data))
	s.object.Size = int64(len(s.data))
	m.objects[key] = s
}

// Put implements store.Store.
func (m *Memory) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	data, err := m.read(ctx, key, body)
	if err != nil {
		return store.Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests["put"]++
	old, exists := m.objects[key]
	if opts.Create && exists || opts.Match != "" && (!exists || old.object.ETag != opts.Match) {
		return store.Object{}, fmt.Errorf("put %s: %w", key, store.ErrExists)
	}
	if exists && strings.HasSuffix(key, ".ltx") && !bytes.Equal(old.data, data) {
		return store.Object{}, m.violation("immutable key %s was put with other bytes", key)
	}
	m.next++
	obj := store.Object{Key: key, Size: int64(len(data)), ETag: fmt.Sprintf("%q", fmt.Sprint(m.next)), Modified: m.now(),
		Metadata: maps.Clone(opts.Metadata)}
	m.objects[key] = stored{object: obj, data: data}
	if !exists {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	obj.Metadata = maps.Clone(obj.Metadata)
	return obj, nil
}

// read reads the body without holding mu, as a server receives it.
func (m *Memory) read(ctx context.Context, key string, body store.Body) ([]byte, error) {
	r, err := body.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	if body.SHA256 != "" && body.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, m.locked("body of %s does not have the announced sha256", key)
	}
	if body.Size >= 0 && body.Size != int64(len(data)) {
		return nil, m.locked("body of %s has %d bytes, not the announced %d", key, len(data), body.Size)
	}
	return data, nil
}

func (m *Memory) locked(format string, args ...any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.violation(format, args...)
}

func (m *Memory) violation(format string, args ...any) error {
	err := fmt.Errorf("protocol violation: "+format, args...)
	m.violations = append(m.violations, err.Error())
	if m.tb != nil {
		m.tb.Error(err)
	}
	return err
}

// Get implements store.Store.
func (m *Memory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, store.Object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if length == 0 {
		m.requests["head"]++
	} else {
		m.requests["get"]++
	}
	s, ok := m.objects[key]
	if !ok {
		return nil, store.Object{}, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	obj := s.object
	obj.Metadata = maps.Clone(obj.Metadata)
	if length == 0 {
		return nil, obj, nil
	}
	if offset < 0 || offset > obj.Size {
		return nil, store.Object{}, fmt.Errorf("get %s: offset %d is outside of the %d bytes", key, offset, obj.Size)
	}
	data := s.data[offset:]
	if length > 0 && length < int64(len(data)) {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data)), obj, nil
}

// List implements store.Store. It reads page by page, so a key that is put or deleted in the
// meantime may or may not be listed.
func (m *Memory) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for {
			if err := ctx.Err(); err != nil {
				yield(store.Object{}, err)
				return
			}
			page, more := m.page(prefix, after)
			for _, obj := range page {
				if !yield(obj, nil) {
					return
				}
			}
			if !more {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (m *Memory) page(prefix, after string) (page []store.Object, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests["list"]++
	i, found := slices.BinarySearch(m.keys, max(prefix, after))
	if found && m.keys[i] == after {
		i++
	}
	for ; i < len(m.keys) && strings.HasPrefix(m.keys[i], prefix); i++ {
		if len(page) == pageSize {
			return page, true
		}
		obj := m.objects[m.keys[i]].object
		if m.ListMetadata {
			obj.Metadata = maps.Clone(obj.Metadata)
		} else {
			obj.Metadata = nil
		}
		page = append(page, obj)
	}
	return page, false
}

// Delete implements store.Store.
func (m *Memory) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests["delete"]++
	var refused store.DeleteError
	for _, key := range keys {
		if m.Locked != nil && m.Locked(key) {
			refused.Add(key, fmt.Errorf("delete %s: %w", key, store.ErrAuth))
			continue
		}
		delete(m.objects, key)
		if i, found := slices.BinarySearch(m.keys, key); found {
			m.keys = slices.Delete(m.keys, i, i+1)
		}
	}
	return refused.Err(len(keys))
}
