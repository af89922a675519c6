package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestStore runs all of its subtests against one real server.
func TestStore(t *testing.T) {
	server := s3test.Start(t)
	var prefixes atomic.Int64
	open := func(t *testing.T, url string, change func(*s3.Config)) *s3.Store {
		t.Helper()
		c := s3.Config{
			Bucket: s3test.Bucket, Prefix: fmt.Sprintf("p%d/db", prefixes.Add(1)), Endpoint: url,
			AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Region: s3test.Region,
			Stall: time.Second, Deadline: 10 * time.Second, Backoff: 20 * time.Millisecond, PartSize: 5 << 20,
		}
		if change != nil {
			change(&c)
		}
		st, err := s3.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return open(t, server.URL, nil) })
	})
	env := &env{server: server, open: open}
	t.Run("multipart", env.multipart)
	t.Run("S6_cut off", env.cutOff)
	t.Run("faults", env.faults)
	t.Run("S5_lost replies", env.lostReplies)
	t.Run("S7_corrupt bodies", env.corrupt)
	t.Run("S10_stale list and pages", env.staleList)
	t.Run("S12_conflicts", env.conflicts)
	t.Run("S3_hang", env.hang)
	t.Run("S19_slow link", env.slow)
	t.Run("S15_delete denied", env.deleteDenied)
	t.Run("delete without DeleteObjects", env.deleteSingly)
	t.Run("S8_S9_messages", env.messages)
	t.Run("S8_rotation", env.rotation)
	t.Run("requests are counted", env.counted)
}

type env struct {
	server *s3test.Server
	open   func(t *testing.T, url string, change func(*s3.Config)) *s3.Store
}

func (e *env) behind(t *testing.T, change func(*s3.Config)) (*s3.Store, *s3test.Proxy) {
	t.Helper()
	p := s3test.NewProxy(t, e.server.URL)
	return e.open(t, p.URL, change), p
}

const key = "0000/0000000000000001-0000000000000001.ltx"

func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func readAll(t *testing.T, s store.Store, key string) ([]byte, error) {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// multipart checks a stream of three parts, conditions, parts that fail, and lost replies to parts
// and to the completion (S14).
func (e *env) multipart(t *testing.T) {
	data := noise(13<<20 + 5)
	st, p := e.behind(t, nil)
	put := func(key string) (store.Object, error) {
		return st.Put(t.Context(), key, storetest.Stream(bytes.NewReader(data)),
			store.PutOptions{Create: true, Metadata: map[string]string{"sqlwatch-lineage": "x"}})
	}
	obj, err := put(key)
	if err != nil || obj.Size != int64(len(data)) || obj.Metadata["sqlwatch-lineage"] != "x" {
		t.Fatalf("Put: %+v, %v", obj, err)
	}
	if got, err := readAll(t, st, key); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read back %d bytes, %v", len(got), err)
	}
	if _, err := put(key); !errors.Is(err, store.ErrExists) {
		t.Errorf("second Create: %v, want ErrExists", err)
	}
	p.Next(s3test.LostReply, "complete", 1)
	if _, err := put("lost"); err != nil {
		t.Errorf("S14 completion with a lost reply: %v", err)
	}
	p.Next(s3test.LostReply, "part", 2)
	if _, err := put("parts"); err != nil {
		t.Errorf("S14 parts with lost replies: %v", err)
	}
	aborts := p.Requests()["abort"]
	p.Next(s3test.InternalError, "part", 100)
	if _, err := put("failed"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("S14 failed parts: %v, want ErrUnavailable", err)
	}
	if p.Requests()["abort"] == aborts {
		t.Error("S14 a failed upload was not aborted")
	}
	p.Break(nil)
	if _, _, err := st.Get(t.Context(), "failed", 0, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("S14 a failed upload left an object: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(e.server.Dir, s3test.Bucket, ".sgwtmp", "multipart", "*",
		"*")); err != nil || len(left) != 0 {
		t.Errorf("S14 parts left behind: %q, %v", left, err)
	}
}

// cutOff checks that a stream that breaks off, in its first part or a later one, is never taken for
// a complete one, and that nothing of it is stored.
func (e *env) cutOff(t *testing.T) {
	for _, n := range []int{1000, 11 << 20} {
		st := e.open(t, e.server.URL, nil)
		cut := io.MultiReader(bytes.NewReader(noise(n)), iotest.ErrReader(fmt.Errorf("read page 7: %w", io.ErrUnexpectedEOF)))
		_, err := st.Put(t.Context(), key, storetest.Stream(cut), store.PutOptions{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off after %d bytes: %v, want io.ErrUnexpectedEOF", n, err)
		}
		if _, _, err := st.Get(t.Context(), key, 0, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("cut off after %d bytes: %v, want nothing stored", n, err)
		}
	}
}

// faults checks for every operation that the store recovers within one call from faults that a
// retry can repair.
func (e *env) faults(t *testing.T) {
	t.Parallel()
	data := noise(300_000)
	for name, fault := range map[string]s3test.Fault{
		"S1_503": s3test.Unavailable, "S1_500": s3test.InternalError, "S4_reset": s3test.Reset,
		"S4_lost reply": s3test.LostReply, "S17_html": s3test.HTML,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, p := e.behind(t, nil)
			p.Next(fault, "", 2)
			if _, err := st.Put(t.Context(), key, storetest.Bytes(data),
				store.PutOptions{Create: true, Metadata: map[string]string{store.MetaSHA256: hexSum(data)}}); err != nil {
				t.Fatalf("Put: %v", err)
			}
			p.Next(fault, "", 2)
			got, err := readAll(t, st, key)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("Get: %d bytes, %v", len(got), err)
			}
			p.Next(fault, "", 1)
			var keys []string
			for obj, err := range st.List(t.Context(), "", "") {
				if err != nil {
					t.Fatalf("List: %v", err)
				}
				keys = append(keys, obj.Key)
			}
			if len(keys) != 1 || keys[0] != key {
				t.Errorf("List = %q", keys)
			}
			if p.Injected(fault) < 5 {
				t.Errorf("only %d faults were injected", p.Injected(fault))
			}
		})
	}
}

// lostReplies checks that a Create whose reply is lost succeeds, and that another writer's object
// is still refused.
func (e *env) lostReplies(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, nil)
	p.Next(s3test.LostReply, "put", 1)
	obj, err := st.Put(t.Context(), key, storetest.Bytes([]byte("mine")), store.PutOptions{Create: true})
	if err != nil || obj.Size != 4 || obj.ETag == "" {
		t.Fatalf("Put with a lost reply: %+v, %v", obj, err)
	}
	if p.Requests()["put"] != 2 || p.Requests()["head"] != 1 {
		t.Errorf("requests: %v, want two puts and a head", p.Requests())
	}
	p.Next(s3test.Unavailable, "put", 1) // the second attempt finds another writer's object
	if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("mine")), store.PutOptions{Create: true}); !errors.Is(err,
		store.ErrExists) {
		t.Errorf("Put over another's object with equal bytes: %v, want ErrExists", err)
	}
	p.Next(s3test.LostReply, "put", 1)
	lease, err := st.Put(t.Context(), "sqlwatch/lease", storetest.Bytes([]byte("1")), store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Next(s3test.LostReply, "put", 1)
	if _, err := st.Put(t.Context(), "sqlwatch/lease", storetest.Bytes([]byte("2")),
		store.PutOptions{Match: lease.ETag}); err != nil {
		t.Errorf("Match with a lost reply: %v", err)
	}
}

// corrupt checks that bodies that break off are resumed, and that wrong ones are errors.
func (e *env) corrupt(t *testing.T) {
	t.Parallel()
	data := noise(3 << 20)
	// With short timeouts, a busy machine might give up an attempt by itself, which would use up
	// the fault.
	st, p := e.behind(t, func(c *s3.Config) { c.Stall, c.Deadline = 20*time.Second, time.Minute })
	if _, err := st.Put(t.Context(), key, storetest.Bytes(data),
		store.PutOptions{Metadata: map[string]string{store.MetaSHA256: hexSum(data)}}); err != nil {
		t.Fatal(err)
	}
	p.Next(s3test.HalfReply, "get", 3)
	if got, err := readAll(t, st, key); err != nil || !bytes.Equal(got, data) || p.Injected(s3test.HalfReply) != 3 {
		t.Errorf("S4 three broken bodies: %d bytes, %v", len(got), err)
	}
	p.Next(s3test.HalfReply, "get", 2)
	r, _, err := st.Get(t.Context(), key, 1000, 2_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[1000:2_001_000]) {
		t.Errorf("S4 a broken range: %d bytes, %v", len(got), err)
	}
	r.Close()
	p.Next(s3test.WrongByte, "get", 1)
	if _, err := readAll(t, store.Through(st, nil, nil), key); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("S7 a wrong byte: %v, want ErrCorrupt", err)
	}
	p.Next(s3test.HTML, "get", 10)
	if got, err := readAll(t, st, key); err == nil {
		t.Errorf("S17 an HTML page was taken for an object of %d bytes", len(got))
	} else if !strings.Contains(err.Error(), "check endpoint") {
		t.Errorf("S17 no hint in: %v", err)
	}
	p.Break(nil)
	r, _, err = st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.CopyN(io.Discard, r, 1<<20)
	if _, err := st.Put(t.Context(), key, storetest.Bytes(data[:100]), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// Data in flight may still be the old object's, but a resumed rest must never be the new one's.
	if rest, err := io.ReadAll(r); err == nil && !bytes.Equal(rest, data[1<<20:]) {
		t.Errorf("the rest of a replaced object is %d bytes of something else", len(rest))
	}
	// S6: the signed hash reveals a proxy that drops half of the upload.
	p.Next(s3test.HalfRequest, "put", 10)
	if _, err := st.Put(t.Context(), "half", storetest.Bytes(data), store.PutOptions{Create: true}); err == nil {
		t.Error("S6 half an upload was accepted")
	}
}

func (e *env) staleList(t *testing.T) {
	t.Parallel()
	const page = 50
	st, p := e.behind(t, nil)
	st.SetPage(page)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < page+5; i += 8 {
				if _, err := st.Put(t.Context(), fmt.Sprintf("k/%04d", i), storetest.Bytes([]byte{1}),
					store.PutOptions{}); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
	}
	wg.Wait()
	p.Next(s3test.StaleList, "list", 1)
	n, last := 0, ""
	for obj, err := range st.List(t.Context(), "k/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if obj.Key <= last {
			t.Fatalf("%s after %s", obj.Key, last)
		}
		last = obj.Key
		n++
	}
	if n != page+5 { // the key that was missing from the first page begins the second one
		t.Errorf("%d keys, want %d", n, page+5)
	}
}

func (e *env) conflicts(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, nil)
	p.Next(s3test.Conflict, "put", 2)
	if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{Create: true}); err != nil {
		t.Errorf("two conflicts: %v", err)
	}
	p.Next(s3test.Conflict, "put", 100)
	if _, err := st.Put(t.Context(), "other", storetest.Bytes([]byte("x")),
		store.PutOptions{Create: true}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("endless conflicts: %v, want ErrConflict", err)
	}
	p.Next(s3test.Precondition, "put", 1)
	if _, err := st.Put(t.Context(), "other", storetest.Bytes([]byte("x")),
		store.PutOptions{Create: true}); !errors.Is(err, store.ErrExists) {
		t.Errorf("412: %v, want ErrExists", err)
	}
	p.Next(s3test.NotImplemented, "put", 1)
	_, err := st.Put(t.Context(), "other", storetest.Bytes([]byte("x")), store.PutOptions{Create: true})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("S13 501: %v, want ErrUnsupported", err)
	}
}

func (e *env) hang(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, func(c *s3.Config) { c.Stall = 200 * time.Millisecond })
	p.Next(s3test.Hang, "", 1)
	start := time.Now()
	if _, err := st.Put(t.Context(), key, storetest.Bytes(noise(1<<20)), store.PutOptions{}); err != nil {
		t.Errorf("one hang: %v", err)
	}
	p.Next(s3test.Hang, "", 100)
	st, p = e.behind(t, func(c *s3.Config) { c.Stall = 200 * time.Millisecond; c.Deadline = time.Second })
	p.Next(s3test.Hang, "", 100)
	if _, _, err := st.Get(t.Context(), key, 0, -1); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("hangs: %v, want ErrUnavailable", err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
}

func (e *env) slow(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, func(c *s3.Config) { c.Stall = 300 * time.Millisecond })
	data := noise(500_000)
	if _, err := st.Put(t.Context(), key, storetest.Bytes(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Rate = 500_000 // the body takes longer than Stall, but keeps moving
	p.Next(s3test.Slow, "get", 1)
	start := time.Now()
	got, err := readAll(t, st, key)
	if err != nil || !bytes.Equal(got, data) || p.Injected(s3test.Slow) != 1 {
		t.Errorf("slow body: %d bytes, %v", len(got), err)
	}
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("the link was not slow: %v", took)
	}
}

func (e *env) deleteDenied(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, nil)
	p.Next(s3test.Forbidden, "delete", 10)
	for _, keys := range [][]string{{"a"}, {"a", "b"}} {
		err := st.Delete(t.Context(), keys...)
		if !errors.Is(err, store.ErrAuth) || !strings.Contains(err.Error(), "replication continues") {
			t.Errorf("Delete %q: %v", keys, err)
		}
	}
}

func (e *env) deleteSingly(t *testing.T) {
	t.Parallel()
	st, p := e.behind(t, nil)
	for _, k := range []string{"a", "b", "c"} {
		if _, err := st.Put(t.Context(), k, storetest.Bytes([]byte(k)), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	p.Break(func(r *http.Request, _ int) s3test.Fault {
		if r.Method == http.MethodPost {
			return s3test.NotImplemented
		}
		return s3test.None
	})
	if err := st.Delete(t.Context(), "a", "b", "c", "never-there"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	for obj := range st.List(t.Context(), "", "") {
		t.Errorf("%s is left", obj.Key)
	}
	if p.Injected(s3test.NotImplemented) == 0 {
		t.Error("DeleteObjects was never tried")
	}
}

// messages checks that each mistake gets one line that says what to do.
func (e *env) messages(t *testing.T) {
	put := func(st *s3.Store) error {
		_, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{})
		return err
	}
	list := func(st *s3.Store) (last error) {
		for _, err := range st.List(t.Context(), "", "") {
			last = err
		}
		return last
	}
	for _, test := range []struct {
		name   string
		change func(*s3.Config)
		fault  s3test.Fault
		do     func(*s3.Store) error
		kind   error
		want   string
	}{
		{"bucket", func(c *s3.Config) { c.Bucket = "nowhere" }, 0, put, store.ErrMisplaced, `there is no bucket "nowhere"`},
		{"bucket at list", func(c *s3.Config) { c.Bucket = "nowhere" }, 0, list, store.ErrMisplaced,
			"check bucket and endpoint"},
		{"key id", func(c *s3.Config) { c.AccessKey = "nobody" }, 0, list, store.ErrAuth, "check access_key and endpoint"},
		{"secret", func(c *s3.Config) { c.SecretKey = "wrong" }, 0, list, store.ErrAuth, "check secret_key"},
		{"region", func(c *s3.Config) { c.Region = "eu-north-9" }, 0, list, store.ErrMisplaced, "region"},
		{"read-only keys", nil, s3test.Forbidden, put, store.ErrAuth, "s3:PutObject"},
		{"no list", nil, s3test.Forbidden, list, store.ErrAuth, "s3:ListBucket"},
		{"P9_clock", nil, s3test.Skewed, list, store.ErrUnavailable, "clock"},
		{"html", nil, s3test.HTML, list, store.ErrUnavailable, "check endpoint"},
		{"endpoint", func(c *s3.Config) { c.Endpoint = "http://127.0.0.1:1" }, 0, list, store.ErrUnavailable, "refused"},
		{"S18_tls", func(c *s3.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) }, 0, list,
			store.ErrUnavailable, "does not speak TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			st, p := e.behind(t, test.change)
			if test.fault != 0 {
				p.Next(test.fault, "", 1000)
			}
			err := test.do(st)
			if !errors.Is(err, test.kind) {
				t.Errorf("%v: want %v", err, test.kind)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("message %q, want one line with %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), s3test.SecretKey) {
				t.Errorf("I14 a secret in %q", err)
			}
		})
	}
}

// rotation checks that keys that change in the shared credentials file are read again when the old
// ones are refused.
func (e *env) rotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(secret string) {
		text := "[default]\naws_access_key_id = " + s3test.AccessKey + "\naws_secret_access_key = " + secret + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	write("outdated")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	tls := httptest.NewTLSServer(nil)
	defer tls.Close()
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	st := e.open(t, e.server.URL, func(c *s3.Config) { c.AccessKey, c.SecretKey, c.CAFile = "", "", ca })
	put := func() error {
		_, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{})
		return err
	}
	if err := put(); !errors.Is(err, store.ErrAuth) {
		t.Fatalf("with an outdated secret: %v, want ErrAuth", err)
	}
	write(s3test.SecretKey)
	if err := put(); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

func (e *env) counted(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	st, p := e.behind(t, func(c *s3.Config) {
		c.Observe = func(r store.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[r.Operation+" "+r.Reason]++
		}
	})
	p.Next(s3test.Unavailable, "put", 1)
	if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	st.Get(t.Context(), key, 0, 0)
	st.Get(t.Context(), "absent", 0, -1)
	for range st.List(t.Context(), "", "") {
	}
	st.Delete(t.Context(), key)
	want := map[string]int{"put throttled": 1, "put ": 1, "head ": 1, "get not_found": 1, "list ": 1, "delete ": 1}
	for k, n := range want {
		if seen[k] != n {
			t.Errorf("%q counted %d times, want %d (all: %v)", k, seen[k], n, seen)
		}
	}
	total := 0
	for _, n := range p.Requests() {
		total += n
	}
	counted := 0
	for _, n := range seen {
		counted += n
	}
	if total != counted {
		t.Errorf("the server saw %d requests, %d were counted: %v", total, counted, seen)
	}
}

// TestNew: a configuration that can never work is refused without a request.
func TestNew(t *testing.T) {
	for name, c := range map[string]s3.Config{
		"no bucket": {}, "half of the keys": {Bucket: "b", AccessKey: "a"}, "tiny parts": {Bucket: "b", PartSize: 1},
		"no such CA": {Bucket: "b", CAFile: "/nonexistent"},
	} {
		if _, err := s3.New(context.Background(), c); err == nil {
			t.Errorf("%s: New returned nil", name)
		}
	}
}
