package watchdog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// idleTargets returns targets of n database files that nobody uses.
func idleTargets(b *testing.B, n int) []Target {
	b.Helper()
	dir := b.TempDir()
	header := make([]byte, 4096)
	copy(header, "SQLite format 3\x00\x10\x00\x02\x02\x00\x40\x20\x20")
	header[31], header[95], header[27], header[47], header[59] = 1, 1, 1, 4, 1
	targets := make([]Target, n)
	for i := range targets {
		path := fmt.Sprintf("%s/db%05d", dir, i)
		if err := os.WriteFile(path, header, 0o600); err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprint("db", i)
		targets[i] = Target{Name: name, Path: path, Open: func(context.Context) (Parts, error) {
			return Parts{Sampler: collector.NewSampler(name, path, collector.SamplerOptions{})}, nil
		}}
	}
	return targets
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// watching returns a watchdog that runs on n databases that nobody uses.
func watching(b *testing.B, n int) *Watchdog {
	b.Helper()
	w := New(Options{Targets: idleTargets(b, n), Policies: policies(b, shrink)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, time.Second) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	for !w.Ready() {
		<-time.After(10 * time.Millisecond)
	}
	return w
}

// BenchmarkIdle reports the cost of databases to which nobody has written for a minute: the share
// of one core over ten seconds, and the memory.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := watching(b, n)
			for _, d := range *w.databases.Load() {
				d.baton <- struct{}{}
				d.past.changed = time.Now().Add(-idleAfter) // a minute has passed
				d.release()
			}
			<-time.After(time.Second) // the last polls
			for b.Loop() {
				began, used := time.Now(), processorTime(b)
				<-time.After(10 * time.Second)
				b.ReportMetric(100*float64(processorTime(b)-used)/float64(time.Since(began)), "%core")
				b.ReportMetric(residentMB(b), "rssMB")
			}
		})
	}
}

// residentMB returns this process's resident memory, as the kernel counts it.
func residentMB(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return float64(resident*os.Getpagesize()) / 1e6
}

// flatOut commits for as many seconds as it is told, and prints how often.
const flatOut = `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
c.execute("pragma journal_mode=wal"); c.execute("pragma synchronous=normal"); c.execute("create table t(v)")
print("ready", flush=True)
for seconds in sys.stdin:
    end, commits = time.perf_counter() + float(seconds), 0
    while time.perf_counter() < end:
        c.execute("insert into t values (1)"); commits += 1
    print(commits, flush=True)
`

// BenchmarkWriterBeside compares a writer at full speed in another process, alone and beside a
// watchdog that measures its database and decides about it, by turns.
func BenchmarkWriterBeside(b *testing.B) {
	path := filepath.Join(b.TempDir(), "app.db")
	writer := testapp.Start(b, flatOut, path)
	writer.Line(b)
	turn := func() (commits float64) {
		writer.Send(b, "0.5")
		if _, err := fmt.Sscan(writer.Line(b), &commits); err != nil {
			b.Fatal(err)
		}
		return commits
	}
	target := Target{Name: "app", Path: path, Open: func(context.Context) (Parts, error) {
		return Parts{Sampler: collector.NewSampler("app", path, collector.SamplerOptions{})}, nil
	}}
	var ratios []float64
	for b.Loop() {
		for range 20 {
			alone := turn()
			w := New(Options{Targets: []Target{target}, Policies: policies(b, shrink)})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- w.Run(ctx, time.Second) }()
			for !w.Ready() {
				<-time.After(time.Millisecond)
			}
			ratios = append(ratios, turn()/alone)
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}
