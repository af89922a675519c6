package s3_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// TestReplaced_S7: a body that breaks off is not continued in an object that has replaced its own, even if the
// store, or a cache before it, ignores If-Match of a GET.
func TestReplaced_S7(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			w.Header().Set("ETag", `"b"`)
			w.Header().Set("Content-Range", "bytes 4-7/8")
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "bbbb")
			return
		}
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Content-Length", "8")
		io.WriteString(w, "aaaa") // fewer bytes than announced: the connection is closed
	}))
	defer server.Close()
	st, err := s3.New(t.Context(), s3.Config{Bucket: "b", Prefix: "p", Endpoint: server.URL, Region: "us-east-1",
		PathStyle: new(true), AccessKey: "id", SecretKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	body, _, err := st.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if data, err := io.ReadAll(body); !errors.Is(err, store.ErrNotFound) || string(data) != "aaaa" {
		t.Errorf("read %q, %v; want aaaa and ErrNotFound", data, err)
	}
}
