package requests_test

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// exporter is a collector for the requests to two replicas.
type exporter struct{ a, b *requests.Counts }

// Describe implements prometheus.Collector.
func (e exporter) Describe(descs chan<- *prometheus.Desc) {
	table.Describe(descs)
	requests.Describe(descs, true)
}

var table = metric.NewTable(requests.Operations())

// Collect implements prometheus.Collector.
func (e exporter) Collect(metrics chan<- prometheus.Metric) {
	to := metric.Channel(metrics)
	scrape := table.Begin(to)
	row, _ := scrape.Row("app")
	e.a.Collect(row, "app", "s3.main", true)
	e.b.Collect(row, "app", "file.local", true)
	e.a.CollectDetail(to, "app", "s3.main")
	e.b.CollectDetail(to, "app", "file.local")
	scrape.End()
}

// gather checks with a pedantic registry that the series are well formed, and returns them by
// family.
func gather(t *testing.T, e exporter) map[string][]*dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]*dto.Metric{}
	for _, f := range families {
		out[f.GetName()] = f.GetMetric()
	}
	return out
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestCounts_zeroFromTheStart(t *testing.T) {
	t.Parallel()
	got := gather(t, exporter{&requests.Counts{}, &requests.Counts{}})
	if n := len(got["sqlwatch_replica_operations_total"]); n != 2*6 {
		t.Errorf("%d series of operations of two replicas, want 12", n)
	}
	if n := len(got["sqlwatch_replica_operation_failures_total"]); n != 2*6*7 {
		t.Errorf("%d series of failures, want 84", n)
	}
	for name, series := range got {
		for _, m := range series {
			if m.GetCounter() == nil || m.GetCounter().GetValue() != 0 {
				t.Errorf("%s is %v, want a counter at 0", name, m)
			}
		}
	}
}

func TestCounts_Observe(t *testing.T) {
	t.Parallel()
	e := exporter{&requests.Counts{}, &requests.Counts{}}
	for _, r := range []store.Request{
		{Operation: "put", Duration: time.Millisecond},
		{Operation: "put", Duration: 20 * time.Millisecond}, // equal to a bucket's upper bound, so it belongs to that bucket
		{Operation: "put", Duration: time.Hour, Reason: "timeout"},
		{Operation: "put", Reason: "a word that was never heard"},
		{Operation: "list", Reason: "auth"},
		{Operation: "list", Reason: "not_found"}, // a replica that does not exist yet: no failure
		{Operation: "list", Reason: "exists"},
		{Operation: "brew"},
	} {
		e.a.Observe(r)
	}
	got := gather(t, e)
	for _, m := range got["sqlwatch_replica_operations_total"] {
		want := map[string]float64{"put": 4, "list": 3}[label(m, "operation")]
		if label(m, "replica") != "s3.main" {
			want = 0
		}
		if m.GetCounter().GetValue() != want {
			t.Errorf("%v, want %v", m, want)
		}
	}
	for _, m := range got["sqlwatch_replica_operation_failures_total"] {
		want := map[string]float64{"put timeout": 1, "put other": 1, "list auth": 1}[label(m, "operation")+" "+
			label(m, "reason")]
		if label(m, "replica") != "s3.main" {
			want = 0
		}
		if m.GetCounter().GetValue() != want {
			t.Errorf("%v, want %v", m, want)
		}
	}
	durations := got["sqlwatch_replica_operation_duration_seconds"]
	i := slices.IndexFunc(durations, func(m *dto.Metric) bool { return label(m, "operation") == "put" })
	if len(durations) != 2 || i < 0 {
		t.Fatalf("durations of %v, want put and list", durations)
	}
	h := durations[i].GetHistogram()
	if h.GetSampleCount() != 4 || math.Abs(h.GetSampleSum()-3600.021) > 1e-6 {
		t.Errorf("%d durations of %v s together, want 4 of 3600.021", h.GetSampleCount(), h.GetSampleSum())
	}
	var below []uint64
	for _, b := range h.GetBucket() {
		below = append(below, b.GetCumulativeCount())
	}
	if want := []uint64{2, 3, 3, 3, 3, 3, 3}; !slices.Equal(below, want) {
		t.Errorf("buckets %v, want %v", below, want)
	}
}

// together is a collector for the requests of two databases to one replica.
type together struct{ a, b *requests.Counts }

func (e together) Describe(descs chan<- *prometheus.Desc) { requests.Describe(descs, false) }

func (e together) Collect(metrics chan<- prometheus.Metric) {
	var sum requests.Counts
	sum.Add(e.a)
	sum.Add(e.b)
	sum.CollectDetail(metric.Channel(metrics), "", "s3.main")
}

// TestCounts_together: the requests of two databases to one replica are one series for each
// operation and reason, and the native histogram has the same counts as the classic one.
func TestCounts_together(t *testing.T) {
	t.Parallel()
	e := together{&requests.Counts{}, &requests.Counts{}}
	for _, d := range []time.Duration{0, time.Millisecond, 62500 * time.Microsecond, 63 * time.Millisecond, time.Second,
		time.Hour} {
		e.a.Observe(store.Request{Operation: "put", Duration: d})
		e.b.Observe(store.Request{Operation: "put", Duration: d, Reason: "timeout"})
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if label(m, "db") != "" || label(m, "replica") != "s3.main" {
				t.Errorf("%s has the labels %v", f.GetName(), m.GetLabel())
			}
			h := m.GetHistogram()
			if h == nil {
				if want := map[string]float64{"timeout": 6}[label(m, "reason")]; m.GetCounter().GetValue() != want {
					t.Errorf("%v, want %v", m, want)
				}
				continue
			}
			got, n := map[int]int64{}, int64(0)
			for i, delta := range h.GetPositiveDelta() {
				if n += delta; n != 0 {
					got[int(h.GetPositiveSpan()[0].GetOffset())+i] = n
				}
			}
			// Bucket i counts durations above 2^(i-1) and at most 2^i seconds.
			want := map[int]int64{-9: 2, -4: 2, -3: 2, 0: 2, 7: 2}
			if h.GetSampleCount() != 12 || h.GetZeroCount() != 2 || !maps.Equal(got, want) || h.GetSchema() != 0 {
				t.Errorf("%d durations, %d of them in the zero bucket, in %v, want 12, 2 and %v", h.GetSampleCount(),
					h.GetZeroCount(), got, want)
			}
		}
	}
}

// TestPrices_Monthly checks the table of docs/storage.md: 2.6 million PUTs a month cost 13 dollars
// at Amazon, and 15 GB cost 0.35, 0.23 and 0.09.
func TestPrices_Monthly(t *testing.T) {
	t.Parallel()
	const gigabytes = 15_000_000_000
	for provider, want := range map[string]float64{
		"Amazon S3":     2.592*5 + 0.72*0.40 + 0.0072*5 + 0.345,
		"Backblaze B2":  0.72*0.40 + 0.0072*4 + 0.09,
		"Cloudflare R2": 2.592*4.5 + 0.72*0.36 + 0.0072*4.5 + 0.225,
	} {
		p, known := requests.PricesOf(provider)
		if !known {
			t.Fatalf("no prices of %s", provider)
		}
		c := &requests.Counts{}
		if _, known := p.Monthly(c, 59*time.Minute, gigabytes); known {
			t.Error("a cost was concluded from less than an hour")
		}
		// within two hours
		for operation, n := range map[string]int{"put": 7000, "multipart": 200, "get": 1900, "head": 100, "list": 20,
			"delete": 5000} {
			for range n {
				c.Observe(store.Request{Operation: operation})
			}
		}
		if got, known := p.Monthly(c, 2*time.Hour, gigabytes); !known || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v (%v) a month, want %v", provider, got, known, want)
		}
	}
	if _, known := requests.PricesOf("this endpoint"); known {
		t.Error("a self-hosted server has prices")
	}
}
