package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestMain sends requests for host names that do not exist here to a server that answers as a
// provider does for an unknown bucket.
func TestMain(m *testing.M) {
	provider := httptest.NewServer(answer(http.StatusNotFound, "NoSuchBucket", nil))
	os.Setenv("HTTP_PROXY", provider.URL)
	os.Setenv("NO_PROXY", ".invalid")
	code := m.Run()
	provider.Close()
	os.Exit(code)
}

// answer returns a store that gives the same answer to every request.
func answer(status int, code string, header http.Header) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>%s it is</Message></Error>`, code, code)
	})
}

// probed probes a store with a round trip and returns the findings.
func probed(t *testing.T, st store.Store) (Replica, []Finding) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r := Probe(ctx, st, Replica{Kind: "s3"})
	r.Name, r.Place = "s3.main", "s3://backups/app"
	found := replicas(Facts{Replicas: []Replica{r}})
	for _, f := range found {
		f.Subject = ""
		checkText(t, f)
	}
	return r, found
}

func s3Store(t *testing.T, c s3.Config) store.Store {
	t.Helper()
	c.Bucket, c.Prefix, c.Backoff, c.Deadline = "backups", "app", time.Millisecond, 10*time.Second
	if c.AccessKey == "" {
		c.AccessKey, c.SecretKey = "id", "canary-secret"
	}
	st, err := s3.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Each way to set up a replica wrongly is one finding with what to do next.
func TestProbeErrors(t *testing.T) {
	t.Parallel()
	none := http.Header{}
	tests := []struct {
		name   string
		answer http.Handler
		id     string
		cure   string
	}{
		{"wrong bucket", answer(404, "NoSuchBucket", none), "replica-misplaced",
			`there is no bucket "backups" at http://127`},
		{"wrong region", answer(301, "PermanentRedirect", http.Header{"X-Amz-Bucket-Region": {"eu-central-1"}}),
			"replica-misplaced", `set region = "eu-central-1"`},
		{"region in the signature", answer(400, "AuthorizationHeaderMalformed", none), "replica-misplaced", "set region"},
		{"unknown key", answer(403, "InvalidAccessKeyId", none), "replica-credentials", "check access_key"},
		{"wrong secret", answer(403, "SignatureDoesNotMatch", none), "replica-credentials", "check secret_key"},
		{"S8 expired token", answer(400, "ExpiredToken", none), "replica-credentials", "renew it"},
		{"P9 clock", answer(403, "RequestTimeTooSkewed", none), "clock-skew", "this machine's clock is wrong"},
		{"a web page", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<html><body>Welcome</body></html>")
		}), "replica-unreachable", "login page"},
		{"out of order", answer(503, "SlowDown", none), "replica-unreachable", "check endpoint"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.answer)
			t.Cleanup(server.Close)
			r, found := probed(t, s3Store(t, s3.Config{Endpoint: server.URL, PathStyle: new(true), Region: "us-east-1"}))
			wantFinding(t, found, tt.id, tt.cure)
			if r.WentWell() {
				t.Error("and yet all went well")
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(nil)
		server.Close()
		_, found := probed(t, s3Store(t, s3.Config{Endpoint: server.URL, PathStyle: new(true)}))
		wantFinding(t, found, "replica-unreachable", "nothing listens at the endpoint")
	})
	t.Run("B2 endpoint of another region", func(t *testing.T) {
		t.Parallel()
		_, found := probed(t, s3Store(t, s3.Config{Endpoint: "http://s3.us-west-004.backblazeb2.com", PathStyle: new(true)}))
		wantFinding(t, found, "replica-misplaced", "s3.REGION.backblazeb2.com")
	})
	t.Run("path style", func(t *testing.T) {
		t.Parallel()
		_, found := probed(t, s3Store(t, s3.Config{Endpoint: "http://minio.invalid"}))
		wantFinding(t, found, "replica-unreachable", "path_style = true")
	})
	t.Run("no TLS", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(answer(404, "NoSuchBucket", nil))
		t.Cleanup(server.Close)
		_, found := probed(t, s3Store(t, s3.Config{Endpoint: strings.Replace(server.URL, "http", "https", 1),
			PathStyle: new(true)}))
		wantFinding(t, found, "replica-unreachable", "http://")
	})
}

// wantFinding expects this one finding, without the secret.
func wantFinding(t *testing.T, found []Finding, id, cure string) {
	t.Helper()
	if len(found) != 1 || found[0].ID != id || !strings.Contains(found[0].Cure, cure) {
		t.Fatalf("%+v, want %s with %q", found, id, cure)
	}
	if text := fmt.Sprint(found); strings.Contains(text, "canary") {
		t.Errorf("I14 the secret shows: %s", text)
	}
}

// part is a store that denies operations and misbehaves.
type part struct {
	store.Store
	deny                       string // the operations to deny
	ignoresConditions, refuses bool
	hides                      bool
}

var errDenied = storeError(store.ErrAuth, "AccessDenied")

func (p part) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	switch {
	case strings.Contains(p.deny, "put"):
		return store.Object{}, errDenied
	case p.refuses && o.Create:
		return store.Object{}, fmt.Errorf("%w: NotImplemented", errors.ErrUnsupported)
	case p.ignoresConditions:
		o.Create = false
	}
	return p.Store.Put(ctx, key, body, o)
}

func (p part) Delete(ctx context.Context, keys ...string) error {
	if strings.Contains(p.deny, "delete") {
		return errDenied
	}
	return p.Store.Delete(ctx, keys...)
}

func (p part) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	if strings.Contains(p.deny, "list") {
		return func(yield func(store.Object, error) bool) { yield(store.Object{}, errDenied) }
	}
	if p.hides {
		return func(func(store.Object, error) bool) {}
	}
	return p.Store.List(ctx, prefix, after)
}

func TestProbe(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		store func(m *storetest.Memory) store.Store
		ids   string
		left  int // objects left behind
	}{
		{"all well", func(m *storetest.Memory) store.Store { return m }, "", 0},
		{"read-only keys", func(m *storetest.Memory) store.Store { return part{Store: m, deny: "put"} }, "replica-permission",
			0},
		{"no delete", func(m *storetest.Memory) store.Store { return part{Store: m, deny: "delete"} }, "replica-permission",
			1},
		{"no list", func(m *storetest.Memory) store.Store { return part{Store: m, deny: "list"} }, "replica-permission", 0},
		{"no list and no delete", func(m *storetest.Memory) store.Store { return part{Store: m, deny: "list delete"} },
			"replica-permission replica-permission", 1},
		{"conditions ignored", func(m *storetest.Memory) store.Store { return part{Store: m, ignoresConditions: true} },
			"replica-conditional-writes", 0},
		{"conditions refused", func(m *storetest.Memory) store.Store { return part{Store: m, refuses: true} },
			"replica-conditional-writes", 0},
		{"stale listing", func(m *storetest.Memory) store.Store { return part{Store: m, hides: true} }, "replica-stale-list",
			0},
		{"corrupt", func(m *storetest.Memory) store.Store {
			return storetest.NewFaulty(m, storetest.Nth(0, storetest.Corrupt, "get"))
		}, "replica-damaged", 0},
		{"breaks off", func(m *storetest.Memory) store.Store {
			return storetest.NewFaulty(m, storetest.Nth(0, storetest.Truncated, "get"))
		}, "replica-unreachable", 0},
		{"clock behind", func(m *storetest.Memory) store.Store {
			m.SetClock(func() time.Time { return time.Now().Add(time.Hour) })
			return m
		}, "clock-skew", 0},
		{"another program's", func(m *storetest.Memory) store.Store {
			put(t, m, store.LTXKey(0, 1, 1))
			return m
		}, "replica-foreign", 1},
		{"Litestream 0.3's", func(m *storetest.Memory) store.Store {
			put(t, m, "generations/0123456789abcdef/snapshots/00000000.snapshot.lz4")
			return m
		}, "replica-foreign", 1},
		{"our own", func(m *storetest.Memory) store.Store {
			put(t, m, store.LTXKey(0, 1, 1))
			put(t, m, "sqlwatch/lease.json")
			return m
		}, "", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			memory := storetest.NewMemory()
			r, found := probed(t, tt.store(memory))
			var ids []string
			for _, f := range found {
				ids = append(ids, f.ID)
			}
			if got := strings.Join(ids, " "); got != tt.ids {
				t.Errorf("found %q, want %q: %+v", got, tt.ids, found)
			}
			if keys := memory.Keys(); len(keys) != tt.left {
				t.Errorf("left behind: %v, want %d", keys, tt.left)
			}
			if tt.ids == "" && !r.WentWell() {
				t.Errorf("not all went well: %+v", r)
			}
		})
	}
}

func put(t *testing.T, st store.Store, key string) {
	t.Helper()
	p := &probe{content: []byte("x")}
	if _, err := st.Put(context.Background(), key, p.body(), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// The existing stores pass.
func TestProbeStores(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		st, err := file.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if r, found := probed(t, st); len(found) > 0 || r.Conditional != Honoured || !r.SkewKnown || !r.WentWell() {
			t.Errorf("%+v: %+v", r, found)
		}
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		server := s3test.Start(t)
		st, err := s3.New(context.Background(), s3.Config{Bucket: s3test.Bucket, Prefix: "app", Region: s3test.Region,
			Endpoint: server.URL, PathStyle: new(true),
			AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
		if err != nil {
			t.Fatal(err)
		}
		if r, found := probed(t, st); len(found) > 0 || r.Conditional != Honoured || !r.SkewKnown || !r.WentWell() {
			t.Errorf("%+v: %+v", r, found)
		}
	})
}
