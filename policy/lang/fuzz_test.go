package lang

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// FuzzEvaluate compiles arbitrary text and evaluates it in all ways that there are: nothing
// panics, and translated code gives the result of the expression library.
func FuzzEvaluate(f *testing.F) {
	for _, src := range []string{
		`wal.bytes > bytes("64MB") && !window.w.open`, `rate(wal.frames_written, "1m") > 100`,
		`max_over(wal.bytes, "10m") >= quantile_over(wal.bytes, "1h", 0.5)`, `db.labels.tier == "gold"`,
		`replica["s3.main"].lag > duration("1m") || replica.healthy`, `clamp(wal.bytes / db.bytes, 0, 1) < tune.t`,
		`format("%d of %s", wal.frames, db.name) != ""`, `wal.frames % 3 == 1 ? true : locks.writer_held`,
		`[for a in "x": 1]`, `-(-wal.bytes)`, `"${wal.bytes}" == "1"`, `1e999 > 0`, `null`, `!!!true`,
	} {
		f.Add(src, int64(5e6), uint8(3))
	}
	f.Fuzz(func(t *testing.T, src string, walBytes int64, samples uint8) {
		p := NewProgram(scope())
		p.Windows, p.Tunes = []string{"v", "w"}, map[string]Unit{"t": AnyUnit}
		x, diags := compile(p, src, AnyUnit)
		if diags.HasErrors() {
			return
		}
		h := p.Retain(&History{})
		now, s := start, (*collector.Sample)(nil)
		for k := range 1 + int64(samples%32) {
			now = now.Add(10 * time.Second)
			s = sample(now, walBytes>>k)
			s.Locks.WriteHeld, s.WAL.ResetsTotal = k%3 == 0, uint64(k)
			h.Add(s)
		}
		e := p.At(Moment{Now: now, Sample: s, History: h, Labels: map[string]string{"tier": "gold"},
			Replicas: []string{"s3.main"}}).WithWindows(map[string]WindowState{"w": {Open: True}}).
			WithTunes(map[string]float64{"t": 3})
		e.Truth(x)
		e.Window(x)
		e.Text(x)
		e.Tree(x)
		code := p.codes[x]
		if code == nil {
			return
		}
		v, why := e.eval(x)
		got, want := code(e.frame), toFloat(v)
		if why != "" || math.IsNaN(got) || strings.ContainsAny(src, "?m") && math.IsNaN(want) {
			return
		}
		if math.IsNaN(want) || math.Abs(got-want) > 1e-9*math.Max(1, math.Abs(want)) && got != want {
			t.Errorf("%s: translated %v, by the library %v", src, got, want)
		}
	})
}
