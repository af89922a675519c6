package lang

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/collector"
)

// randomExpr returns the text of a random expression that is a "truth" or a "number".
func randomExpr(r *rand.Rand, kind string, depth int) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	sub := func(kind string) string { return randomExpr(r, kind, depth-1) }
	if kind == "truth" {
		if depth == 0 {
			return pick("true", "false", "locks.writer_held", "replica.healthy", "window.w.open", "window.v.open",
				`db.labels.tier == "gold"`, `db.labels.tier != "silver"`,
				`db.name == "app"`, `db.engine_version == "3.46.1"`, `readers.oldest_command == "x"`, `replica["s3.main"].healthy`)
		}
		switch r.IntN(7) {
		case 0:
			return "(" + sub("truth") + " && " + sub("truth") + ")"
		case 1:
			return "(" + sub("truth") + " || " + sub("truth") + ")"
		case 2:
			return "!" + "(" + sub("truth") + ")"
		case 3:
			return "(" + sub("truth") + " ? " + sub("truth") + " : " + sub("truth") + ")"
		default:
			return "(" + sub("number") + pick(" > ", " < ", " >= ", " <= ", " == ", " != ") + sub("number") + ")"
		}
	}
	if depth == 0 {
		return pick("1", "0", "2.5", "wal.frames", "wal.frames", "readers.active", "locks.busy", "db.pages", "tune.t",
			"var.limit", "wal.resets",
			`rate(wal.frames, "1m")`, `max_over(wal.frames + 1, "5m")`, `p95_over(rate(wal.frames, "30s"), "5m")`,
			"db.freelist_pages")
	}
	switch r.IntN(8) {
	case 0:
		return "(" + sub("number") + " + " + sub("number") + ")"
	case 1:
		return "(" + sub("number") + " - " + sub("number") + ")"
	case 2:
		return "(" + sub("number") + " * " + sub("number") + ")"
	case 3:
		return "(" + sub("number") + pick(" / ", " % ") + sub("number") + ")"
	case 4:
		return pick("min", "max", "coalesce") + "(" + sub("number") + ", " + sub("number") + ")"
	case 5:
		return "abs(" + sub("number") + ")"
	case 6:
		return "(" + sub("truth") + " ? " + sub("number") + " : " + sub("number") + ")"
	}
	return "-(" + sub("number") + ")"
}

// Translated code gives the same results as the expression library, with two exceptions:
// to the library, an expression that divides by zero anywhere is unknown as a whole, and
// it can tell in some cases which of two unknown numbers is larger.
func TestCodeAgreesWithTheLibrary(t *testing.T) {
	t.Parallel()
	translated, both := 0, 0
	for i := range 4000 {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		kind := []string{"truth", "number"}[i%2]
		src := randomExpr(r, kind, 1+r.IntN(3))
		p := NewProgram(scope())
		p.Windows, p.Tunes = []string{"v", "w"}, map[string]Unit{"t": AnyUnit}
		p.scope.Variables = map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{"limit": cty.NumberIntVal(7)})}
		x, diags := compile(p, src, AnyUnit)
		if diags.HasErrors() {
			continue // a division by a literal zero, for example
		}
		h := p.Retain(&History{})
		now := start
		var s *collector.Sample
		for k := range 40 {
			now = now.Add(10 * time.Second)
			s = sample(now, int64(k%7)*1e6)
			s.Replicas = []collector.Replica{{Name: "s3.main", Healthy: k%2 == 0}}
			s.Locks.WriteHeld, s.Readers.Active, s.WAL.ResetsTotal = k%3 == 0, k%3, uint64(k)
			if r.IntN(9) == 0 {
				s.State = collector.StateUnreadable
			}
			h.Add(s)
		}
		m := Moment{Now: now, Sample: s, History: h, Labels: map[string]string{"tier": "gold"}, Replicas: []string{"s3.main"}}
		e := p.At(m).WithWindows(map[string]WindowState{"w": {Open: Truth(r.IntN(3))}}).WithTunes(map[string]float64{"t": 3})
		code := p.codes[x]
		if code == nil {
			continue
		}
		translated++
		v, why := e.eval(x)
		got, want := code(e.frame), toFloat(v)
		if why != "" || math.IsNaN(got) && strings.ContainsAny(src, "?m") {
			continue
		}
		both++
		if math.IsNaN(got) != math.IsNaN(want) || math.Abs(got-want) > 1e-9*math.Max(1, math.Abs(want)) {
			t.Errorf("%s: code %v, library %v\n%s", src, got, want, e.Tree(x))
		}
	}
	if translated < 3000 || both < 2000 {
		t.Errorf("only %d expressions were translated, %d compared", translated, both)
	}
}

// Usual conditions on measurements are translated into code, so that a tick costs little.
func TestIsTranslated(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		`wal.bytes > bytes("64MB") && replica.lag < duration("2m")`,
		`rate(wal.frames_written, "1m") > 5000 && max_over(wal.bytes, "10m") > bytes("32MB")`,
		`predict(disk.free_bytes, "1h", "4h") < bytes("1GB")`,
		`coalesce(replica.last_verified_age, 1e9) > duration("7d")`,
		`db.labels.tier == "gold" || wal.bytes > db.bytes * 0.5`,
		`replica["s3.main"].pending_bytes > bytes("64MB") && disk.free_ratio < percent("5%")`,
		`max_over(rate(wal.frames, "1m"), "1h") > 1`,
	} {
		p := NewProgram(scope())
		x, diags := compile(p, src, Bool)
		if diags.HasErrors() || p.codes[x] == nil {
			t.Errorf("%s: %v, evaluated by the library", src, fmt.Sprint(diags))
		}
	}
}
