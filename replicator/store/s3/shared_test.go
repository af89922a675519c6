package s3_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// TestShared: stores with the same account and certificate share one connection for their requests;
// a store that trusts another certificate does not use it.
func TestShared(t *testing.T) {
	var connections, requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(n int, c s3.Config) error {
		c.Bucket, c.Prefix, c.Endpoint, c.Region, c.PathStyle = "b", fmt.Sprint("p", n), server.URL, "us-east-1", new(true)
		c.AccessKey, c.SecretKey = "id", "secret"
		st, err := s3.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = st.Get(t.Context(), "key", 0, 0)
		return err
	}
	const stores = 20
	for _, c := range []struct {
		shared *s3.Shared
		want   int64
	}{{nil, stores}, {&s3.Shared{}, 1}} {
		connections.Store(0)
		for n := range stores {
			if err := ask(n, s3.Config{CAFile: ca, Shared: c.shared}); !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("get: %v, want ErrNotFound", err)
			}
		}
		if got := connections.Load(); got != c.want {
			t.Errorf("shared %v: %d stores opened %d connections, want %d", c.shared != nil, stores, got, c.want)
		}
	}
	shared := &s3.Shared{}
	if err := ask(0, s3.Config{CAFile: ca, Shared: shared}); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	before := requests.Load()
	if err := ask(1, s3.Config{Shared: shared}); !errors.Is(err, store.ErrUnavailable) || requests.Load() != before {
		t.Errorf("a store without the certificate got through: %v", err)
	}
}
