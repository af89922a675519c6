package collector

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var goldenTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// goldenSamples are a busy database, one in EXCLUSIVE mode, one whose file is
// missing and one that is not in WAL mode.
func goldenSamples() []*Sample {
	disk := Disk{Known: true, FreeBytes: 5 << 30, SizeBytes: 20 << 30, FSType: "ext4", Mountpoint: "/srv"}
	busy := &Sample{
		At: goldenTime, DB: "app", Path: "/srv/app.db", State: StateUp,
		Database: Database{SizeBytes: 1 << 20, PageSize: 4096, Pages: 256, FreelistPages: 3, JournalMode: "wal",
			EngineVersion: "3.40.1", WALResetBug: true, Processes: 2},
		WAL: WAL{
			Known: true, SizeBytes: 4 << 20, PageSize: 4096, Frames: 1000, CheckpointedFrames: 400,
			CommitsTotal: 12345, FramesWrittenTotal: 23456, ResetsTotal: 7,
			LastWrite: goldenTime.Add(-time.Second), LagSince: goldenTime.Add(-90 * time.Second),
			LastCompleteCheckpoint: goldenTime.Add(-2 * time.Minute),
		},
		Readers: Readers{Active: 2, OldestFrame: 400, PinnedSince: goldenTime.Add(-time.Minute), OldestPID: 4711,
			OldestCommand: "python3"},
		Locks: Locks{WriteHeld: true, WriteRatio: 0.25, CheckpointRatio: 0.125},
		Disk:  disk,
	}
	exclusive := &Sample{
		At: goldenTime, DB: "exclusive", Path: "/srv/exclusive.db", State: StateUp,
		Database: Database{SizeBytes: 8192, PageSize: 4096, Pages: 2, JournalMode: "wal", EngineVersion: "3.51.3"},
		WAL:      WAL{Known: true, Exclusive: true, SizeBytes: 4152, PageSize: 4096, Frames: 1, CheckpointedFrames: 1},
		Disk:     disk,
	}
	missing := &Sample{At: goldenTime, DB: "gone", Path: "/srv/gone.db", State: StateMissing, Err: "no file"}
	rollback := &Sample{
		At: goldenTime, DB: "rollback", Path: "/srv/rollback.db", State: StateNotWAL, Err: "not in WAL mode",
		Database: Database{SizeBytes: 4096, PageSize: 4096, Pages: 1, JournalMode: "rollback", EngineVersion: "3.46.0",
			WALResetBug: true},
		Disk: disk,
	}
	return []*Sample{busy, exclusive, missing, rollback}
}

func newTestExporter(samples ...*Sample) *Exporter {
	e := NewExporter(func() []*Sample { return samples })
	e.now = func() time.Time { return goldenTime }
	return e
}

// page returns what a scrape of e answers, through a registry that checks
// every series against its descriptor.
func page(t testing.TB, e *Exporter) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(e); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// kernelBusy stands in for package busy.
type kernelBusy struct{}

func (kernelBusy) Counts(db string) (BusyCounts, error) {
	if db == "app" {
		return BusyCounts{LockWrite: 31, LockOther: 1}, nil
	}
	return BusyCounts{}, nil
}

func (kernelBusy) WriteHolds(db string) (Holds, error) {
	if db != "app" {
		return Holds{Buckets: map[time.Duration]uint64{time.Millisecond: 0, time.Second: 0}}, nil
	}
	return Holds{Count: 12, Sum: 3 * time.Second, Buckets: map[time.Duration]uint64{time.Millisecond: 10,
		time.Second: 11}}, nil
}

func TestExporterGoldenPage(t *testing.T) {
	e := newTestExporter(goldenSamples()...)
	own := new(Busy)
	own.Refused("app", LockWrite)
	own.Refused("app", LockWrite)
	own.Refused("app", LockCheckpoint)
	e.SetBusySource(SourceSelf, own)
	e.SetBusySource(SourceKernel, kernelBusy{})
	e.SetStepSource(func(db string) (uint64, bool) { return 7, db == "app" })
	compareGolden(t, "testdata/metrics.golden", page(t, e))
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (go test ./collector -update rewrites it):\n%s", name, diff)
	}
}

func TestExporterIsLintClean(t *testing.T) {
	e := newTestExporter(goldenSamples()...)
	e.SetBusySource(SourceKernel, kernelBusy{})
	problems, err := testutil.CollectAndLint(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestExporterExportsItsWholeCatalogue(t *testing.T) {
	e := newTestExporter(goldenSamples()...)
	e.SetBusySource(SourceKernel, kernelBusy{})
	text := page(t, e)
	for _, m := range Catalogue() {
		if !strings.Contains(text, "# TYPE "+m.Name+" "+string(m.Type)+"\n") {
			t.Errorf("%s is in the catalogue as a %s and not on the page", m.Name, m.Type)
		}
		if !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: help is not a sentence: %q", m.Name, m.Help)
		}
	}
	if got, want := strings.Count(text, "# HELP "), len(Catalogue()); got != want {
		t.Errorf("page has %d families, the catalogue %d", got, want)
	}
}

func TestExporterNamesNoPathOrPID(t *testing.T) {
	for line := range strings.Lines(page(t, newTestExporter(goldenSamples()...))) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "sqlite_database_info{") {
			continue
		}
		if strings.Contains(line, ".db") || strings.Contains(line, "4711") || strings.Contains(line, "python3") {
			t.Errorf("path, pid or command in %q", line)
		}
	}
}

func TestExporterBusySeriesStartAtZero(t *testing.T) {
	text := page(t, newTestExporter(&Sample{DB: "new"}))
	for _, source := range []string{SourceKernel, SourceSelf} {
		for l := Lock(0); l < lockKinds; l++ {
			want := fmt.Sprintf("sqlite_busy_total{db=\"new\",lock=%q,source=%q} 0\n", l, source)
			if !strings.Contains(text, want) {
				t.Errorf("missing %s", want)
			}
		}
	}
}

func TestExporterWithoutDatabases(t *testing.T) {
	text := page(t, newTestExporter())
	if want := `sqlwatch_scrape_collector_success{collector="databases"} 1`; !strings.Contains(text, want) {
		t.Errorf("missing %s in:\n%s", want, text)
	}
}

type failingBusy struct{}

func (failingBusy) Counts(string) (BusyCounts, error) {
	return BusyCounts{LockWrite: 9}, errors.New("kernel says no")
}

func TestExporterShowsWhetherTheKernelCounts(t *testing.T) {
	tests := []struct {
		name   string
		source BusySource
		want   string
	}{
		{"none", nil, "0"},
		{"failing", failingBusy{}, "0"},
		{"working", new(Busy), "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newTestExporter(&Sample{DB: "app"})
			e.SetBusySource(SourceKernel, tt.source)
			want := `sqlwatch_scrape_collector_success{collector="busy"} ` + tt.want + "\n"
			if text := page(t, e); !strings.Contains(text, want) {
				t.Errorf("missing %q in:\n%s", want, text)
			}
		})
	}
}

func TestExporterSurvivesAnyName(t *testing.T) {
	names := map[string]string{
		"H12_newline":      "a\nb",
		"H12_quote":        `a"b\c`,
		"H12_invalid_utf8": "a\xffb",
		"H12_nul":          "a\x00b",
		"D23_unicode":      "datenbänke 🐘 ?#%",
		"empty":            "",
	}
	for id, name := range names {
		t.Run(id, func(t *testing.T) {
			text := page(t, newTestExporter(
				&Sample{DB: name, Path: "/" + name, State: StateUp, Disk: Disk{Known: true, Mountpoint: name}},
				&Sample{DB: name, Path: "/second", State: StateUp},
				&Sample{DB: "other", State: StateUp}))
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(strings.NewReader(text))
			if err != nil {
				t.Fatalf("page does not parse: %v\n%s", err, text)
			}
			if got := len(families["sqlite_up"].Metric); got != 2 {
				t.Errorf("%d databases on the page, want 2: a duplicate is shown once, another database always", got)
			}
		})
	}
	t.Run("H12_two_invalid_names_stay_two", func(t *testing.T) {
		text := page(t, newTestExporter(&Sample{DB: "a\xff"}, &Sample{DB: "a\xfe"}))
		if got := strings.Count(text, "\nsqlite_up{"); got != 2 {
			t.Errorf("%d databases on the page, want 2", got)
		}
	})
}

func TestExporterAnswersManyAtOnce(t *testing.T) { // H8
	own := new(Busy)
	e := newTestExporter(goldenSamples()...)
	e.SetBusySource(SourceSelf, own)
	reg := prometheus.NewRegistry()
	reg.MustRegister(e)
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			own.Refused("app", LockWrite)
			if _, err := reg.Gather(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got, _ := own.Counts("app"); got[LockWrite] != 100 {
		t.Errorf("%d refusals counted, want 100", got[LockWrite])
	}
}

func TestBusyIgnoresUnknownLock(t *testing.T) {
	b := new(Busy)
	b.Refused("app", Lock(200))
	b.Refused("app", LockRead)
	got, err := b.Counts("app")
	if err != nil || got.Total() != 1 || got[LockRead] != 1 {
		t.Errorf("got %v, %v; want one refusal of read", got, err)
	}
}

func TestMetricsReferenceIsInStep(t *testing.T) {
	name := filepath.Join("..", "docs", "metrics.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := metric.UpdateReference(string(text), "collector", Catalogue())
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, name, want)
	if _, err := metric.UpdateReference("nothing", "collector", nil); err == nil {
		t.Error("a text without the section was accepted")
	}
}

// BenchmarkScrape measures a scrape of 1,000 databases, encoding included. The
// bound is 100 ms.
func BenchmarkScrape(b *testing.B) {
	samples := make([]*Sample, 1000)
	for i := range samples {
		s := *goldenSamples()[0]
		s.DB = fmt.Sprintf("tenant-%04d", i)
		samples[i] = &s
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(newTestExporter(samples...))
	for b.Loop() {
		families, err := reg.Gather()
		if err != nil {
			b.Fatal(err)
		}
		var page bytes.Buffer
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(&page, f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(page.Len()), "bytes/page")
	}
}
