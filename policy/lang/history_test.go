package lang

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func TestOverTime(t *testing.T) {
	t.Parallel()
	// Eleven samples ten seconds apart: wal.bytes 1, 2, … 11 MB; frames
	// written 100 a sample, begun anew after the sixth; a reader in the second half.
	tests := []struct {
		expr string
		want float64
	}{
		{`rate(wal.frames_written, "100s")`, 9.5},
		{`increase(wal.frames_written, "100s")`, 950},
		{`delta(wal.bytes, "100s")`, 10e6},
		{`delta(wal.bytes, "50s")`, 5e6},
		{`avg_over(wal.bytes, "100s")`, 5.5e6},
		{`min_over(wal.bytes, "100s")`, 1e6},
		{`max_over(wal.bytes, "100s")`, 11e6},
		{`p50_over(wal.bytes, "100s")`, 6e6},
		{`p95_over(wal.bytes, "100s")`, 10.5e6},
		{`p99_over(wal.bytes, "100s")`, 10.9e6},
		{`quantile_over(wal.bytes, "100s", 0.25)`, 3.5e6},
		{`predict(wal.bytes, "100s", "1m")`, 17e6},
		{`max_over(wal.bytes / 2 + bytes("1MB"), "100s")`, 6.5e6},
		{`max_over(rate(wal.bytes, "20s"), "100s")`, 1e5},
		{`avg_over(locks.writer_held, "100s")`, 0.5},
		{`max_over(wal.bytes > bytes("10MB"), "100s")`, 1},
		{`max_over(replica.lag, 100)`, 0},
	}
	for _, test := range tests {
		t.Run(test.expr, func(t *testing.T) {
			t.Parallel()
			p := NewProgram(scope())
			x, diags := compile(p, test.expr, AnyUnit)
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			h := p.Retain(&History{})
			now := start
			for i := range 11 {
				s := sample(now.Add(10*time.Second), int64(i+1)*1e6)
				s.WAL.FramesWrittenTotal = uint64(i) * 100
				if i > 5 {
					s.WAL.FramesWrittenTotal = uint64(i-6)*100 + 50
				}
				s.Locks.WriteHeld = i >= 5
				h.Add(s)
				now = s.At
			}
			e := p.At(Moment{Now: now, Sample: sample(now, 11e6), History: h})
			v, why := e.eval(x, e.ctx)
			if got := toFloat(v); math.Abs(got-test.want) > 1e-6*math.Abs(test.want) || why != "" {
				t.Errorf("got %v %s, want %v", got, why, test.want)
			}
		})
	}
}

func TestEWMALeansToTheRecent(t *testing.T) {
	t.Parallel()
	d := []dot{{-60, 0}, {-30, 0}, {0, 10}}
	if got := ewma(d, 60, nil); got <= 10.0/3 || got >= 10 {
		t.Errorf("got %v, want between the mean and the last value", got)
	}
}

func TestHistoryBounded(t *testing.T) {
	t.Parallel()
	h := &History{}
	for i := range 200_000 {
		h.Add(sample(start.Add(time.Duration(i)*10*time.Second), int64(i)))
	}
	for i, tier := range h.tiers {
		if got := len(tier.points); got >= 2*tierSteps[i].limit {
			t.Errorf("tier %d holds %d points", i, got)
		}
	}
	now := start.Add(199_999 * 10 * time.Second)
	for _, window := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		points := h.since(now.Add(-window), now)
		if len(points) < 5 {
			t.Fatalf("window %s: %d points", window, len(points))
		}
		if reach := now.Sub(points[0].at); reach < window*9/10 {
			t.Errorf("window %s reaches back %s only", window, reach)
		}
	}
	if got := now.Sub(h.Oldest()); got < MaxWindow-time.Hour {
		t.Errorf("reaches back %s", got)
	}
}

func TestHistoryClockBack(t *testing.T) {
	t.Parallel()
	h := &History{}
	for i := range 100 {
		h.Add(sample(start.Add(time.Duration(i)*time.Minute), 1))
	}
	h.Add(sample(start.Add(10*time.Minute), 1))
	if points := h.since(start, start.Add(time.Hour)); len(points) != 11 {
		t.Errorf("%d points, want the 11 up to the new time", len(points))
	}
}

func TestHistoryKeepsWhatIsAsked(t *testing.T) {
	t.Parallel()
	p := NewProgram(scope())
	if _, diags := compile(p, `rate(wal.frames_written, "5m") > 1 && max_over(wal.bytes, "1h") > bytes("1MB") && wal.frames > 5`, Bool); len(diags) > 0 {
		t.Fatal(diags)
	}
	h := p.Retain(&History{})
	h.Add(sample(start, 7e6))
	if got, _ := json.Marshal(h); !strings.Contains(string(got), `"names":["wal.bytes","wal.frames_written"]`) {
		t.Errorf("keeps %s", got)
	}
}

func TestHistoryRefusesOtherEncodings(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"version": `{"version":7,"tiers":[[],[],[],[]]}`,
		"length":  `{"version":1,"names":["wal.bytes"],"tiers":[[{"t":"2026-01-01T00:00:00Z","v":[]}],[],[],[]]}`,
	} {
		if err := new(History).UnmarshalJSON([]byte(bad)); err == nil || !strings.Contains(err.Error(), "decode history") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
