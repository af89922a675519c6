package moment

import (
	"testing"
	"time"
)

// at returns a reading of one machine's clocks at noon plus wall, an hour plus passed after its
// boot.
func at(wall, passed time.Duration) Reading {
	return Reading{Wall: noon.Add(wall), Passed: time.Hour + passed, Boot: "one"}
}

// TestMark_R21: which times are in dispute between two polls, and since when the next batch covers,
// if the clock was set or the machine was booted in between.
func TestMark_R21(t *testing.T) {
	t.Parallel()
	const s, h = time.Second, time.Hour
	rebooted := func(wall time.Duration) Reading { return Reading{Wall: noon.Add(wall), Passed: s, Boot: "two"} }
	for name, tt := range map[string]struct {
		last, now Reading
		low, high time.Duration // 0, 0: none
		since     time.Duration
	}{
		"not set":                  {at(0, 0), at(h, h), 0, 0, 0},
		"slewed":                   {at(0, 0), at(h+900*time.Millisecond, h), 0, 0, 0},
		"set back":                 {at(0, 0), at(2*s, 7*s), -5 * s, 7 * s, -5 * s},
		"set forward":              {at(0, 0), at(7*s, 2*s), 0, 7 * s, 0},
		"started again":            {at(0, 0), rebooted(300 * s), -60 * s, 360 * s, 0},
		"started again, set back":  {at(0, 0), rebooted(-h), -25 * h, 24 * h, 0},
		"of no known start":        {Reading{Wall: noon}, at(30*s, 0), -60 * s, 90 * s, 0},
		"none of which is known":   {Reading{Wall: noon}, Reading{Wall: noon}, -60 * s, 60 * s, 0},
		"nothing was known before": {Reading{}, at(h, h), 0, 0, 0},
	} {
		m := Mark{Since: noon, Last: tt.last}
		m.Watch(tt.now)
		want := Stretch{}
		if tt.low != tt.high {
			want = Stretch{noon.Add(tt.low), noon.Add(tt.high)}
		}
		if m.Disputed != want || !m.Since.Equal(noon.Add(tt.since)) || m.Last != tt.now {
			t.Errorf("%s: %+v; want %+v in dispute, since %s", name, m, want, tt.since)
		}
	}
	var m Mark
	m.Taken(at(0, 0))
	m.Watch(at(2*s, 7*s))
	m.Watch(at(62*s, 17*s))
	if want := (Stretch{noon.Add(-5 * s), noon.Add(62 * s)}); m.Disputed != want {
		t.Errorf("set back and forward: %+v, want %+v", m.Disputed, want)
	}
	m.Look(at(63*s, 18*s))
	if !m.Since.Equal(noon.Add(63*s)) || m.Disputed.Low.IsZero() {
		t.Errorf("a poll after the steps: %+v; want it to cover since then, and the steps still in dispute", m)
	}
	if m.Taken(at(64*s, 19*s)); !m.Disputed.Low.IsZero() {
		t.Errorf("after a batch: %+v; want nothing in dispute", m)
	}
}
