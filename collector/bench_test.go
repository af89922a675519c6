package collector

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkSample measures a sample of a database that is already open: idle, when
// nothing slow is due, and with the slower parts. The bound for idle is 5 µs.
func BenchmarkSample(b *testing.B) {
	path := filepath.Join(b.TempDir(), "app.db")
	a := startApp(b, path)
	a.run("c = connect()", "c.execute('pragma journal_mode=wal')", "c.execute('create table t(x)')", insert)
	for name, step := range map[string]time.Duration{"idle": 0, "facts": factsEvery, "everything": diskEvery} {
		b.Run(name, func(b *testing.B) {
			now := time.Unix(1000, 0)
			r := NewSampler("app", path, SamplerOptions{Now: func() time.Time { return now }})
			defer r.Close()
			if s := r.Sample(context.Background()); s.State != StateUp {
				b.Fatal(s.Err)
			}
			measure(b, func() {
				now = now.Add(step)
				r.Sample(context.Background())
			})
		})
	}
	b.Run("poll", func(b *testing.B) {
		r := NewSampler("app", path, SamplerOptions{})
		defer r.Close()
		r.Sample(context.Background())
		measure(b, r.Poll)
	})
}

// measure reports the mean, as benchmarks do, and that of the fastest hundred calls in a
// row: on a machine that does other work as well, the mean says little.
func measure(b *testing.B, f func()) {
	b.ReportAllocs()
	const row = 100
	best, began, n := time.Hour, time.Now(), 0
	for b.Loop() {
		f()
		if n++; n%row == 0 {
			now := time.Now()
			best, began = min(best, now.Sub(began)), now
		}
	}
	b.ReportMetric(float64(best.Nanoseconds())/row, "best-ns/op")
}
