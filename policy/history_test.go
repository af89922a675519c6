package policy

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

func TestHistoryRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when = rate(wal.frames_written, "5m") > 1 && checkpoint.stall < duration("1s")
  sync {}
}`)
	w.hist.ObserveStall(20 * time.Millisecond)
	for i := range 20 {
		w.tick(10*time.Second, func(s *collector.Sample) { s.WAL.FramesWrittenTotal = uint64(i * 100) })
	}
	again := roundTrip(t, w.hist)
	w.set.Retain(again)
	s := sample(w.now, 1e6)
	d := w.set.Evaluate(Input{Now: w.now, Sample: s, History: again}, nil)
	if d.Policies[0].When != True {
		t.Errorf("after a restart: %s\n%s", d.Policies[0].Reason, d.Policies[0].Tree)
	}
}

func TestTune_F12(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when = wal.bytes > bytes("1MB")
  checkpoint { stall_budget = "200ms" }
  tune "stall" {
    goal = disk.free_ratio > 0.5
    mode = "auto"
  }
}`)
	// The goal flips at every tick for a day: the value must not follow it.
	changes, last := 0, 0.2
	for i := range 24 * 60 {
		w.tick(time.Minute, func(s *collector.Sample) {
			s.WAL.SizeBytes = 0
			if i%2 == 0 {
				s.Disk.FreeBytes = 9e9
			}
		})
		d := w.last.Tunes[0]
		if d.Value != last {
			changes, last = changes+1, d.Value
		}
		if d.Value < 0.05 || d.Value > 0.2 {
			t.Fatalf("value %v outside its range", d.Value)
		}
	}
	if changes > 5 {
		t.Errorf("%d changes in a day", changes)
	}
	for range 24 * 60 {
		w.tick(time.Minute, func(s *collector.Sample) { s.WAL.SizeBytes, s.Disk.FreeBytes = 0, 9e9 })
	}
	if got := w.last.Tunes[0].Value; got <= last {
		t.Errorf("a goal met for a day did not raise the value from %v: %v", last, got)
	}
	w.tick(time.Minute, func(s *collector.Sample) { s.WAL.SizeBytes = 2e6 })
	if a := w.last.Action; a == nil || a.Checkpoint.StallBudget >= 200*time.Millisecond {
		t.Errorf("the tuned stall budget is not in the action: %+v", a)
	}
}
