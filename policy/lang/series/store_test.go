package series

import (
	"testing"
	"time"
)

var start = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

func add(h *Store, at time.Time) {
	h.Begin(at, []float64{float64(at.Unix())})
	h.End()
}

func TestEWMALeansToTheRecent(t *testing.T) {
	t.Parallel()
	d := []Dot{{-60, 0}, {-30, 0}, {0, 10}}
	if got := ewma(d, 60, nil); got <= 10.0/3 || got >= 10 {
		t.Errorf("got %v, want between the mean and the last value", got)
	}
}

func TestHistoryBounded(t *testing.T) {
	t.Parallel()
	h := &Store{}
	h.Keep([]string{"wal.bytes"}, nil)
	for i := range 200_000 {
		add(h, start.Add(time.Duration(i)*10*time.Second))
	}
	for i, tier := range h.tiers {
		if got := len(tier.at); got >= 2*tierSteps[i].limit {
			t.Errorf("tier %d holds %d points", i, got)
		}
	}
	now := start.Add(199_999 * 10 * time.Second)
	for _, window := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		points := h.Dots(nil, "wal.bytes", now, window)
		if len(points) < 5 {
			t.Fatalf("window %s: %d points", window, len(points))
		}
		if reach := time.Duration(-points[0].T * 1e9); reach < window*9/10 {
			t.Errorf("window %s reaches back %s only", window, reach)
		}
	}
	if got := now.Sub(h.Oldest()); got < MaxWindow-time.Hour {
		t.Errorf("reaches back %s", got)
	}
}

func TestHistoryClockBack(t *testing.T) {
	t.Parallel()
	h := &Store{}
	h.Keep([]string{"wal.bytes"}, nil)
	for i := range 100 {
		add(h, start.Add(time.Duration(i)*time.Minute))
	}
	add(h, start.Add(10*time.Minute))
	if points := h.Dots(nil, "wal.bytes", start.Add(time.Hour), time.Hour); len(points) != 11 {
		t.Errorf("%d points, want the 11 up to the new time", len(points))
	}
}
