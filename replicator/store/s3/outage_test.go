package s3

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// TestOutage_S38: an endpoint refuses all connections, and the stores of fifty databases keep
// trying. Few connections arrive, and soon after the endpoint is back every store has its answer.
func TestOutage_S38(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	var arrived, answered atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if arrived.Add(1); !refuse.Load() {
				answered.Add(1)
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
			}
			conn.Close()
		}
	}()
	shared := &Shared{}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	refuse.Store(true)
	var all sync.WaitGroup
	for range 50 {
		st, err := New(ctx, Config{
			Bucket: "b", Endpoint: "http://" + listener.Addr().String(), Region: "r", AccessKey: "a", SecretKey: "s",
			PathStyle: new(true), Shared: shared,
		})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := st.Get(ctx, "0000/x", 0, 0); errors.Is(err, store.ErrNotFound) {
					return
				} else if !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("during the outage: %v", err)
					return
				}
			}
			t.Error("no answer within a minute")
		})
	}
	const outage = 5 * time.Second
	select {
	case <-time.After(outage):
	case <-ctx.Done():
	}
	// Four failures open the breaker. Until then, requests that are already under way arrive too;
	// afterwards there are pauses.
	if n := arrived.Load(); n < 5 || n > 100 {
		t.Errorf("%d connections in %v", n, outage)
	}
	refuse.Store(false)
	all.Wait()
	t.Logf("%d connections, %d of them answered", arrived.Load(), answered.Load())
}
