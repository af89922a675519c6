// Package storetest has the tests that every store.Store must pass (Run), a store in memory
// that checks how it is used (Memory), one that fails on demand (Faulty), and one whose writes
// may arrive late (Late).
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Bytes returns a body that can be opened any number of times.
func Bytes(data []byte) store.Body {
	sum := sha256.Sum256(data)
	return store.Body{
		Size:   int64(len(data)),
		SHA256: hex.EncodeToString(sum[:]),
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}

// Stream returns a body of unknown length that can be read once.
func Stream(r io.Reader) store.Body {
	return store.Body{Size: -1, Open: func() (io.ReadCloser, error) { return io.NopCloser(r), nil }}
}

// Run checks the store that open returns against the contract of [store.Store]. Each
// subtest asks for an empty store of its own. It is the one test that a store needs:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { return newStore(t.TempDir()) })
//	}
func Run(t *testing.T, open func(t *testing.T) store.Store) { RunBut(t, open) }

// Conditional names the subtests that a store without conditional writes cannot pass. Racing names
// those of concurrent writers, which a store whose conditional writes are not atomic cannot pass.
var (
	Conditional = []string{"create only what is new", "match the etag", "create has one winner", "match has one winner"}
	Racing      = []string{"create has one winner", "match has one winner"}
)

// RunBut is Run without the named subtests.
func RunBut(t *testing.T, open func(t *testing.T) store.Store, but ...string) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"put and get", testPutGet},
		{"get a range", testRange},
		{"get what is not there", testNotFound},
		{"metadata", testMetadata},
		{"stream of unknown length", testStream},
		{"replace", testReplace},
		{"create only what is new", testCreate},
		{"create has one winner", testCreateRace},
		{"match the etag", testMatch},
		{"match has one winner", testMatchRace},
		{"S6_a broken body stores nothing", testBrokenBody},
		{"list in order", testList},
		{"list after a key", testListAfter},
		{"S10_list more than a page", testListPages},
		{"readers never see a part", testAtomic},
		{"delete is idempotent", testDelete},
		{"a cancelled context", testCancelled},
	} {
		if slices.Contains(but, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func ltxKey(n int) string { return fmt.Sprintf("0000/%016x-%016x.ltx", n, n) }

func mustPut(t *testing.T, s store.Store, key string, data []byte, opts store.PutOptions) store.Object {
	t.Helper()
	obj, err := s.Put(context.Background(), key, Bytes(data), opts)
	if err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
	return obj
}

func read(t *testing.T, s store.Store, key string, offset, length int64) ([]byte, store.Object) {
	t.Helper()
	r, obj, err := s.Get(context.Background(), key, offset, length)
	if err != nil {
		t.Fatalf("Get %s [%d,+%d]: %v", key, offset, length, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return data, obj
}

func testPutGet(t *testing.T, s store.Store) {
	for i, size := range []int{0, 1, 100, 4096, 3 << 20} {
		data := bytes.Repeat([]byte{byte(i + 1), 0, 0xff}, size/3+1)[:size]
		key := ltxKey(i + 1)
		put := mustPut(t, s, key, data, store.PutOptions{Create: true})
		got, obj := read(t, s, key, 0, -1)
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read back %d bytes that differ", size, len(got))
		}
		if put.Key != key || obj.Key != key || put.Size != int64(size) || obj.Size != int64(size) {
			t.Errorf("%d bytes: Put returned %+v, Get %+v", size, put, obj)
		}
		if put.ETag == "" || put.ETag != obj.ETag {
			t.Errorf("etag of Put %q, of Get %q", put.ETag, obj.ETag)
		}
		r, head, err := s.Get(context.Background(), key, 0, 0)
		if err != nil || r != nil || head.Size != int64(size) || head.ETag != obj.ETag {
			t.Errorf("Get of length 0: reader %v, %+v, %v", r, head, err)
		}
	}
}

func testRange(t *testing.T, s store.Store) {
	data := make([]byte, 10_000)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	mustPut(t, s, ltxKey(1), data, store.PutOptions{})
	for _, r := range []struct{ offset, length int64 }{{0, 1}, {0, 10_000}, {9_999, 1}, {5_000, -1}, {123, 4_567},
		{9_990, 100}} {
		want := data[r.offset:]
		if r.length >= 0 && r.length < int64(len(want)) {
			want = want[:r.length]
		}
		got, obj := read(t, s, ltxKey(1), r.offset, r.length)
		if !bytes.Equal(got, want) {
			t.Errorf("range [%d,+%d]: wrong bytes (%d of them)", r.offset, r.length, len(got))
		}
		if obj.Size != int64(len(data)) {
			t.Errorf("range [%d,+%d]: the object's size is %d, want that of the whole object", r.offset, r.length, obj.Size)
		}
	}
}

func testNotFound(t *testing.T, s store.Store) {
	mustPut(t, s, ltxKey(2), []byte("x"), store.PutOptions{})
	for _, length := range []int64{0, 10, -1} {
		if _, _, err := s.Get(context.Background(), ltxKey(1), 0, length); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of length %d: %v, want ErrNotFound", length, err)
		}
	}
}

func testMetadata(t *testing.T, s store.Store) {
	meta := map[string]string{
		store.MetaTimestamp: "2024-02-29T23:59:59.123456789Z",
		store.MetaChecksum:  "8000000000000001",
		store.MetaReason:    "wal was reset: salts differ; 100% sure (a+b=c)",
	}
	mustPut(t, s, ltxKey(1), []byte("x"), store.PutOptions{Metadata: meta})
	for _, length := range []int64{0, -1} {
		r, obj, err := s.Get(context.Background(), ltxKey(1), 0, length)
		if err != nil {
			t.Fatal(err)
		}
		if r != nil {
			r.Close()
		}
		for k, want := range meta {
			if obj.Metadata[k] != want {
				t.Errorf("Get of length %d: %s is %q, want %q", length, k, obj.Metadata[k], want)
			}
		}
	}
	for obj, err := range s.List(context.Background(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if obj.Metadata != nil && obj.Metadata[store.MetaChecksum] != meta[store.MetaChecksum] {
			t.Errorf("List returns metadata, but not all of it: %v", obj.Metadata)
		}
	}
}

func testStream(t *testing.T, s store.Store) {
	data := bytes.Repeat([]byte("stream of pages "), 100_000)
	obj, err := s.Put(context.Background(), ltxKey(1), Stream(bytes.NewReader(data)), store.PutOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if obj.Size != int64(len(data)) {
		t.Errorf("size %d, want %d", obj.Size, len(data))
	}
	if got, _ := read(t, s, ltxKey(1), 0, -1); !bytes.Equal(got, data) {
		t.Error("the stream was read back changed")
	}
}

func testReplace(t *testing.T, s store.Store) {
	first := mustPut(t, s, "sqlwatch/lease", []byte("one"), store.PutOptions{})
	second := mustPut(t, s, "sqlwatch/lease", []byte("two"), store.PutOptions{})
	if first.ETag == second.ETag {
		t.Errorf("both versions have the etag %s", first.ETag)
	}
	if got, _ := read(t, s, "sqlwatch/lease", 0, -1); string(got) != "two" {
		t.Errorf("got %q after a replacement", got)
	}
}

func testCreate(t *testing.T, s store.Store) {
	mustPut(t, s, ltxKey(1), []byte("first"),
		store.PutOptions{Create: true, Metadata: map[string]string{store.MetaLineage: "a"}})
	_, err := s.Put(context.Background(), ltxKey(1), Bytes([]byte("later")),
		store.PutOptions{Create: true, Metadata: map[string]string{store.MetaLineage: "b"}})
	if !errors.Is(err, store.ErrExists) {
		t.Fatalf("second Create: %v, want ErrExists", err)
	}
	got, obj := read(t, s, ltxKey(1), 0, -1)
	if string(got) != "first" || obj.Metadata[store.MetaLineage] != "a" {
		t.Errorf("the refused Put changed the object to %q %v", got, obj.Metadata)
	}
}

func testCreateRace(t *testing.T, s store.Store) {
	race(t, s, ltxKey(1), store.PutOptions{Create: true})
}

func testMatch(t *testing.T, s store.Store) {
	ctx, key := context.Background(), "sqlwatch/lease"
	if _, err := s.Put(ctx, key, Bytes([]byte("x")), store.PutOptions{Match: `"nothing"`}); !errors.Is(err,
		store.ErrExists) && !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Match without an object: %v, want ErrExists or ErrNotFound", err)
	}
	one := mustPut(t, s, key, []byte("one"), store.PutOptions{Create: true})
	two := mustPut(t, s, key, []byte("two"), store.PutOptions{Match: one.ETag})
	if _, err := s.Put(ctx, key, Bytes([]byte("three")), store.PutOptions{Match: one.ETag}); !errors.Is(err,
		store.ErrExists) {
		t.Errorf("Match of an old etag: %v, want ErrExists", err)
	}
	if got, obj := read(t, s, key, 0, -1); string(got) != "two" || obj.ETag != two.ETag {
		t.Errorf("got %q with etag %s, want \"two\" with %s", got, obj.ETag, two.ETag)
	}
}

func testMatchRace(t *testing.T, s store.Store) {
	base := mustPut(t, s, "sqlwatch/lease", []byte("base"), store.PutOptions{})
	race(t, s, "sqlwatch/lease", store.PutOptions{Match: base.ETag})
}

// race lets eight writers put different bodies under the same condition. Exactly one may succeed,
// the others must get an error, and the winner's body must be stored.
func race(t *testing.T, s store.Store, key string, opts store.PutOptions) {
	t.Helper()
	const writers = 8
	errs := make([]error, writers)
	body := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 50_000) }
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = s.Put(context.Background(), key, Bytes(body(i)), opts)
		})
	}
	wg.Wait()
	winners := 0
	for i, err := range errs {
		switch {
		case err == nil:
			winners++
			if got, _ := read(t, s, key, 0, -1); !bytes.Equal(got, body(i)) {
				t.Errorf("Put of writer %d succeeded, but the object begins with %.10q", i, got)
			}
		case !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict):
			t.Errorf("writer %d: %v, want ErrExists or ErrConflict", i, err)
		}
	}
	if winners != 1 {
		t.Errorf("%d writers won, want 1", winners)
	}
}

func testBrokenBody(t *testing.T, s store.Store) {
	ctx := context.Background()
	broken := errors.New("disk on fire")
	bodies := map[string]store.Body{
		"open fails": {Size: 10, Open: func() (io.ReadCloser, error) { return nil, broken }},
		"read fails": {Size: -1, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("some bytes"), errorReader{broken})), nil
		}},
		"too short": {Size: 10, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("12345")), nil }},
	}
	for name, body := range bodies {
		if _, err := s.Put(ctx, ltxKey(1), body, store.PutOptions{Create: true}); err == nil {
			t.Errorf("%s: Put returned nil", name)
		}
		if _, _, err := s.Get(ctx, ltxKey(1), 0, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: afterwards Get returns %v, want ErrNotFound", name, err)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func list(t *testing.T, s store.Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	for obj, err := range s.List(context.Background(), prefix, after) {
		if err != nil {
			t.Fatalf("List %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, obj.Key)
	}
	return keys
}

func testList(t *testing.T, s store.Store) {
	keys := []string{
		"0000/0000000000000001-0000000000000001.ltx", "0000/0000000000000002-0000000000000002.ltx",
		"0000/000000000000000a-000000000000000f.ltx", "0000/000000000000000a-0000000000000010.ltx",
		"0001/0000000000000001-0000000000000010.ltx", "0009/0000000000000001-0000000000000002.ltx",
		"sqlwatch/a/b", "sqlwatch/lease",
	}
	for _, i := range []int{3, 0, 7, 5, 1, 6, 2, 4} {
		mustPut(t, s, keys[i], []byte(keys[i]), store.PutOptions{})
	}
	for prefix, want := range map[string][]string{
		"": keys, "0000/": keys[:4], "0001/": keys[4:5], "0002/": nil, "0009/": keys[5:6],
		"sqlwatch/": keys[6:], "0000/000000000000000a": keys[2:4], "sqlwatch/lea": keys[7:],
	} {
		if got := list(t, s, prefix, ""); !slices.Equal(got, want) {
			t.Errorf("List %q = %q, want %q", prefix, got, want)
		}
	}
	for obj, err := range s.List(context.Background(), "0001/", "") {
		if err != nil || obj.Size != int64(len(obj.Key)) || obj.ETag == "" {
			t.Errorf("List describes %+v, %v", obj, err)
		}
	}
}

func testListAfter(t *testing.T, s store.Store) {
	var keys []string
	for i := range 20 {
		keys = append(keys, ltxKey(2*i+2))
		mustPut(t, s, keys[i], []byte("x"), store.PutOptions{})
	}
	mustPut(t, s, "0001/0000000000000001-0000000000000010.ltx", []byte("x"), store.PutOptions{})
	for i, key := range keys {
		if got := list(t, s, "0000/", key); !slices.Equal(got, keys[i+1:]) {
			t.Errorf("after %s: %d keys, want %d", key, len(got), len(keys)-i-1)
		}
		if got := list(t, s, "0000/", ltxKey(2*i+1)); !slices.Equal(got, keys[i:]) {
			t.Errorf("after a key that does not exist: %d keys, want %d", len(got), len(keys)-i)
		}
	}
	for obj, err := range s.List(context.Background(), "", keys[3]) { // stop early
		if err != nil || obj.Key != keys[4] {
			t.Errorf("first after %s is %s, %v", keys[3], obj.Key, err)
		}
		break
	}
}

func testListPages(t *testing.T, s store.Store) {
	const n = 1100
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if _, err := s.Put(context.Background(), ltxKey(i+1), Bytes([]byte{1}),
					store.PutOptions{Create: true}); err != nil {
					t.Errorf("put %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	got := list(t, s, "0000/", "")
	if len(got) != n || !slices.IsSorted(got) {
		t.Fatalf("%d keys, sorted: %v; want %d sorted", len(got), slices.IsSorted(got), n)
	}
	if err := s.Delete(context.Background(), got...); err != nil {
		t.Fatal(err)
	}
	if left := list(t, s, "", ""); len(left) != 0 {
		t.Errorf("%d keys are left after deleting all", len(left))
	}
}

func testAtomic(t *testing.T, s store.Store) {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(context.Background(), ltxKey(1), Stream(pr), store.PutOptions{Create: true})
		done <- err
	}()
	if _, err := pw.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(context.Background(), ltxKey(1), 0, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("half way through the Put, Get returns %v, want ErrNotFound", err)
	}
	if keys := list(t, s, "", ""); len(keys) != 0 {
		t.Errorf("half way through the Put, List returns %q", keys)
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if keys := list(t, s, "", ""); len(keys) != 1 {
		t.Errorf("after the Put, List returns %q", keys)
	}
}

func testDelete(t *testing.T, s store.Store) {
	ctx := context.Background()
	for i := range 3 {
		mustPut(t, s, ltxKey(i+1), []byte("x"), store.PutOptions{})
	}
	for range 2 {
		if err := s.Delete(ctx, ltxKey(1), ltxKey(3), ltxKey(9)); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	if got := list(t, s, "", ""); !slices.Equal(got, []string{ltxKey(2)}) {
		t.Errorf("left: %q", got)
	}
	if err := s.Delete(ctx); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	mustPut(t, s, ltxKey(1), []byte("again"), store.PutOptions{Create: true})
}

func testCancelled(t *testing.T, s store.Store) {
	mustPut(t, s, ltxKey(1), []byte("x"), store.PutOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Put(ctx, ltxKey(2), Bytes([]byte("x")), store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want context.Canceled", err)
	}
	if _, _, err := s.Get(ctx, ltxKey(1), 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v, want context.Canceled", err)
	}
	var last error
	for _, err := range s.List(ctx, "", "") {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("List: %v, want context.Canceled", last)
	}
	if err := s.Delete(ctx, ltxKey(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete: %v, want context.Canceled", err)
	}
	if _, _, err := s.Get(context.Background(), ltxKey(2), 0, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the cancelled Put stored something: %v", err)
	}
}
