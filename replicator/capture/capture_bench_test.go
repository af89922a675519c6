package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
)

// benchWriter commits one small row at a time, as fast as it can, and prints as JSON how many it
// committed and how long commits took: p99, p999 and the longest, in milliseconds.
const benchWriter = `
import sqlite3, sys, time, random, json
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=normal")
db.execute("create table if not exists t(id integer primary key, k int, v blob)")
v = random.Random(1).randbytes(100)
ts = []; add = ts.append; now = time.perf_counter; ex = db.execute
end = now() + float(sys.argv[2]); i = 0
while True:
    a = now()
    ex("insert into t(k, v) values(?, ?)", (i, v)); i += 1
    b = now(); add(b - a)
    if b > end: break
ts.sort()
print(json.dumps({"commits": i, "p99": ts[int(len(ts)*.99)]*1e3, 
 "p999": ts[int(len(ts)*.999)]*1e3, "worst": ts[-1]*1e3}))
`

type benchResult struct {
	Commits          int
	P99, P999, Worst float64
}

// BenchmarkWriter runs a writer in another process at full speed for some seconds without capture
// and for as many with it, each time on a new database. It reports how speed, the longest commit
// and the size of the live WAL depend on RestartAt.
func BenchmarkWriter(b *testing.B) {
	for _, mb := range []int64{8, 16, 32, 64, 128} {
		b.Run(fmt.Sprintf("restart_at=%dMB", mb), func(b *testing.B) { benchWriterAt(b, mb<<20) })
	}
}

func benchWriterAt(b *testing.B, restartAt int64) {
	const seconds = 5
	var alone, with benchResult
	var beside besideWriter
	for i := 0; b.Loop(); i++ {
		add := func(sum *benchResult, r benchResult) {
			sum.Commits += r.Commits
			sum.P99, sum.P999, sum.Worst = sum.P99+r.P99, sum.P999+r.P999, max(sum.Worst, r.Worst)
		}
		measure := []func(){
			func() { add(&alone, runBenchWriter(b, filepath.Join(b.TempDir(), "a.db"), seconds, nil)) },
			func() {
				path := filepath.Join(b.TempDir(), "b.db")
				runBenchWriter(b, path, 0, nil) // makes the database
				add(&with, runBenchWriter(b, path, seconds, func(ctx context.Context) { beside.capture(b, ctx, path, restartAt) }))
			},
		}
		measure[i%2]()
		measure[1-i%2]()
	}
	n := float64(b.N)
	b.ReportMetric(float64(with.Commits)/float64(alone.Commits), "ratio")
	b.ReportMetric(float64(alone.Commits)/n/seconds, "alone/s")
	b.ReportMetric(float64(with.Commits)/n/seconds, "with/s")
	b.ReportMetric(alone.P99/n*1e3, "alone-p99-us")
	b.ReportMetric(with.P99/alone.P99, "p99-ratio")
	b.ReportMetric(alone.P999/n*1e3, "alone-p999-us")
	b.ReportMetric(with.P999/alone.P999, "p999-ratio")
	b.ReportMetric(alone.Worst, "alone-worst-ms")
	b.ReportMetric(with.Worst, "worst-ms")
	b.ReportMetric(float64(beside.live)/(1<<20), "live-wal-MB")
	b.ReportMetric(float64(beside.restarts)/n, "restarts")
	b.ReportMetric(float64(beside.failed)/n, "restarts-failed")
	b.ReportMetric(beside.stall.Seconds()*1e3/float64(max(1, beside.restarts+beside.failed)), "stall-ms")
	b.ReportMetric(beside.worst.Seconds()*1e3, "worst-stall-ms")
}

func runBenchWriter(b *testing.B, path string, seconds float64, beside func(context.Context)) (r benchResult) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	if beside != nil {
		ready := make(chan struct{})
		go func() { defer close(ended); close(ready); beside(ctx) }()
		<-ready
	} else {
		close(ended)
	}
	out, err := exec.Command("python3", "-c", benchWriter, path, strconv.FormatFloat(seconds, 'f', 1, 64)).Output()
	cancel()
	<-ended
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		b.Fatal(fmt.Errorf("%q: %w", out, err))
	}
	return r
}

// besideWriter is what a capture beside a writer measured.
type besideWriter struct {
	live             int64 // largest live WAL in bytes
	restarts, failed int
	stall, worst     time.Duration
}

// capture runs a capture until ctx ends.
func (w *besideWriter) capture(b *testing.B, ctx context.Context, path string, restartAt int64) {
	files, err := dbfile.Open(path)
	if err != nil {
		b.Error(err)
		return
	}
	defer files.Close()
	c := New(Options{Name: "bench", Files: files, StateDir: filepath.Join(filepath.Dir(path), "state"),
		SpoolLimit: 8 << 30, RestartAt: restartAt, Logger: benchLogger()})
	if err := c.Open(context.Background()); err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		r, err := c.Step(context.Background(), false)
		if err != nil {
			b.Error(err)
			return
		}
		if x, err := files.WALIndex(); err == nil {
			w.live = max(w.live, int64(x.MaxFrame)*int64(x.PageSize+dbfile.FrameHeaderSize))
		}
		if r.Restart {
			w.restarts++
		} else if r.Stall > 0 {
			w.failed++
		}
		w.stall, w.worst = w.stall+r.Stall, max(w.worst, r.Stall)
		select {
		case <-ctx.Done():
		case <-time.After(r.Next):
		}
	}
}

// benchLogger logs each restart if SQLWATCH_TEST_DEBUG is set.
func benchLogger() *slog.Logger {
	if os.Getenv("SQLWATCH_TEST_DEBUG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// BenchmarkWriterBesideView runs a writer at full speed alone, and beside an open view of its
// database, such as a comparison keeps open while it reads.
func BenchmarkWriterBesideView(b *testing.B) {
	const seconds = 4
	var alone, with int
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "a.db")
		runBenchWriter(b, path, 0.2, nil)
		alone += runBenchWriter(b, path, seconds, nil).Commits
		with += runBenchWriter(b, path, seconds, func(ctx context.Context) { viewOpen(b, ctx, path) }).Commits
	}
	b.ReportMetric(float64(with)/float64(alone), "ratio")
	b.ReportMetric(float64(alone)/float64(b.N)/seconds, "alone/s")
}

// viewOpen holds a view of a fully backfilled database until ctx ends.
func viewOpen(b *testing.B, ctx context.Context, path string) {
	files, err := dbfile.Open(path)
	if err != nil {
		b.Error(err)
		return
	}
	defer files.Close()
	conn, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	if _, err := conn.Checkpoint(context.Background(), sqlite.Passive, sqlite.Budget{}); err != nil {
		b.Error(err)
	}
	if _, err := files.Refresh(); err != nil { // the connection may have made the side files
		b.Error(err)
	}
	if _, err := view.Begin(context.Background(), files, conn); err != nil {
		b.Error(err)
	}
	<-ctx.Done()
}
