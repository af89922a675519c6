package busy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
	"golang.org/x/sys/unix"
)

// flatOut commits as fast as it can for the number of seconds that it reads. Then it prints
// the number of commits, their processor time in nanoseconds, and the time of a commit in
// the batch of twenty at the fifth percentile, which nothing else on the machine disturbed.
const flatOut = `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[2]))
c.execute("pragma synchronous=normal")
run, clock = c.execute, time.perf_counter_ns
print("ready", flush=True)
for seconds in sys.stdin:
    cpu, end, commits, batches = time.process_time_ns(), clock() + int(float(seconds) * 1e9), 0, []
    while clock() < end:
        began = clock()
        for _ in range(20):
            try:
                run("insert into t values (1)")
                commits += 1
            except sqlite3.OperationalError: pass
        batches.append(clock() - began)
    batches.sort()
    print(commits, time.process_time_ns() - cpu, batches[len(batches) // 20] // 20, flush=True)
`

// turn is what the writers achieved in one period.
type turn struct{ commits, cpu, quick float64 }

func (t turn) perCPU() float64 { return t.commits / t.cpu }

// BenchmarkOverhead measures what counting costs writers that do nothing but commit. It
// compares turns with counting and turns without, which alternate in one run. For one
// writer, ratio is that of a commit's time in undisturbed batches; for several, the median
// over the turns of the ratio of commits. ratio-per-cpu is the same for commits per
// processor time of the writers, which is reliable even if the machine does other work.
// tracepoint-alone is measured with a program that does nothing: no program can cost less.
//
//	go test ./collector/busy -run xxx -bench Overhead -benchtime 1x
func BenchmarkOverhead(b *testing.B) {
	for _, bb := range []struct {
		name    string
		writers int
		timeout string
		options Options
	}{
		{"one_writer", 1, "0", Options{}},
		{"one_writer_holds", 1, "0", Options{Holds: true}},
		{"three_writers_timeout_0", 3, "0", Options{}},
		{"three_writers_timeout_0_holds", 3, "0", Options{Holds: true}},
		{"three_writers_timeout_5s", 3, "5", Options{}},
		{"three_writers_timeout_5s_holds", 3, "5", Options{Holds: true}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			openWith(b, bb.options).Close() // skips where BPF is not allowed
			path := newDatabase(b)
			var writers []*testapp.Process
			for range bb.writers {
				p := testapp.Start(b, flatOut, path, bb.timeout)
				p.Line(b)
				writers = append(writers, p)
			}
			var without, empty, with []turn
			for b.Loop() {
				for range 20 {
					without = append(without, turnOf(b, writers, "0.3"))
					detach := attachNothing(b)
					empty = append(empty, turnOf(b, writers, "0.3"))
					detach()
					c := attach(b, path, bb.options)
					with = append(with, turnOf(b, writers, "0.3"))
					if err := c.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			perCommit, perEvent := programCost(b, path, bb.options, writers)
			b.ReportMetric(perEvent, "program-ns/event")
			b.ReportMetric(perCommit, "events/commit")
			report := func(unit string, value func(turn) float64) {
				b.ReportMetric(median(with, without, value), "ratio"+unit)
				b.ReportMetric(median(empty, without, value), "tracepoint-alone"+unit)
			}
			if bb.writers == 1 {
				b.ReportMetric(quickest(without), "ns/commit-without")
				b.ReportMetric(quickest(without)/quickest(with), "ratio")
				b.ReportMetric(quickest(without)/quickest(empty), "tracepoint-alone")
			} else {
				report("", func(t turn) float64 { return t.commits })
			}
			report("-per-cpu", turn.perCPU)
		})
	}
}

// BenchmarkPaced measures what counting costs one such writer where Run limits it. The turns
// alternate; ratio is the median of the ratio of commits.
//
//	go test ./collector/busy -run xxx -bench Paced -benchtime 5x
func BenchmarkPaced(b *testing.B) {
	open(b).Close() // skips where BPF is not allowed
	path := newDatabase(b)
	p := testapp.Start(b, flatOut, path, "0")
	p.Line(b)
	writers := []*testapp.Process{p}
	var without, with []turn
	for b.Loop() {
		without = append(without, turnOf(b, writers, "3"))
		c := attach(b, path, Options{Holds: true})
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		turnOf(b, writers, "1.5") // until Run has looked
		with = append(with, turnOf(b, writers, "3"))
		stop()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(with, without, func(t turn) float64 { return t.commits }), "ratio")
	b.ReportMetric(median(with, without, turn.perCPU), "ratio-per-cpu")
}

// quickest returns the first quartile of a commit's time over the turns.
func quickest(turns []turn) float64 {
	var all []float64
	for _, t := range turns {
		all = append(all, t.quick)
	}
	slices.Sort(all)
	return all[len(all)/4]
}

// median returns the median over the turns of the ratio of a value of a to that of b.
func median(a, b []turn, value func(turn) float64) float64 {
	var all []float64
	for i := range a {
		all = append(all, value(a[i])/value(b[i]))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// turnOf lets all writers write for some seconds and returns their sum.
func turnOf(b *testing.B, writers []*testapp.Process, seconds string) (sum turn) {
	b.Helper()
	for _, p := range writers {
		p.Send(b, seconds)
	}
	for _, p := range writers {
		var t turn
		if _, err := fmt.Sscan(p.Line(b), &t.commits, &t.cpu, &t.quick); err != nil {
			b.Fatal(err)
		}
		sum.commits, sum.cpu, sum.quick = sum.commits+t.commits, sum.cpu+t.cpu, t.quick
	}
	return sum
}

func attach(b *testing.B, path string, o Options) *Collector {
	b.Helper()
	c, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	watch(b, c, "app", path)
	runtime.GC()
	return c
}

// attachNothing attaches a program that does nothing.
func attachNothing(b *testing.B) (detach func()) {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint, License: license,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		l.Close()
		program.Close()
	}
}

// programCost lets the kernel count the program's runs and time them. The time
// includes what reading the clock twice takes.
func programCost(b *testing.B, path string, o Options, writers []*testapp.Process) (eventsPerCommit, perEvent float64) {
	b.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	c := attach(b, path, o)
	defer c.Close()
	t := turnOf(b, writers, "1")
	s, err := c.program.Stats()
	if err != nil {
		b.Fatal(err)
	}
	return float64(s.RunCount) / t.commits, float64(s.Runtime/time.Nanosecond) / float64(s.RunCount)
}
