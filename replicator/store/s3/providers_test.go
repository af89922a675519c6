package s3_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// at opens a store on a fake, each with a prefix of its own.
func at(t *testing.T, f *s3test.Fake, change func(*s3.Config)) *s3.Store {
	t.Helper()
	c := s3.Config{
		Bucket: s3test.Bucket, Prefix: fmt.Sprintf("p%d/db", fakes.Add(1)), Endpoint: f.URL, Region: s3test.Region,
		AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: 10 * time.Second, Deadline: time.Minute,
		Backoff: 10 * time.Millisecond,
		Settle:  200 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	st, err := s3.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	st.SetPartSize(part)
	if f.Profile.Name == "Amazon S3" {
		st.PretendAmazon()
	}
	return st
}

var fakes atomic.Int64

// part is the size of parts with a fake: some of these tests store hundreds of them.
const part = s3test.LeastPart

// quirk starts a fake with the given oddities and opens a store on it.
func quirk(t *testing.T, p s3test.Profile) (*s3.Store, *s3test.Fake) {
	t.Helper()
	f := s3test.NewFake(t, p)
	return at(t, f, nil), f
}

func putBytes(st *s3.Store, key string, data []byte) (store.Object, error) {
	return st.Put(context.Background(), key, storetest.Bytes(data), store.PutOptions{})
}

func putStream(st *s3.Store, key string, data []byte, opts store.PutOptions) (store.Object, error) {
	return st.Put(context.Background(), key, storetest.Stream(bytes.NewReader(data)), opts)
}

func keysOf(st *s3.Store, prefix, after string) (keys []string, err error) {
	for object, err := range st.List(context.Background(), prefix, after) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, object.Key)
	}
	return keys, nil
}

// insisting repeats a write without its condition if the store does not support conditions, as the
// lease does.
type insisting struct{ store.Store }

// Put implements store.Store.
func (i insisting) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	object, err := i.Store.Put(ctx, key, body, opts)
	if errors.Is(err, errors.ErrUnsupported) && body.Size >= 0 {
		opts.Create, opts.Match = false, ""
		return i.Store.Put(ctx, key, body, opts)
	}
	return object, err
}

// TestProviders_S31: the contract and a large upload work with each provider as it is documented,
// also over TLS.
func TestProviders_S31(t *testing.T) {
	t.Parallel()
	data := noise(2*part + part/2 + 5)
	for _, profile := range s3test.Profiles() {
		t.Run(profile.Name, func(t *testing.T) {
			t.Parallel()
			f, server := s3test.NewTLSFake(t, profile)
			ca := trusted(t, server)
			but := []string{"S10_list more than a page"} // TestStore and TestListings_S10 cover it
			switch profile.Create {
			case s3test.NotKnown:
				but = append(append(but, storetest.Conditional...), "stream of unknown length", "readers never see a part")
			case s3test.Ignored:
				but = append(but, storetest.Conditional...)
			case s3test.CheckedTooSoon:
				but = append(but, storetest.Racing...)
			}
			over := func(c *s3.Config) { c.CAFile = ca }
			storetest.RunBut(t, func(t *testing.T) store.Store { return insisting{at(t, f, over)} }, but...)
			plain := s3test.NewFake(t, profile)
			for _, st := range []*s3.Store{at(t, f, over), at(t, plain, nil)} {
				if _, err := putStream(st, "0009/big", data, store.PutOptions{}); err != nil {
					t.Fatalf("a stream of three parts: %v", err)
				}
				if got, err := readAll(t, st, "0009/big"); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read back %d bytes, %v", len(got), err)
				}
				_, err := st.Put(t.Context(), "sqlwatch/lease", storetest.Bytes([]byte("x")), store.PutOptions{Create: true})
				if refused := profile.Create == s3test.NotKnown; refused != errors.Is(err, errors.ErrUnsupported) ||
					!refused && err != nil {
					t.Errorf("a conditional write: %v", err)
				}
			}
			for _, f := range []*s3test.Fake{f, plain} {
				if f.Signed("accept-encoding") || f.Signed("amz-sdk-request") {
					t.Error("headers that proxies rewrite are signed")
				}
			}
		})
	}
}

// trusted returns the path of a file with the certificate of a test server.
func trusted(t *testing.T, server *httptest.Server) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestStrict_S31: the fake of Amazon refuses what Amazon refuses and others accept, so that tests
// notice a request that Amazon would not accept.
func TestStrict_S31(t *testing.T) {
	t.Parallel()
	strict := s3test.Profile{Front: s3test.Front{Strict: true}}
	st, _ := quirk(t, strict) // does not sign Content-Type, because it does not know that this is Amazon
	if _, err := putBytes(st, key, []byte("x")); err == nil || !strings.Contains(err.Error(), "not signed: content-type") {
		t.Errorf("an unsigned Content-Type: %v", err)
	}
	strict.Name = "Amazon S3"
	f := s3test.NewFake(t, strict)
	st = at(t, f, func(c *s3.Config) { c.Region = "eu-central-1" })
	if _, err := putBytes(st, key, []byte("x")); !errors.Is(err, store.ErrMisplaced) {
		t.Errorf("another region: %v, want ErrMisplaced", err)
	}
	st = at(t, f, nil)
	for i := range 3 {
		if _, err := putBytes(st, fmt.Sprint("0000/", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Delete(t.Context(), "0000/0", "0000/1", "0000/2"); err != nil || len(f.Keys()) != 0 {
		t.Errorf("many deleted: %v, %q are left", err, f.Keys())
	}
	if n := f.Requests()["delete"]; n != 1 {
		t.Errorf("%d requests to delete, want one, with a digest", n)
	}
}

// TestFlippedBit_S32: a body in which a bit flipped on the way to the store, also over TLS, is
// refused and sent again, whether the store checks the signed hash or Content-MD5.
func TestFlippedBit_S32(t *testing.T) {
	t.Parallel()
	data := noise(2*part + part/5)
	for name, ignores := range map[string]bool{"signed hash": false, "Content-MD5": true} {
		for _, op := range []string{"put", "part"} {
			t.Run(name+" "+op, func(t *testing.T) {
				t.Parallel()
				var flips atomic.Int64
				f, server := s3test.NewTLSFake(t, s3test.Profile{IgnoresPayload: ignores,
					Flips: func(operation string, body []byte) {
						if operation == op && len(body) > 0 && flips.Add(1) == 1 {
							body[len(body)/2] ^= 0x10
						}
					}})
				ca := trusted(t, server)
				st := at(t, f, func(c *s3.Config) { c.CAFile = ca })
				body := storetest.Stream(bytes.NewReader(data))
				if op == "put" {
					body = storetest.Bytes(data)
				}
				if _, err := st.Put(t.Context(), key, body, store.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				if got, err := readAll(t, st, key); err != nil || !bytes.Equal(got, data) || flips.Load() < 2 {
					t.Errorf("read back: %v, equal %v after %d attempts", err, bytes.Equal(got, data), flips.Load())
				}
			})
		}
	}
}

// TestPartSize_S33: the parts of an upload have one size, and there are never more of them than S3
// accepts.
func TestPartSize_S33(t *testing.T) {
	t.Parallel()
	st, err := s3.New(t.Context(), s3.Config{Bucket: "b", Endpoint: "http://127.0.0.1:1", AccessKey: "a", SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 1, 8 << 20, 70 << 30, 1 << 40, 20 << 40} {
		part, err := st.PartSize(size)
		if err != nil || part < s3.DefaultPartSize || part%(1<<20) != 0 || size/part > 9000 {
			t.Errorf("%d bytes: parts of %d, %v", size, part, err)
		}
	}
	if _, err := st.PartSize(1 << 60); err == nil {
		t.Error("an exabyte was accepted")
	}
}

// TestCompletion_S14: if completing an upload takes longer than a request's deadline, the store
// polls for the object; an upload that never becomes an object is aborted.
func TestCompletion_S14(t *testing.T) {
	t.Parallel()
	data := noise(part + part/5)
	f := s3test.NewFake(t, s3test.Profile{Completing: time.Second})
	st := at(t, f, func(c *s3.Config) { c.Settle = time.Minute })
	if _, err := putStream(st, key, data, store.PutOptions{Create: true}); err != nil {
		t.Errorf("a slow completion: %v", err)
	}
	f = s3test.NewFake(t, s3test.Profile{Completing: time.Hour})
	st = at(t, f, nil)
	if _, err := putStream(st, key, data, store.PutOptions{}); err == nil {
		t.Error("a completion that never happens was reported as a success")
	}
	if f.Requests()["abort"] == 0 {
		t.Error("the upload was not aborted")
	}
}

// TestLeftovers_S14: old uploads that a crash left are aborted; younger ones, and those below other
// prefixes, are not.
func TestLeftovers_S14(t *testing.T) {
	t.Parallel()
	f := s3test.NewFake(t, s3test.Profile{})
	st := at(t, f, func(c *s3.Config) { c.Prefix = "mine" })
	f.Leave("mine/0009/x", time.Now().Add(-48*time.Hour))
	f.Leave("mine/0009/y", time.Now().Add(-time.Hour))
	f.Leave("another/0009/z", time.Now().Add(-48*time.Hour))
	n, err := st.SweepUploads(t.Context(), time.Now().Add(-24*time.Hour))
	if err != nil || n != 1 || f.Uploads() != 2 {
		t.Errorf("swept %d, %v; %d left, want 2", n, err, f.Uploads())
	}
}

// TestListings_S10: a listing is complete and in order, or an error, but never a shorter history.
func TestListings_S10(t *testing.T) {
	t.Parallel()
	const n = 25
	for _, test := range []struct {
		name    string
		profile s3test.Profile
		whole   bool // complete, rather than an error
		forget  bool // as listed by a process that has stored nothing itself
	}{
		{"plain", s3test.Profile{Listings: s3test.Listings{PageSize: 4}}, true, true},
		{"no start-after", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.NoStartAfter}}, true, true},
		{"version one", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.VersionOne}}, true, true},
		{"a token beside IsTruncated=false", s3test.Profile{
			Listings: s3test.Listings{PageSize: 4, Listing: s3test.TokenOnly}}, true, true},
		{"empty pages", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.EmptyPages}}, true, true},
		{"unsorted", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.Unsorted}}, false, true},
		{"a token that repeats", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.RepeatingToken}},
			false, true},
		{"capped at a page", s3test.Profile{Listings: s3test.Listings{PageSize: 4, Listing: s3test.Capped}}, true, true},
		{"capped in a page", s3test.Profile{Listings: s3test.Listings{Listing: s3test.Short, Short: 11}}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			st, _ := quirk(t, test.profile)
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("0000/%04d", i))
				if _, err := putBytes(st, want[i], []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if test.forget {
				st.ForgetStored()
			}
			for _, after := range []int{-1, 0, 3, 9, 24} {
				from := ""
				if after >= 0 {
					from = want[after]
				}
				got, err := keysOf(st, "0000/", from)
				switch {
				case test.whole && (err != nil || !slices.Equal(got, want[after+1:])):
					t.Errorf("after %q: %d keys, %v; want %d", from, len(got), err, n-after-1)
				case !test.whole && err == nil && !slices.Equal(got, want[after+1:]):
					t.Errorf("after %q: %d of %d keys and no error", from, len(got), n-after-1)
				case err != nil && !errors.Is(err, store.ErrListing):
					t.Errorf("after %q: %v, want ErrListing", from, err)
				}
			}
		})
	}
	t.Run("what another process deleted is not missed", func(t *testing.T) {
		t.Parallel()
		f := s3test.NewFake(t, s3test.Profile{})
		a, b := at(t, f, func(c *s3.Config) { c.Prefix = "one" }), at(t, f, func(c *s3.Config) { c.Prefix = "one" })
		if _, err := putBytes(a, "0000/1", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), "0000/1"); err != nil {
			t.Fatal(err)
		}
		if keys, err := keysOf(a, "", ""); err != nil || len(keys) != 0 {
			t.Errorf("%q, %v", keys, err)
		}
	})
}

// TestGateways_S34: the store works around the known faults of proxies and gateways.
func TestGateways_S34(t *testing.T) {
	t.Parallel()
	data := noise(2*part + part/5)
	etag := func(f func(string) string) func(string, string) string {
		return func(etag, op string) string {
			if op == "put" || op == "part" {
				return f(etag)
			}
			return etag
		}
	}
	for name, profile := range map[string]s3test.Profile{
		"HEAD refused":                   {Answers: s3test.Answers{RefusesHead: true}},
		"metadata dropped":               {Answers: s3test.Answers{DropsMetadata: true}},
		"both":                           {Answers: s3test.Answers{RefusesHead: true, DropsMetadata: true}},
		"Range ignored":                  {Answers: s3test.Answers{IgnoresRange: true}},
		"Content-Range of an old server": {Answers: s3test.Answers{ContentRange: "Bytes=%d-%d / %d"}},
		"Accept-Encoding rewritten":      {Front: s3test.Front{AppendsEncoding: ", br"}},
		"Content-Type rewritten":         {Front: s3test.Front{RewritesType: "binary/octet-stream"}},
		"Expect refused":                 {Front: s3test.Front{RefusesExpect: true}},
		"ETag in capitals":               {Answers: s3test.Answers{ETag: etag(strings.ToUpper)}},
		"ETag without quotes": {Answers: s3test.Answers{
			ETag: etag(func(e string) string { return strings.Trim(e, `"`) })}},
		"weak ETag": {Answers: s3test.Answers{ETag: etag(func(e string) string { return "W/" + e })}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, f := quirk(t, profile)
			put, err := putBytes(st, key, data[:1000])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := putStream(st, "0009/big", data, store.PutOptions{Create: true}); err != nil {
				t.Fatalf("multipart: %v", err)
			}
			if f.Requests()["abort"] > 0 {
				t.Error("a successful upload was aborted")
			}
			for _, r := range [][2]int64{{0, -1}, {0, 10}, {part, 1000}, {2 * part, -1}} {
				want := data[r[0]:]
				if r[1] > 0 {
					want = want[:r[1]]
				}
				body, object, err := st.Get(t.Context(), "0009/big", r[0], r[1])
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				body.Close()
				if err != nil || !bytes.Equal(got, want) || object.Size != int64(len(data)) {
					t.Errorf("range %v: %d bytes of %d, %v", r, len(got), object.Size, err)
				}
			}
			_, head, err := st.Get(t.Context(), key, 0, 0)
			if err != nil || head.Size != 1000 || head.ETag != put.ETag {
				t.Errorf("Get of length 0: %+v, %v; the PUT returned ETag %s", head, err, put.ETag)
			}
			if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("new")),
				store.PutOptions{Match: put.ETag}); err != nil {
				t.Errorf("replace with If-Match: %v", err)
			}
		})
	}
}

// TestGatewayMessages_S34: a fault that cannot be worked around is named, with its cure.
func TestGatewayMessages_S34(t *testing.T) {
	t.Parallel()
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const xml, json, html = "application/xml", "application/json", "text/html"
	for name, test := range map[string]struct {
		handler http.Handler
		want    []string
	}{
		"413": {answer(413, html, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
			[]string{"413 Request Entity Too Large", "client_max_body_size"}},
		"507": {answer(507, xml, "<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its "+
			"minimum free drive threshold.</Message></Error>"), []string{"the store is full"}},
		"cap of B2": {answer(403, xml, "<Error><Code>AccessDenied</Code><Message>Cannot upload files, storage cap "+
			"exceeded.</Message></Error>"), []string{"raise the quota or cap"}},
		"quota": {answer(403, xml, "<Error><Code>QuotaExceeded</Code><Message></Message></Error>"),
			[]string{"raise the quota or cap"}},
		"JSON": {answer(400, json, `{"code":"bad_request","message":"bucket is frozen","status":400}`),
			[]string{"bad_request: bucket is frozen"}},
		"nested JSON": {answer(403, json, `{"error":{"code":"Denied","message":"no such tenant"}}`),
			[]string{"Denied: no such tenant"}},
		"plain text": {answer(400, "text/plain", "upstream says no"), []string{"upstream says no"}},
		"417":        {answer(417, html, ""), []string{"Expect: 100-continue"}},
		"signature of": {
			answer(403, xml,
				"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>"+
					"<CanonicalRequest>PUT\n/b/k\n\n"+
					"host:x\nx-amz-date:19700101T000000Z\n\nhost</CanonicalRequest></Error>"),
			[]string{"rewrites the header x-amz-date"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.handler)
			defer server.Close()
			st, err := s3.New(t.Context(), s3.Config{Bucket: "b", Endpoint: server.URL, Region: "r", AccessKey: "a",
				SecretKey: "s", Backoff: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			_, err = putBytes(st, "k", []byte("x"))
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v: want an error that contains %q", err, want)
				}
			}
		})
	}
}

// TestDelete_S15: a locked object does not keep others from being deleted, and is named.
func TestDelete_S15(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]s3test.Profile{"together": {},
		"singly": {Deletes: s3test.Deletes{NoDeleteObjects: true}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profile.Locked = func(key string) bool { return strings.HasSuffix(key, "0007") }
			st, f := quirk(t, profile)
			var keys []string
			for i := range 30 {
				keys = append(keys, fmt.Sprintf("0000/%04d", i))
				if _, err := putBytes(st, keys[i], []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			err := st.Delete(t.Context(), keys...)
			var refused *store.DeleteError
			if !errors.As(err, &refused) || len(refused.Refused) != 1 || !refused.Has("0000/0007") ||
				!errors.Is(err, store.ErrAuth) {
				t.Fatalf("Delete: %v", err)
			}
			if left := f.Keys(); len(left) != 1 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestConditionRefused_S13: a store that answers 400 to conditional writes counts as having none.
func TestConditionRefused_S13(t *testing.T) {
	t.Parallel()
	st, _ := quirk(t, s3test.Profile{Create: s3test.BadRequest, Match: s3test.BadRequest})
	for _, opts := range []store.PutOptions{{Create: true}, {Match: `"x"`}} {
		if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), opts); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v, want ErrUnsupported", opts, err)
		}
	}
}

// TestEndpointOfTheEnvironment_S9: an endpoint from the SDK's environment variables is noticed.
func TestEndpointOfTheEnvironment_S9(t *testing.T) {
	f := s3test.NewFake(t, s3test.Profile{ChecksumsRefused: true})
	t.Setenv("AWS_ENDPOINT_URL_S3", f.URL)
	st, err := s3.New(t.Context(), s3.Config{Bucket: s3test.Bucket, AccessKey: s3test.AccessKey,
		SecretKey: s3test.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putBytes(st, key, []byte("x")); err != nil || st.Provider() == "Amazon S3" {
		t.Errorf("put at %s: %v", st.Provider(), err)
	}
}

// TestPathStyle_S9: the configured path style takes precedence over what the endpoint suggests.
func TestPathStyle_S9(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		endpoint   string
		configured *bool
		want       bool
	}{
		{"http://minio.example.com:9000", nil, true}, {"http://minio.example.com:9000", new(false), false},
		{"https://objects.example.com", nil, false}, {"https://objects.example.com", new(true), true},
	} {
		st, err := s3.New(t.Context(), s3.Config{Bucket: "bucket", Endpoint: test.endpoint, PathStyle: test.configured,
			AccessKey: "a", SecretKey: "s"})
		if err != nil {
			t.Fatal(err)
		}
		if got := st.UsesPathStyle(); got != test.want {
			t.Errorf("%s: path style is %v, want %v", test.endpoint, got, test.want)
		}
	}
}
