package amounts

import (
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"
)

func TestDurations(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "1h30m": 90 *
		time.Minute, "1d": 24 * time.Hour, "1w2d3h": 219 * time.Hour, "0.5d": 12 * time.Hour, "-5m": -5 * time.Minute,
		"0": 0} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "soon", "1y", "d", "1d1", "999999999999h", "9999999999d", "1e400", "NaN", "Inf",
		"1h -5m"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q is taken for %s", s, got)
		}
	}
	if _, err := DurationValue(cty.MustParseNumberVal("1e9999")); err == nil {
		t.Error("an enormous number is taken for a duration")
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]float64{"64MB": 64e6, "1MiB": 1 << 20, "0": 0, "1.5 GB": 1.5e9, "42": 42} {
		if got, err := ParseBytes(s); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "MB", "-1MB", "1 apple", "99999999999999999999"} {
		if got, err := ParseBytes(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

// Amounts are written in the unit that a person would choose.
func TestHumanAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{1e6: "1.0 MB", -2e9: "-2.0 GB", 1e30: "1e+30 B", 0: "0 B"} {
		if got := HumanBytes(n); got != want {
			t.Errorf("%v bytes are written %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{5400: "1h30m", 0.0125: "12.5ms", 259200: "3.0d", 600: "10m00s", -90: "-1m30s",
		1e20: "1e+20 s"} {
		if got := HumanSeconds(n); got != want {
			t.Errorf("%v seconds are written %q, want %q", n, got, want)
		}
	}
}
