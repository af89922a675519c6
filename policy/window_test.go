package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/policy/lang"
)

func windowOf(t *testing.T, cron, duration, zone string) *Window {
	t.Helper()
	set := mustParse(t, fmt.Sprintf("window \"w\" {\n cron = %q\n duration = %q\n timezone = %q\n}", cron, duration, zone))
	return set.Windows["w"]
}

// In Berlin the clock went from 02:00 to 03:00 on 2026-03-29 (01:00 UTC) and
// goes from 03:00 back to 02:00 on 2026-10-25 (01:00 UTC).
func TestWindowDaylightSaving(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, cron, duration, day, opens, closes string }{
		{"an ordinary night", "0 1 * * *", "4h", "2026-05-05", "2026-05-04T23:00:00Z", "2026-05-05T03:00:00Z"},
		{"01:00 for 4 h, short night", "0 1 * * *", "4h", "2026-03-29", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"},
		{"01:00 for 4 h, long night", "0 1 * * *", "4h", "2026-10-25", "2026-10-24T23:00:00Z", "2026-10-25T04:00:00Z"},
		{"skipped start opens at the first valid instant", "30 2 * * *", "2h", "2026-03-29", "2026-03-29T01:00:00Z",
			"2026-03-29T02:30:00Z"},
		{"wholly skipped keeps its length", "10 2 * * *", "30m", "2026-03-29", "2026-03-29T01:00:00Z",
			"2026-03-29T01:30:00Z"},
		{"doubled start opens once, the first time", "30 2 * * *", "2h", "2026-10-25", "2026-10-25T00:30:00Z",
			"2026-10-25T03:30:00Z"},
		{"before the doubled hour", "30 1 * * *", "20m", "2026-10-25", "2026-10-24T23:30:00Z", "2026-10-24T23:50:00Z"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := windowOf(t, test.cron, test.duration, "Europe/Berlin")
			day, _ := time.ParseInLocation(time.DateOnly, test.day, w.Location)
			var changes []string
			was := False
			for at := day; at.Before(day.AddDate(0, 0, 1)); at = at.Add(time.Minute) {
				if now := w.Open(at); now != was {
					changes, was = append(changes, at.UTC().Format(time.RFC3339)), now
				}
			}
			if len(changes) != 2 || changes[0] != test.opens || changes[1] != test.closes {
				t.Errorf("changes at %v, want %s and %s", changes, test.opens, test.closes)
			}
		})
	}
}

// TestWindowAgainstItself checks across both changes of the clock, in time zones with
// unusual rules, that the window opens and closes when opens_in and closes_in said.
func TestWindowAgainstItself(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ cron, duration, zone string }{
		{"0 2 * * *", "3h", "Europe/Berlin"}, {"30 23 * * 6", "26h", "America/New_York"},
		{"*/20 * * * *", "7m", "Australia/Lord_Howe"},
		{"0 0 1 * *", "48h", "America/Sao_Paulo"}, {"15 1 * * 1-5", "90m", "Africa/Casablanca"},
	} {
		t.Run(test.zone, func(t *testing.T) {
			t.Parallel()
			w := windowOf(t, test.cron, test.duration, test.zone)
			var last lang.WindowState
			step := 5 * time.Minute
			for at := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC); at.Year() == 2026; at = at.Add(step) {
				if m := at.Month(); m > time.April && m < time.September {
					at, last = time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC), lang.WindowState{}
				}
				st := w.At(at)
				if last.Open == False && last.OpensIn <= step.Seconds() != (st.Open == True) && last.OpensIn+
					w.Duration.Seconds() > step.Seconds() {
					t.Fatalf("%s: five minutes ago it was to open in %vs, now open is %s", at, last.OpensIn, st.Open)
				}
				if last.Open == True && last.ClosesIn > step.Seconds() && st.Open != True {
					t.Fatalf("%s: five minutes ago it was to close in %vs, now open is %s", at, last.ClosesIn, st.Open)
				}
				last = st
			}
		})
	}
}

func TestWindowLevelTriggered(t *testing.T) {
	t.Parallel()
	w := windowOf(t, "0 2 * * *", "3h", "UTC")
	// Nothing was evaluated at 02:00, when it opened; it is open all the same.
	if got := w.Open(time.Date(2026, 5, 5, 4, 59, 59, 0, time.UTC)); got != True {
		t.Errorf("04:59:59: %s", got)
	}
	if got := w.Open(time.Date(2026, 5, 5, 5, 0, 0, 0, time.UTC)); got != False {
		t.Errorf("05:00:00: %s", got)
	}
}

func TestWindowCombined(t *testing.T) {
	t.Parallel()
	const src = `
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
window "noon" {
  cron     = "0 12 * * *"
  duration = "1h"
}
window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.5
    min_history = "10m"
    fallback    = window.noon
  }
}
policy "p" {
  when   = %s
  window = %s
  sync {}
}`
	tests := []struct {
		when, window string
		want         Guard
	}{
		{"true", "any_of(window.night, window.noon)", GuardNone},
		{"true", "all_of(window.night, window.quiet)", GuardWindow},
		{"true", "window.night", GuardWindow},
		{"window.noon.open && window.noon.closes_in == duration(\"1h\") && window.night.opens_in == duration(\"14h\")",
			"window.noon", GuardNone},
		{"true", "window.quiet", GuardNone}, // still learning: its fallback, noon, applies
		{"true", "quiet(rate(wal.frames, \"1m\"), 0.2)", GuardWindow},
	}
	for _, test := range tests {
		t.Run(test.when+" in "+test.window, func(t *testing.T) {
			w := newWorld(t, fmt.Sprintf(src, test.when, test.window))
			if d := w.tick(0, nil); d.When != True || d.Refused != test.want {
				t.Errorf("when %s, refused by %q (%s), want %q", d.When, d.Refused, d.Reason, test.want)
			}
		})
	}
}
