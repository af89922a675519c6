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
	// Eleven samples ten seconds apart: wal.bytes is 1, 2, … 11 MB; the counter of written
	// frames rises by 100 a sample and restarts after the sixth, at 50; from the sixth
	// sample on, the write lock is held.
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
			v, why := e.eval(x)
			if got := toFloat(v); math.Abs(got-test.want) > 1e-6*math.Abs(test.want) || why != "" {
				t.Errorf("got %v %s, want %v", got, why, test.want)
			}
		})
	}
}

func TestHistoryKeepsWhatIsAsked(t *testing.T) {
	t.Parallel()
	p := NewProgram(scope())
	if _, diags := compile(p,
		`rate(wal.frames_written, "5m") > 1 && max_over(wal.bytes, "1h") > bytes("1MB") && wal.frames > 5`,
		Bool); len(diags) > 0 {
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

// The stall of a checkpoint is one value per run, however long ago it was. Where older
// history is thinned out, the largest value is kept.
func TestStallsAreEvents(t *testing.T) {
	t.Parallel()
	p := NewProgram(scope())
	count, diags := compile(p, `quantile_over(checkpoint.stall, "7d", 0)`, AnyUnit)
	most, more := compile(p, `max_over(checkpoint.stall, "7d")`, AnyUnit)
	if len(diags)+len(more) > 0 {
		t.Fatal(diags, more)
	}
	h := p.Retain(&History{})
	now := start
	for i := range 4 * 24 * 60 {
		switch i {
		case 100, 103:
			h.ObserveStall(time.Second)
		case 101:
			h.ObserveStall(time.Minute)
		}
		now = now.Add(time.Minute)
		h.Add(sample(now, 1e6))
		if e := p.At(Moment{Now: now, Sample: sample(now, 1e6), History: h}); i == 1000 {
			if v, _ := e.eval(count); toFloat(v) != 1 {
				t.Errorf("the shortest is %v, want 1", toFloat(v))
			}
			if v, _ := e.eval(most); toFloat(v) != 60 {
				t.Errorf("the longest is %v, want 60", toFloat(v))
			}
		}
	}
	e := p.At(Moment{Now: now, Sample: sample(now, 1e6), History: h})
	if v, _ := e.Since(now.Add(-time.Hour)).eval(most); !math.IsNaN(toFloat(v)) {
		t.Errorf("the longest of the last hour is %v, want unknown", toFloat(v))
	}
}
