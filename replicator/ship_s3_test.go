package replicator_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

func bucket(t *testing.T, url, prefix string) *s3.Store {
	t.Helper()
	return bucketOf(t, url, prefix, 500*time.Millisecond, 5*time.Second)
}

// bucketOf is bucket with other timeouts: a request may stall, and take altogether, that long.
func bucketOf(t *testing.T, url, prefix string, stall, deadline time.Duration) *s3.Store {
	t.Helper()
	st, err := s3.New(t.Context(), s3.Config{
		Bucket: s3test.Bucket, Prefix: prefix, Endpoint: url, Region: s3test.Region, AccessKey: s3test.AccessKey,
		SecretKey: s3test.SecretKey,
		Stall:     stall, Deadline: deadline, Backoff: 20 * time.Millisecond, PartSize: 5 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestShip_S3 ships to a real server through a proxy that breaks a quarter of all requests, in
// every way it can, while the application writes.
func TestShip_S3(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	path, w := database(t)
	h := newHost(t, path, replica("s3.main", bucket(t, proxy.URL, "app")))
	h.begin()
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(9, 9))
	faults := []s3test.Fault{
		s3test.Unavailable, s3test.InternalError, s3test.Conflict, s3test.HTML, s3test.Reset, s3test.LostReply,
		s3test.LostReply,
		s3test.HalfReply, s3test.WrongByte, s3test.StaleList, s3test.Hang, s3test.Skewed,
	}
	proxy.Break(func(*http.Request, int) s3test.Fault {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(4) > 0 {
			return s3test.None
		}
		return faults[rnd.IntN(len(faults))]
	})
	for range 80 {
		w.commit(10)
		h.eventually("sync", func() bool { return h.sync() == nil })
	}
	wantRestored(t, bucket(t, server.URL, "app"), path)
	if err := h.r.SnapshotNow(t.Context()); err != nil {
		t.Logf("snapshot through the faults: %v", err)
	}
	injected := 0
	for _, f := range slices.Compact(slices.Clone(faults)) { // the proxy still reads faults
		injected += proxy.Injected(f)
	}
	t.Logf("%d faults among %v", injected, proxy.Requests())
	if injected < 10 {
		t.Errorf("only %d faults", injected)
	}
	proxy.Break(nil)
	h.halt()
	wantRestored(t, bucket(t, server.URL, "app"), path)
	litestreamRestores(t, server, "app", path)
}

// litestreamRestores restores the prefix with Litestream, if that is installed.
func litestreamRestores(t *testing.T, server *s3test.Server, prefix, path string) {
	t.Helper()
	program, err := exec.LookPath("litestream")
	if err != nil {
		t.Log("litestream is not installed: whether it restores our replicas was not checked in this run")
		return
	}
	out := filepath.Join(t.TempDir(), "litestream.db")
	url := fmt.Sprintf("s3://%s/%s?endpoint=%s&region=%s&forcePathStyle=true", s3test.Bucket, prefix, server.URL,
		s3test.Region)
	cmd := exec.Command(program, "restore", "-o", out, url)
	cmd.Env = append(slices.DeleteFunc(cmd.Environ(),
		func(v string) bool { return strings.HasPrefix(v, "AWS_CA_BUNDLE=") }), "AWS_ACCESS_KEY_ID="+s3test.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+s3test.SecretKey)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("litestream restore: %v: %s", err, text)
	}
	if got, want := dump(t, out), dump(t, path); got != want {
		t.Errorf("litestream restored %q, the application has %q", got, want)
	}
}

// TestShip_S3_rate: sync_every limits the rate of PUTs, and an idle database causes no requests.
func TestShip_S3_rate(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	path, w := database(t)
	for name, every := range map[string]time.Duration{"quarter of a second": 250 * time.Millisecond,
		"second": time.Second} {
		prefix := strings.ReplaceAll(name, " ", "-")
		o := replica("s3.main", bucket(t, proxy.URL, prefix))
		o.SyncEvery = every
		h := newHost(t, path, o)
		h.begin()
		before := proxy.Requests()["put"]
		start := time.Now()
		for time.Since(start) < 2*time.Second {
			w.commit(1)
		}
		h.synced()
		puts, took := proxy.Requests()["put"]-before, time.Since(start)
		if limit := int(took/every) + 4; puts > limit {
			t.Errorf("sync every %s: %d puts in %v, want at most %d", name, puts, took, limit)
		}
		h.wantIdle(func() string { return fmt.Sprint(proxy.Requests()) })
		h.halt()
		wantRestored(t, bucket(t, server.URL, prefix), path)
	}
}

// TestShip_P3_shutdownOnADeadLink: a shutdown ends within its deadline although the store does not
// answer.
func TestShip_P3_shutdownOnADeadLink(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	path, w := database(t)
	h := newHost(t, path, replica("s3.main", bucket(t, proxy.URL, "app")))
	h.options.FinalSync = time.Second
	h.begin()
	proxy.Break(func(*http.Request, int) s3test.Fault { return s3test.Hang })
	w.commit(5)
	h.eventually("captured", func() bool { return h.r.Replicas()[0].PendingBytes > 0 })
	start := time.Now()
	h.halt()
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("shutdown took %v with a deadline of 1 s", took)
	}
	proxy.Break(nil)
	h.begin()
	wantRestored(t, bucket(t, server.URL, "app"), path)
}

var _ store.Store = (*s3.Store)(nil)

// TestShip_S2_twoHours: the store is unreachable for two hours, by the test's clock, while the
// application writes more than the spool may hold. Capture releases the WAL and says why, so that
// the application can keep the WAL small again. Afterwards the replica gets the difference, without
// a second snapshot, and equals the database.
func TestShip_S2_twoHours(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	path, w := database(t)
	st := bucket(t, server.URL, "app")
	// The proxy refuses requests at once, so long timeouts cost nothing, and a busy machine that
	// stalls for a second does not count as a fault.
	h := newHost(t, path, replica("s3.main", bucketOf(t, proxy.URL, "app", 20*time.Second, time.Minute)))
	h.options.Metrics = replicator.NewMetrics()
	h.options.Capture.SpoolLimit = 1_000_000
	h.options.Capture.BatchAge = 20 * time.Millisecond
	h.options.Capture.RestartAt = 2_000_000
	h.begin()
	proxy.Break(func(*http.Request, int) s3test.Fault { return s3test.Unavailable })
	lost := func() float64 { return h.metric("sqlwatch_replica_discontinuities_total", "spool_full") }
	for round := 0; lost() == 0; round++ {
		if round == 200 {
			t.Fatalf("the spool of %d bytes is not full after %d commits: %+v", h.options.Capture.SpoolLimit, round*100,
				h.r.Replicas())
		}
		before := h.r.Replicas()[0].PendingBytes
		w.commit(100)
		h.eventually("more is captured, or the WAL is released", func() bool {
			h.r.Wake()
			return h.r.Replicas()[0].PendingBytes > before || lost() > 0
		})
		h.skew.Add(int64(time.Minute))
	}
	h.eventually("capture has released the WAL, which is counted a little earlier", func() bool {
		_, err := h.r.Captured()
		return errors.Is(err, capture.ErrSpoolFull)
	})
	size := func() int64 {
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	wal := size()
	// The spool may exceed its limit by one batch, and by a comparison if no poll came in time.
	if pending := h.r.Replicas()[0].PendingBytes; pending > 4*h.options.Capture.SpoolLimit {
		t.Errorf("%d bytes wait in a spool with a limit of %d", pending, h.options.Capture.SpoolLimit)
	}
	for range 20 { // some 60 MB of frames
		w.commit(300)
		h.r.Wake()
	}
	h.skew.Store(int64(max(2*time.Hour, time.Duration(h.skew.Load()))))
	// The WAL does not restart at once: the application first has to complete a checkpoint, some
	// commits later.
	if after := size(); after > max(wal+1_000_000, 8_000_000) {
		t.Errorf("the application's WAL, which it checkpoints at 4 MB, grew from %d to %d bytes after capture released it",
			wal, after)
	}
	if s := h.r.Replicas()[0]; s.Healthy || s.LagSeconds < 3600 {
		t.Errorf("two hours into the outage the replica counts as healthy: %+v", s)
	}
	proxy.Break(nil)
	h.eventually("recovery", func() bool { return h.sync() == nil })
	w.commit(10)
	h.eventually("sync", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
	snapshots := 0
	for _, err := range st.List(t.Context(), store.LevelPrefix(store.SnapshotLevel), "") {
		if err != nil {
			t.Fatal(err)
		}
		snapshots++
	}
	// The difference may be more than the spool holds, and fill it once more.
	if n := lost(); n < 1 || n > 2 || snapshots != 1 {
		t.Errorf("%v times spool_full and %d snapshots, want one or two, and one", n, snapshots)
	}
	if n := proxy.Injected(s3test.Unavailable); n < 3 {
		t.Errorf("only %d requests were refused", n)
	}
}
