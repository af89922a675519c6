package replay

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/journal"
)

// app is an application with a weekly rhythm, as the collector sees it.
type app struct {
	sample collector.Sample
	frames float64
}

// monday is the first day of the recordings.
var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// live lets step pass and returns the sample at its end: busy by day, a batch from two to half
// past four, almost nothing in the small hours.
func (a *app) live(now time.Time, step time.Duration) *collector.Sample {
	perSecond := 2.0
	switch hour := now.Hour(); {
	case hour >= 8 && hour < 22:
		perSecond = 40
	case hour >= 2 && hour < 4 || hour == 4 && now.Minute() < 30:
		perSecond = 300
	}
	a.frames += perSecond * step.Seconds()
	s := &a.sample
	s.At, s.DB, s.State = now, "app", collector.StateUp
	s.Database = collector.Database{SizeBytes: 1 << 30, PageSize: 4096}
	s.WAL.Known, s.WAL.PageSize = true, 4096
	written := uint64(a.frames) - s.WAL.FramesWrittenTotal
	s.WAL.FramesWrittenTotal += written
	s.WAL.CommitsTotal += written / 4
	s.WAL.Frames += uint32(written)
	s.WAL.SizeBytes = int64(s.WAL.Frames) * 4120
	one := *s
	return &one
}

// record writes what a daemon would have recorded.
func record(t *testing.T, dir string, length time.Duration) {
	t.Helper()
	r, a := NewRecorder(dir, slog.New(slog.DiscardHandler)), &app{}
	for now := monday; now.Before(monday.Add(length)); now = now.Add(5 * time.Second) {
		r.Note(a.live(now, 5*time.Second), false)
	}
}

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(path, func(string) (string, bool) { return "", false })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg
}

const common = `
database "app" {
  path = "/srv/app.db"
}
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.20
    min_history = "72h"
    fallback    = window.night
  }
}
policy "shrink" {
  when     = wal.bytes > bytes("100MB")
  window   = window.%s
  cooldown = "30m"
  checkpoint {
    stall_budget = "10s"
    step "passive" { repeat = 3 }
    step "truncate" {}
  }
}
`

// In eight days with a nightly batch, the learned window avoids the batch that the schedule
// overlaps, once it has seen three days.
func TestLearnedWindowAvoidsTheBatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record(t, dir, 8*24*time.Hour)
	began := time.Now()
	all, err := Run(dir, monday, nil, load(t, fmt.Sprintf(common, "night")), load(t, fmt.Sprintf(common, "quiet")))
	if err != nil || len(all) != 1 {
		t.Fatalf("%d databases, %v", len(all), err)
	}
	d := all[0]
	t.Logf("%s of recording under two configurations in %s", d.To.Sub(d.From), time.Since(began).Round(time.Millisecond))
	if d.Unseen != 0 || d.Recorded < 1e9 {
		t.Errorf("%+v", d)
	}
	if d.Before.Actions["shrink"] < 8 || d.Before.StallsAtPeak < 8 {
		t.Errorf("under the schedule: %+v", d.Before)
	}
	if d.After.StallsAtPeak > d.Before.StallsAtPeak/2 || d.After.Actions["shrink"] < 5 {
		t.Errorf("under the learned window: %+v, under the schedule: %+v", d.After, d.Before)
	}
	later, err := Run(dir, monday.Add(0), []string{"app"}, load(t, fmt.Sprintf(common, "quiet")), nil)
	if err != nil || later[0].After != nil || later[0].Before.Actions["shrink"] != d.After.Actions["shrink"] {
		t.Errorf("the same recording played again is not the same: %+v %v", later, err)
	}
	var text strings.Builder
	if err := Write(&text, all); err != nil || !strings.Contains(text.String(), "the new one") {
		t.Errorf("%s %v", text.String(), err)
	}
	t.Log("\n" + text.String())
}

// An idle database costs one line in five minutes. Time that was not recorded does not count as
// time for which a condition has held.
func TestRecordingIsSmallAndKnowsItsGaps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := NewRecorder(dir, slog.New(slog.DiscardHandler))
	s := collector.Sample{DB: "app", State: collector.StateUp, WAL: collector.WAL{Known: true, PageSize: 4096,
		SizeBytes: 200e6}}
	lines := func() (n int) {
		if err := journal.Read(Path(dir), func([]byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 3600 {
		s.At = monday.Add(time.Duration(i) * time.Second)
		r.Note(&s, false)
	}
	if n := lines(); n != 12 {
		t.Errorf("%d lines of an idle hour", n)
	}
	s.At = monday.Add(12 * time.Hour)
	r.Note(&s, false)
	cfg := load(t, `
database "app" {
  path = "/srv/app.db"
}
policy "late" {
  when = wal.bytes > bytes("100MB")
  for  = "2h"
  checkpoint {}
}`)
	all, err := Run(dir, monday, nil, cfg, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d := all[0]; d.Unseen < 10*3600 || d.Before.Actions["late"] != 0 {
		text, _ := json.Marshal(d)
		t.Errorf("%s", text)
	}
}

// A checkpoint of the application's is replayed; one of ours is not.
func TestOthersCheckpoints(t *testing.T) {
	t.Parallel()
	for _, ours := range []bool{false, true} {
		dir := t.TempDir()
		r := NewRecorder(dir, slog.New(slog.DiscardHandler))
		s := collector.Sample{DB: "app", State: collector.StateUp, WAL: collector.WAL{Known: true, PageSize: 4096}}
		for i := range 1000 {
			s.At = monday.Add(time.Duration(i) * 10 * time.Second)
			s.WAL.FramesWrittenTotal += 1000
			s.WAL.CommitsTotal++
			s.WAL.ResetsTotal++ // each time
			s.WAL.Frames = 1000
			s.WAL.SizeBytes = 1000 * 4120
			r.Note(&s, ours)
		}
		cfg := load(t, "database \"app\" {\n  path = \"/srv/app.db\"\n}\npolicy \"never\" {\n  when = wal.bytes > 1e15\n  "+
			"checkpoint {}\n}")
		all, err := Run(dir, monday, nil, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		peak := all[0].Before.PeakWAL
		if small := peak < 10e6; small == ours {
			t.Errorf("ours %v: the WAL reaches %d bytes", ours, peak)
		}
	}
}
