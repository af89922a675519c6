package collector

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A scrape reuses labels of the one before, which must not show: whatever happened to a
// database, the page is what a new Exporter writes.
func TestExporterReusesLabels(t *testing.T) {
	t.Parallel()
	states := goldenSamples()
	for _, s := range states {
		s.DB = "app"
	}
	other := *states[0]
	other.Database.EngineVersion, other.Disk.Mountpoint = "3.51.3", "/elsewhere"
	later := *states[0]
	later.WAL.Frames, later.At = 77, goldenTime.Add(time.Second)
	neighbour := &Sample{DB: "neighbour", State: StateMissing}
	now := []*Sample{}
	e := NewExporter(func() []*Sample { return now })
	e.now = func() time.Time { return goldenTime }
	e.SetBusySource(SourceKernel, kernelBusy{})
	for i, samples := range [][]*Sample{
		{states[0]}, {states[0]}, {&later, neighbour}, {neighbour, &other}, {states[1]}, {states[2], neighbour},
		{states[3]}, {}, {states[0], states[2]}, {states[2]}, {&other},
	} {
		fresh := newTestExporter(samples...)
		fresh.SetBusySource(SourceKernel, kernelBusy{})
		now = samples
		if diff := cmp.Diff(page(t, fresh), page(t, e)); diff != "" {
			t.Fatalf("scrape %d: -new Exporter +this one:\n%s", i, diff)
		}
	}
}

// Concurrent scrapes do not disturb each other.
func TestExporterScrapesAtOnce(t *testing.T) {
	t.Parallel()
	e := newTestExporter(goldenSamples()...)
	want := page(t, e)
	var scrapes sync.WaitGroup
	for range 8 {
		scrapes.Go(func() {
			for range 20 {
				if diff := cmp.Diff(want, page(t, e)); diff != "" {
					t.Errorf("-alone +beside others:\n%s", diff)
					return
				}
			}
		})
	}
	scrapes.Wait()
}
