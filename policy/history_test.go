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
