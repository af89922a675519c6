package s3_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// before starts a server in front of the fake: requests that answered does not handle are passed
// on.
func before(t *testing.T, f *s3test.Fake, answered func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answered(w, r) {
			f.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL
}

// says writes an error as S3 does.
func says(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>it says</Message></Error>`, code)
	return true
}

// TestConditional_S12_twoAtOnce: of two conditional PUTs that are under way at the same time one
// succeeds, and the other gets ErrExists, even if the store answers with a conflict in between.
func TestConditional_S12_twoAtOnce(t *testing.T) {
	t.Parallel()
	f := s3test.NewFake(t, s3test.Profile{})
	arrived, done := make(chan bool, 1), make(chan bool)
	var puts atomic.Int64
	url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
		if s3test.Operation(r) != "put" {
			return false
		}
		switch puts.Add(1) {
		case 1: // continues when the other was refused
			arrived <- true
			<-done
		case 2:
			defer close(done)
			return says(w, http.StatusConflict, "ConditionalRequestConflict")
		}
		return false
	})
	st := at(t, f, func(c *s3.Config) { c.Endpoint = url })
	put := func(text string) error {
		_, err := st.Put(context.Background(), key, storetest.Bytes([]byte(text)), store.PutOptions{Create: true})
		return err
	}
	first := make(chan error, 1)
	go func() { first <- put("first") }()
	<-arrived
	second := put("second")
	err := <-first
	if winners := map[bool]int{err == nil: 1, second == nil: 2}; len(winners) != 2 ||
		!errors.Is(errors.Join(err, second), store.ErrExists) {
		t.Errorf("first %v, second %v: want one nil and one ErrExists", err, second)
	}
	want := map[bool]string{true: "first", false: "second"}[err == nil]
	if got, err := readAll(t, st, key); err != nil || string(got) != want {
		t.Errorf("the object is %q, %v, want %q", got, err, want)
	}
}

// TestConditional_S12_completion: after a conflict when an upload is completed, the upload begins
// again with new parts; a stream does so only if the caller repeats the Put. A failed condition is
// reported, and so is If-Match without an object.
func TestConditional_S12_completion(t *testing.T) {
	t.Parallel()
	data := noise(part + part/5)
	for name, test := range map[string]struct {
		status int
		code   string
		want   error
	}{
		"conflict": {http.StatusConflict, "ConditionalRequestConflict", store.ErrConflict},
		"refused":  {http.StatusPreconditionFailed, "PreconditionFailed", store.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := s3test.NewFake(t, s3test.Profile{})
			var mu sync.Mutex
			refused := ""
			url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
				id := r.URL.Query().Get("uploadId")
				if s3test.Operation(r) != "complete" {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				if refused == "" {
					refused = id
				}
				return refused == id && says(w, test.status, test.code) // for ever: that upload is gone
			})
			st := at(t, f, func(c *s3.Config) { c.Endpoint = url })
			_, err := putStream(st, key, data, store.PutOptions{Create: true})
			if want := test.want; !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
			if errors.Is(test.want, store.ErrConflict) {
				if _, err = putStream(st, key, data, store.PutOptions{Create: true}); err != nil {
					t.Fatalf("again: %v", err)
				}
				refused = ""
				st.SetWhole(2 * part)
				known := storetest.Bytes(noise(2*part + part/2)) // too large for one PUT
				if _, err = st.Put(t.Context(), "known", known, store.PutOptions{Create: true}); err != nil {
					t.Errorf("a body that can be opened again: %v", err)
				}
			}
			if f.Uploads() != 0 {
				t.Errorf("%d uploads are left", f.Uploads())
			}
			if got, err := readAll(t, st, key); test.want == store.ErrConflict && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("read back %d bytes, %v", len(got), err)
			}
		})
	}
	st, _ := quirk(t, s3test.Profile{MatchNothing: 404})
	if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")),
		store.PutOptions{Match: `"1"`}); !errors.Is(err, store.ErrExists) {
		t.Errorf("If-Match without an object: %v, want ErrExists", err)
	}
}

// TestCompletion_S14_errorIn200: the answer to a completion begins with status 200 and white space,
// to keep the connection open, and then turns out to be an error. It is not taken for a success.
func TestCompletion_S14_errorIn200(t *testing.T) {
	t.Parallel()
	data := noise(part + part/5)
	const header = `<?xml version="1.0" encoding="UTF-8"?>`
	for name, text := range map[string]string{
		"white space first": "  \n  \n<Error><Code>InternalError</Code><Message>again</Message></Error>",
		"header first":      header + "  \n \n<Error><Code>InternalError</Code><Message>again</Message></Error>",
	} {
		for _, times := range []int64{1, 1000} {
			t.Run(fmt.Sprint(name, " ", times), func(t *testing.T) {
				t.Parallel()
				f := s3test.NewFake(t, s3test.Profile{})
				var n atomic.Int64
				url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
					if s3test.Operation(r) != "complete" || n.Add(1) > times {
						return false
					}
					w.Header().Set("Content-Type", "application/xml")
					io.WriteString(w, text)
					return true
				})
				st := at(t, f, func(c *s3.Config) { c.Endpoint = url })
				_, err := putStream(st, key, data, store.PutOptions{})
				if times > 1 {
					if !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("%v, want ErrUnavailable", err)
					}
					return
				}
				if got, back := readAll(t, st, key); err != nil || back != nil || !bytes.Equal(got, data) {
					t.Errorf("%v; read back %d bytes, %v", err, len(got), back)
				}
			})
		}
	}
}

// TestUpload_S14_aborted: a lifecycle rule aborts an upload under way, before a part or before its
// completion. That is not reported as a missing object, and the Put succeeds when it is repeated.
func TestUpload_S14_aborted(t *testing.T) {
	t.Parallel()
	data := noise(2*part + part/2)
	for _, op := range []string{"part", "complete"} {
		for _, always := range []bool{false, true} {
			t.Run(fmt.Sprint(op, " always ", always), func(t *testing.T) {
				t.Parallel()
				f := s3test.NewFake(t, s3test.Profile{})
				var mu sync.Mutex
				gone := map[string]bool{}
				url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
					id := r.URL.Query().Get("uploadId")
					if s3test.Operation(r) != op {
						return false
					}
					mu.Lock()
					defer mu.Unlock()
					if always || len(gone) == 0 {
						gone[id] = true
					}
					return gone[id] && says(w, http.StatusNotFound, "NoSuchUpload")
				})
				st := at(t, f, func(c *s3.Config) { c.Endpoint = url })
				_, err := putStream(st, key, data, store.PutOptions{})
				if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) {
					t.Errorf("%v, want ErrUnavailable and not ErrNotFound", err)
				}
				if always {
					return
				}
				_, err = putStream(st, key, data, store.PutOptions{})
				if got, back := readAll(t, st, key); err != nil || back != nil || !bytes.Equal(got, data) {
					t.Errorf("%v; read back %d bytes, %v", err, len(got), back)
				}
			})
		}
	}
}

// TestKeys_S8_expireInAnUpload: the temporary keys of a machine's role expire while parts are sent.
// New ones are fetched, and the upload continues.
func TestKeys_S8_expireInAnUpload(t *testing.T) {
	var valid, fetched atomic.Int64
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			io.WriteString(w, "token")
		case strings.HasSuffix(path, "/security-credentials/"):
			io.WriteString(w, "role")
		case strings.HasSuffix(path, "/security-credentials/role"):
			fetched.Add(1)
			json.NewEncoder(w).Encode(map[string]any{"Code": "Success", "Type": "AWS-HMAC",
				"AccessKeyId": s3test.AccessKey, "SecretAccessKey": s3test.SecretKey,
				"Token": fmt.Sprint("session-", valid.Load()), "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
		default:
			http.NotFound(w, r)
		}
	}))
	defer role.Close()
	empty := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", empty)
	t.Setenv("AWS_CONFIG_FILE", empty)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", role.URL)
	f := s3test.NewFake(t, s3test.Profile{})
	var seen sync.Map // the keys expire at the first request of each operation
	var refused atomic.Int64
	url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
		if _, again := seen.LoadOrStore(s3test.Operation(r), true); !again {
			valid.Add(1)
		}
		if r.Header.Get("X-Amz-Security-Token") != fmt.Sprint("session-", valid.Load()) {
			refused.Add(1)
			return says(w, http.StatusBadRequest, "ExpiredToken")
		}
		return false
	})
	st := at(t, f, func(c *s3.Config) { c.Endpoint, c.AccessKey, c.SecretKey = url, "", "" })
	data := noise(3*part + part/5)
	if _, err := putStream(st, key, data, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, st, key); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	if refused.Load() < 3 || fetched.Load() < 2 { // create, part, complete at least
		t.Errorf("%d requests refused, keys fetched %d times: the test proves nothing", refused.Load(), fetched.Load())
	}
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

// certificate makes a self-signed certificate, and a file that trusts it.
func certificate(t *testing.T, name string, from, to time.Time) (tls.Certificate, string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from,
		NotAfter: to, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: secret}, ca
}

// TestTLS_S18: a certificate that is not valid now, for another host, or from an unknown authority
// is refused and named before a request is sent, and nothing falls back to plain HTTP.
func TestTLS_S18(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, test := range map[string]struct {
		host     string
		from, to time.Time
		trusted  bool
		want     string
	}{
		"out of date": {"127.0.0.1", now.Add(-48 * time.Hour), now.Add(-24 * time.Hour), true, "not valid now"},
		"not yet":     {"127.0.0.1", now.Add(24 * time.Hour), now.Add(48 * time.Hour), true, "not valid now"},
		"another's":   {"s3.example.org", now.Add(-time.Hour), now.Add(time.Hour), true, "another host name"},
		"nobody's":    {"127.0.0.1", now.Add(-time.Hour), now.Add(time.Hour), false, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := s3test.NewFake(t, s3test.Profile{})
			var requests atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				requests.Add(1)
			}))
			cert, ca := certificate(t, test.host, test.from, test.to)
			if !test.trusted {
				_, ca = certificate(t, test.host, test.from, test.to)
			}
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			server.Config.ErrorLog = quietLog()
			server.StartTLS()
			defer server.Close()
			st := at(t, f, func(c *s3.Config) { c.Endpoint, c.CAFile = server.URL, ca })
			_, err := putBytes(st, key, []byte("secret rows"))
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if requests.Load() != 0 {
				t.Errorf("%d requests were sent nevertheless", requests.Load())
			}
		})
	}
}

// TestHTTP1_S4: a request that hangs is noticed even while data of another one arrives, also over
// TLS with a server that offers HTTP/2, because requests never share a connection.
func TestHTTP1_S4(t *testing.T) {
	t.Parallel()
	f := s3test.NewFake(t, s3test.Profile{})
	noticed, moving, closed := make(chan bool), make(chan bool, 1), make(chan bool)
	var two atomic.Int64
	cert, ca := certificate(t, "127.0.0.1", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 {
			two.Add(1)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "hangs"):
			select {
			case <-r.Context().Done():
			case <-closed:
			}
		case strings.HasSuffix(r.URL.Path, "moves"):
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-Length", "1000000")
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := 0; i < 1000000; i++ {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				if i == 1 {
					moving <- true
				}
				select {
				case <-noticed:
					return
				case <-r.Context().Done():
					return
				case <-tick.C:
				}
			}
		}
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = quietLog()
	server.StartTLS()
	t.Cleanup(func() { close(closed); server.CloseClientConnections(); server.Close() })
	st := at(t, f, func(c *s3.Config) {
		c.Endpoint, c.CAFile, c.Stall, c.Deadline = server.URL, ca, 500*time.Millisecond, time.Hour
	})
	body, _, err := st.Get(t.Context(), "moves", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan bool)
	go func() {
		defer close(read)
		io.Copy(io.Discard, body)
		body.Close()
	}()
	<-moving
	_, _, err = st.Get(t.Context(), "hangs", 0, 0)
	close(noticed)
	<-read
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the request that hangs: %v, want ErrUnavailable", err)
	}
	if two.Load() != 0 {
		t.Errorf("%d requests came over HTTP/2", two.Load())
	}
}

// TestAbsent_R20: if the keys may list only below their prefix, Amazon answers AccessDenied for a
// missing object. The store reports such an object as missing; an object that may not be read stays
// denied.
func TestAbsent_R20(t *testing.T) {
	t.Parallel()
	st, f := quirk(t, s3test.Profile{Front: s3test.Front{HidesAbsent: true}})
	for what, length := range map[string]int64{"GET": -1, "HEAD": 0} {
		if _, _, err := st.Get(t.Context(), "absent", 0, length); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	url := before(t, f, func(w http.ResponseWriter, r *http.Request) bool {
		op := s3test.Operation(r)
		return (op == "get" || op == "head") && strings.Contains(r.URL.Path, "0000/") && says(w, 403, "AccessDenied")
	})
	st = at(t, f, func(c *s3.Config) { c.Endpoint = url })
	if _, err := putBytes(st, key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.Get(t.Context(), key, 0, -1); !errors.Is(err, store.ErrAuth) {
		t.Errorf("an object that may not be read: %v, want ErrAuth", err)
	}
}

// TestClock_P9: this machine's clock is an hour off, which Amazon refuses. Every request succeeds
// with the store's time.
func TestClock_P9(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		for first := range 5 { // each kind of request in turn is the first to find out
			t.Run(fmt.Sprint(off, " ", first), func(t *testing.T) {
				t.Parallel()
				f := s3test.NewFake(t, s3test.Profile{Name: "Amazon S3", Front: s3test.Front{Strict: true, Clock: off}})
				there := at(t, f, nil)
				for _, name := range []string{"there", "gone"} {
					if _, err := putBytes(there, name, []byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				st := at(t, f, func(c *s3.Config) { c.Prefix = strings.TrimSuffix(f.Keys()[0], "/gone") })
				calls := []func() error{
					func() error { _, err := putBytes(st, "put", []byte("x")); return err },
					func() error { _, err := putStream(st, "parts", noise(part+part/5), store.PutOptions{}); return err },
					func() error { _, err := keysOf(st, "", ""); return err },
					func() error { _, _, err := st.Get(t.Context(), "there", 0, 0); return err },
					func() error { return st.Delete(t.Context(), "gone") },
				}
				for i := range calls {
					if err := calls[(first+i)%len(calls)](); err != nil {
						t.Errorf("call %d: %v", (first+i)%len(calls), err)
					}
				}
			})
		}
	}
}

// TestNoCredentials: without keys the error says so, and does not mention Amazon's metadata
// service, which is not used for other providers.
func TestNoCredentials(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "none")
	for _, name := range []string{"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"} {
		t.Setenv(name, empty)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"} {
		t.Setenv(name, "")
	}
	f := s3test.NewFake(t, s3test.Profile{})
	st := at(t, f, func(c *s3.Config) { c.AccessKey, c.SecretKey = "", "" })
	_, err := readAll(t, st, key)
	if !errors.Is(err, store.ErrAuth) || strings.Contains(err.Error(), "IMDS") ||
		!strings.Contains(err.Error(), "access denied: no credentials were found: set access_key and secret_key") {
		t.Errorf("without keys: %v", err)
	}
}
