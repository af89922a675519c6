package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// measured is a sampler with fixed values.
type measured struct{ db string }

func (m measured) Sample(context.Context) collector.Sample {
	s := collector.Sample{At: time.Unix(1, 0), DB: m.db, Path: "/srv/" + m.db, State: collector.StateUp}
	s.Database = collector.Database{SizeBytes: 1 << 20, PageSize: 4096, Pages: 256, JournalMode: "wal",
		EngineVersion: "3.54.1"}
	s.WAL = collector.WAL{Known: true, SizeBytes: 4096, PageSize: 4096, Frames: 1}
	s.Disk = collector.Disk{Known: true, FSType: "ext4", Mountpoint: "/"}
	return s
}
func (measured) Poll()        {}
func (measured) Close() error { return nil }

// watching returns a watchdog that runs on these databases, and its collectors.
func watching(t testing.TB, detail bool, names ...string) (*watchdog.Watchdog, []prometheus.Collector) {
	t.Helper()
	var targets []watchdog.Target
	for _, name := range names {
		targets = append(targets, watchdog.Target{Name: name, Path: "/srv/" + name,
			Open: func(context.Context) (watchdog.Parts, error) {
				return watchdog.Parts{Sampler: measured{name}}, nil
			}})
	}
	metrics := watchdog.NewMetrics()
	metrics.Detail = detail
	metrics.Built("v1", "abc", "go1", "3.54.1")
	metrics.Reloaded(time.Unix(1, 0), nil)
	w := watchdog.New(watchdog.Options{Targets: targets, Policies: policy.Defaults(), Metrics: metrics})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx, time.Second)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); !w.Ready(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the watchdog is not ready after a minute")
		}
	}
	return w, []prometheus.Collector{collector.NewExporter(w.Samples), metrics}
}

func ourCatalogue() []metric.Metric {
	return slices.Concat(collector.Catalogue(), watchdog.Catalogue())
}

// The gatherer's page equals that of a pedantic registry, byte for byte.
func TestGathererAgreesWithARegistry(t *testing.T) {
	t.Parallel()
	_, collectors := watching(t, true, "app", "b \"quoted\"", "ünïcode", "line\nbreak")
	pedantic := prometheus.NewPedanticRegistry()
	pedantic.MustRegister(collectors...)
	ours, err := NewGatherer(prometheus.NewRegistry(), ourCatalogue(), collectors...)
	if err != nil {
		t.Fatal(err)
	}
	ours.Detail = true
	got, want := pageOf(t, ours), pageOf(t, pedantic)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("H12: -registry +ours:\n%s", diff)
	}
	if problems, err := testutil.GatherAndLint(ours); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// The memory of one scrape is used by the next one: the next shows nothing of the one before, and
// two concurrent scrapes do not share it.
func TestGathererUsesItsMemoryAgain(t *testing.T) {
	t.Parallel()
	catalogue := []metric.Metric{{Name: "up", Type: metric.Gauge, Help: "?", Labels: []string{"x"}},
		{Name: "seen_total", Type: metric.Counter, Help: "?", Labels: []string{"x"}},
		{Name: "took", Type: metric.Histogram, Help: "?"}}
	made := &making{catalogue: catalogue}
	for _, m := range catalogue {
		made.descs = append(made.descs, m.Desc())
	}
	ours, err := NewGatherer(prometheus.NewRegistry(), catalogue, made)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(made)
	text := metric.TextOf(expfmt.FmtText)
	var held []*page
	for made.round = range 20 {
		want := pageOf(t, registry)
		var pages []*page
		for _, kind := range []*metric.Text{nil, text, nil, text} {
			p := ours.borrow()
			if err := p.gather(kind); err != nil {
				t.Fatal(err)
			}
			pages = append(pages, p)
		}
		for i, p := range pages {
			var got strings.Builder
			if err := p.write(&got, expfmt.FmtText); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Fatalf("scrape %d, page %d: -registry +ours:\n%s", made.round, i, diff)
			}
		}
		pages[0].clear()
		pages[1].clear()
		if held = append(held, pages[2:]...); len(held) == 6 {
			for _, p := range held {
				p.clear()
			}
			held = nil
		}
	}
}

// making returns different series in each round: counters where gauges were, fewer, more.
type making struct {
	catalogue []metric.Metric
	descs     []*prometheus.Desc
	round     int
}

// Describe implements prometheus.Collector.
func (m *making) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *making) Collect(ch chan<- prometheus.Metric) { m.Export(metric.Channel(ch)) }

// Export implements metric.Source.
func (m *making) Export(to metric.Sink) {
	if m.round%3 == 1 {
		to.PutOther(prometheus.MustNewConstHistogram(m.descs[2], 7, float64(m.round), map[float64]uint64{1: 3}))
	}
	for i := range (m.round * 397) % 1200 {
		which := (i + m.round) % 2
		labels, err := metric.NewLabels(m.descs[which], fmt.Sprintf("%04d", i))
		if err != nil {
			to.PutOther(prometheus.NewInvalidMetric(m.descs[which], err))
			continue
		}
		to.Put(&metric.Series{Of: m.descs[which], Type: m.catalogue[which].Type, Labels: labels, Value: float64(i * m.round)})
	}
}

// pageOf renders metrics, without the durations of the collectors.
func pageOf(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return textOf(t, families)
}

func textOf(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var page strings.Builder
	for _, f := range families {
		if f.GetName() == "sqlwatch_scrape_collector_duration_seconds" {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(&page, f); err != nil {
			t.Fatal(err)
		}
	}
	return page.String()
}

func TestGathererRefusesAndSurvives(t *testing.T) {
	t.Parallel()
	stranger := prometheus.NewGauge(prometheus.GaugeOpts{Name: "stranger", Help: "?"})
	if _, err := NewGatherer(prometheus.NewRegistry(), ourCatalogue(), stranger); err == nil {
		t.Error("a metric outside the catalogue was accepted")
	}
	catalogue := []metric.Metric{{Name: "stranger", Type: metric.Gauge, Help: "?"}, {Name: "labelled", Type: metric.Gauge,
		Labels: []string{"x"}, Help: "?"}}
	labelled := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "labelled", Help: "?"}, []string{"x"})
	labelled.WithLabelValues("fine").Set(1)
	g, err := NewGatherer(prometheus.NewRegistry(), catalogue, labelled, panicking{stranger})
	if err != nil {
		t.Fatal(err)
	}
	families, err := g.Gather()
	if err == nil || !strings.Contains(err.Error(), "torn out") || len(families) != 1 {
		t.Errorf("a collector that panics: %d families, %v", len(families), err)
	}
}

type panicking struct{ prometheus.Gauge }

func (panicking) Collect(chan<- prometheus.Metric) { panic("torn out") }

// A database whose disk hangs does not delay a scrape: its last values are shown, with the time
// when they were measured.
func TestScrapeBesideAHungDisk_H9(t *testing.T) {
	t.Parallel()
	second, hung := make(chan struct{}), make(chan struct{})
	first := make(chan struct{}, 1)
	first <- struct{}{}
	w := watchdog.New(watchdog.Options{Policies: policy.Defaults(), Interval: 10 * time.Millisecond,
		Targets: []watchdog.Target{{Name: "app", Path: "/srv/app", Open: func(context.Context) (watchdog.Parts, error) {
			return watchdog.Parts{Sampler: hanging{measured{"app"}, first, second, hung}}, nil
		}}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx, time.Second)
	}()
	defer func() { cancel(); <-ended }()
	defer close(hung)
	for deadline := time.Now().Add(time.Minute); !w.Ready(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no first sample within a minute")
		}
	}
	<-second // now the second sample hangs
	g, err := NewGatherer(prometheus.NewRegistry(), ourCatalogue(), collector.NewExporter(w.Samples))
	if err != nil {
		t.Fatal(err)
	}
	page := pageOf(t, g) // this must not wait for the disk
	for _, want := range []string{`sqlite_up{db="app"} 1`, `sqlite_last_sample_timestamp_seconds{db="app"} 1` + "\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("lacks %s", want)
		}
	}
}

// hanging is a sampler that answers once, and then hangs.
type hanging struct {
	measured
	first  <-chan struct{}
	second chan<- struct{} // closed when it hangs
	hung   <-chan struct{}
}

func (h hanging) Sample(ctx context.Context) collector.Sample {
	select {
	case <-h.first:
	default:
		close(h.second)
		<-h.hung
	}
	return h.measured.Sample(ctx)
}

// The page says in one line how all databases are: in its title, its colour and its words.
func TestVerdict(t *testing.T) {
	t.Parallel()
	sick := func(severity health.Severity) []health.Condition {
		return []health.Condition{{ID: "write_lock_held", Severity: severity, What: "Somebody writes."}}
	}
	well, noted, late, gone := []health.Condition{}, sick(health.Info), sick(health.Warning), sick(health.Critical)
	for _, test := range []struct {
		databases [][]health.Condition
		itself    []health.Condition
		level     level
		words     string
	}{
		{nil, nil, warn, "No database is watched"},
		{[][]health.Condition{well}, nil, good, "a is well"},
		{[][]health.Condition{well, noted}, nil, good, "All 2 databases are well"},
		{[][]health.Condition{late}, nil, warn, "a is worth a look"},
		{[][]health.Condition{gone, gone, well}, nil, bad, "a, b are in trouble"},
		{[][]health.Condition{gone, gone, gone, gone, well}, nil, bad, "4 of 5 databases are in trouble"},
		{[][]health.Condition{well}, late, warn, "Somebody writes"},
		{[][]health.Condition{gone}, late, bad, "a is in trouble"},
		{nil, gone, bad, "Somebody writes"},
	} {
		var rows []row
		for i, c := range test.databases {
			rows = append(rows, newRow(&watchdog.DatabaseStatus{Name: string(rune('a' + i)), Sample: &collector.Sample{},
				Conditions: c}, false, false))
		}
		if l, words := verdict(rows, test.itself); l != test.level || words != test.words {
			t.Errorf("got %s, %q; want %s, %q", l, words, test.level, test.words)
		}
	}
}

// BenchmarkScrape measures one answer to /metrics with 100 and 1,000 databases, as text and
// compressed as Prometheus requests it, by turns with the client library's answer to the same
// request. The ratio is that of their processor times.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{100, 1000} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("db", i))
		}
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run(fmt.Sprint(n, "/", encoding), func(b *testing.B) {
				w, collectors := watching(b, false, names...)
				ours, err := NewGatherer(prometheus.NewRegistry(), ourCatalogue(), collectors...)
				if err != nil {
					b.Fatal(err)
				}
				request := httptest.NewRequest(http.MethodGet, "http://localhost/metrics", nil)
				request.Header.Set("Accept", accepted["Prometheus 3"])
				request.Header.Set("Accept-Encoding", encoding)
				used := processorTime(b)
				<-time.After(time.Second)
				besides := float64(processorTime(b) - used) // what the watchdog itself uses, in a second
				cost := func(h http.Handler) (ms float64, size int) {
					used, began, answer := processorTime(b), time.Now(), httptest.NewRecorder()
					h.ServeHTTP(answer, request)
					net := float64(processorTime(b)-used) - time.Since(began).Seconds()*besides
					if answer.Code != http.StatusOK || answer.Header().Get("Content-Encoding") == "gzip" != (encoding == "gzip") {
						b.Fatalf("%d %v", answer.Code, answer.Header())
					}
					return net / 1e6, answer.Body.Len()
				}
				handler := Handler(Options{Watchdog: w, Gatherer: ours, Logger: slog.New(slog.DiscardHandler)})
				library := libraryHandler(ours)
				var sum, sumLibrary float64
				var size int
				for b.Loop() {
					ms, bytes := cost(handler)
					msLibrary, _ := cost(library)
					sum, sumLibrary, size = sum+ms, sumLibrary+msLibrary, bytes
				}
				b.ReportMetric(sum/float64(b.N), "cpu-ms/op")
				b.ReportMetric(sum/sumLibrary, "of-the-library's")
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
