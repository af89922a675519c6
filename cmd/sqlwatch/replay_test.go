package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/replay"
)

// scriptRecorded writes into $STATE_DIRECTORY what a daemon would have recorded of the
// application of examples/weekly-rhythm.hcl in the last ten days, and copies that
// example beside the script.
func scriptRecorded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: recorded")
	}
	const step = 30 * time.Second
	r := replay.NewRecorder(ts.Getenv("STATE_DIRECTORY"), slog.New(slog.DiscardHandler))
	end := time.Now().UTC().Truncate(24 * time.Hour)
	s := collector.Sample{DB: "shop", State: collector.StateUp,
		Database: collector.Database{SizeBytes: 1 << 30, PageSize: 4096}}
	s.WAL.Known, s.WAL.PageSize = true, 4096
	for now := end.Add(-10 * 24 * time.Hour); now.Before(end); now = now.Add(step) {
		frames := uint64(weekly(now) / 4096 * step.Seconds())
		s.At = now
		s.WAL.FramesWrittenTotal += frames
		s.WAL.CommitsTotal += frames / 4
		s.WAL.Frames += uint32(frames)
		s.WAL.SizeBytes = int64(s.WAL.Frames) * 4120
		r.Note(&s, false)
	}
	text, err := os.ReadFile("../../examples/weekly-rhythm.hcl")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "weekly-rhythm.hcl"), text, 0o600))
}

// weekly returns how many bytes a second the application writes at that time.
func weekly(at time.Time) float64 {
	switch hour := at.Hour(); {
	case hour >= 2 && hour < 4:
		return 2e6
	case hour >= 9 && hour < 18 && at.Weekday() != time.Saturday && at.Weekday() != time.Sunday:
		return 400e3
	case hour >= 18 && hour < 23:
		return 50e3
	}
	return 1e3
}
