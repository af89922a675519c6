package policy

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// weekly returns how much an application with a weekly rhythm writes: a nightly batch,
// which falls into the window "night", office hours, evenings, and quiet hours between.
func weekly(at time.Time) float64 {
	switch h := at.Hour(); {
	case h >= 2 && h < 4:
		return 5000
	case at.Weekday() >= time.Monday && at.Weekday() <= time.Friday && h >= 9 && h < 18:
		return 800
	case h >= 18 && h < 23:
		return 100
	}
	return 5
}

// rhythm simulates writes at a rate, with noise, and samples them every ten seconds.
type rhythm struct {
	set     *Set
	past    *History
	now     time.Time
	rate    func(time.Time) float64
	written float64
	random  *rand.Rand
}

func newRhythm(t *testing.T, src string) *rhythm {
	set := mustParse(t, src)
	monday := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	return &rhythm{set: set, past: set.NewHistory(), now: monday, rate: weekly, random: rand.New(rand.NewPCG(1, 2))}
}

// run simulates a length of time and calls show with the decision of every fifth minute.
func (r *rhythm) run(length time.Duration, show func(at time.Time, d Decision)) {
	noise := 1.0
	for end := r.now.Add(length); r.now.Before(end); r.now = r.now.Add(10 * time.Second) {
		if r.now.Second() == 0 {
			noise = 0.7 + 0.6*r.random.Float64()
		}
		r.written += 10 * r.rate(r.now) * noise
		s := sample(r.now, 1e6)
		s.WAL.FramesWrittenTotal = uint64(r.written)
		r.past.Add(s)
		if show != nil && r.now.Unix()%300 == 0 {
			show(r.now, r.set.Evaluate(Input{Now: r.now, Sample: s, History: r.past, SkipTree: true}, nil))
		}
	}
}

const learning = `
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
window "month-end" {
  cron     = "0 0 14 * *"
  duration = "24h"
}
window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.20
    min_history = "72h"
    fallback    = window.night
    except      = [window.month-end]
  }
}
policy "p" {
  when   = min_over(rate(wal.frames_written, "1m"), "7d") < 100
  window = window.quiet
  sync {}
}`

// After eight days and a restart, the window covers the quiet hours of the week and next
// to nothing of the busy ones.
func TestWindowLearnsTheWeek(t *testing.T) {
	t.Parallel()
	r := newRhythm(t, learning)
	r.run(8*24*time.Hour, nil)
	r.past = roundTrip(t, r.past)
	r.set.Retain(r.past)
	count := map[bool]int{}
	open := map[bool]int{}
	unknown := 0
	r.run(7*24*time.Hour, func(at time.Time, d Decision) {
		if at.Day() == 14 {
			if d.Windows["quiet"] == True {
				t.Errorf("open at %s, which is excepted", at)
			}
			return
		}
		quiet := weekly(at) == 5
		count[quiet]++
		if d.Windows["quiet"] == True {
			open[quiet]++
		}
		if d.Policies[0].When != True {
			unknown++
		}
	})
	if share := float64(open[true]) / float64(count[true]); share < 0.9 {
		t.Errorf("covers %.1f%% of the quiet hours, want 90", 100*share)
	}
	if share := float64(open[false]) / float64(count[false]); share > 0.01 {
		t.Errorf("covers %.1f%% of the busy hours, want at most 1", 100*share)
	}
	if unknown > 0 {
		t.Errorf("what a week of a rate says is unknown in %d of %d decisions", unknown, count[true]+count[false])
	}
	// These hours are usually quiet, but not now.
	r.rate = func(time.Time) float64 { return 800 }
	r.run(time.Hour, func(at time.Time, d Decision) {
		if at.Hour() == 0 && at.Minute() > 5 && d.Windows["quiet"] != False {
			t.Errorf("%s at %s, though there is an unusual load", d.Windows["quiet"], at)
		}
	})
}

// Until three days have been seen, the fallback applies. After that, the window avoids the
// batch, during which the fallback is open.
func TestWindowLearnsInThreeDays(t *testing.T) {
	t.Parallel()
	r := newRhythm(t, learning)
	r.run(72*time.Hour, func(at time.Time, d Decision) {
		if night := at.Hour() >= 2 && at.Hour() < 5; (d.Windows["quiet"] == True) != night {
			t.Errorf("%s at %s before it has learned, the fallback is open: %v", d.Windows["quiet"], at, night)
		}
	})
	r.run(24*time.Hour, func(at time.Time, d Decision) {
		got, batch := d.Windows["quiet"], at.Hour() >= 2 && at.Hour() < 4
		switch {
		case batch && got != False:
			t.Errorf("%s at %s, in the batch", got, at)
		case at.Hour() == 5 && got != True:
			t.Errorf("%s at %s, which is quiet", got, at)
		}
		if at.Hour() == 12 && at.Minute() == 0 {
			if w := d.Policies[0]; w.Refused != GuardWindow || w.Earliest.Hour() != 23 {
				t.Errorf("at noon it opens at %s: %s", w.Earliest, w.Reason)
			}
		}
	})
}

// A database that is watched for one hour a day has not shown its week after some days.
func TestWindowLearnsFromWhatItSaw(t *testing.T) {
	t.Parallel()
	r := newRhythm(t, learning)
	for range 4 {
		r.run(time.Hour, nil)
		r.now = r.now.Add(23 * time.Hour)
	}
	r.run(time.Hour, func(at time.Time, d Decision) {
		if d.Windows["quiet"] != False { // the fallback's, at midnight
			t.Errorf("%s at %s after four hours in four days", d.Windows["quiet"], at)
		}
	})
}

// Quiet explains the week hour by hour: what is known, from how many weeks, and why the
// window is open or closed, at each stage of learning.
func TestQuietTellsTheWeek(t *testing.T) {
	t.Parallel()
	r := newRhythm(t, learning)
	ask := func() Quiet {
		s := sample(r.now.Add(-10*time.Second), 1e6)
		s.WAL.FramesWrittenTotal = uint64(r.written)
		q, ok := r.set.Quiet("quiet", Input{Now: s.At, Sample: s, History: r.past})
		if !ok || len(q.Hours) != HoursOfWeek {
			t.Fatalf("%v, %d hours", ok, len(q.Hours))
		}
		return q
	}
	r.run(time.Minute, nil)
	if q := ask(); q.Learned || q.Why == "" || q.Hours[100].Value != nil || q.Hours[100].Quiet != Unknown {
		t.Errorf("after a minute: %+v", q)
	}
	r.run(48*time.Hour, nil)
	if q := ask(); q.Learned || !strings.Contains(q.Why, "window.night holds") || q.Hours[3].Evidence != 1 ||
		q.Hours[100].Evidence != 0 || q.Hours[100].Value == nil {
		t.Errorf("after two days: %+v", q)
	}
	r.run(6*24*time.Hour, nil)
	r.past = roundTrip(t, r.past)
	r.set.Retain(r.past)
	q := ask()
	for i, h := range q.Hours {
		at := time.Date(2026, 3, 2, i, 30, 0, 0, time.UTC)
		// The rate is over one minute, so that of the first minute after the batch still contains it.
		if want := weekly(at) == 5 && at.Hour() != 4; (h.Quiet == True) != want || at.Hour() == 4 && h.Share != 0.75 ||
			h.Day != at.Weekday().String() || h.Hour != at.Hour() {
			t.Errorf("%s: %+v, want quiet %v", at, h, want)
		}
		if want := 1 + (168+24-i)/168; h.Evidence != want && i != 24 {
			t.Errorf("%s %d: seen in %d weeks, want %d", h.Day, h.Hour, h.Evidence, want)
		}
	}
	if !q.Learned || q.Open != True || !strings.HasPrefix(q.Why, "open: at Tuesday 00:00") {
		t.Errorf("at midnight after eight days: %s", q.Why)
	}
	r.run(3*time.Hour, nil)
	if q = ask(); q.Open != False || !strings.HasPrefix(q.Why, "closed: at Tuesday 03:00 the signal is usually") ||
		q.Changes.Hour() != 4 {
		t.Errorf("in the batch: %s until %s: %s", q.Open, q.Changes, q.Why)
	}
	r.run(3*time.Hour, nil)
	r.rate = func(time.Time) float64 { return 800 }
	r.run(10*time.Minute, nil)
	if q = ask(); q.Open != False || !strings.Contains(q.Why, "is usually quiet (") {
		t.Errorf("under an unusual load: %s", q.Why)
	}
	if got := r.set.Learned(); len(got) != 1 || got[0] != "quiet" {
		t.Errorf("windows that learn: %v", got)
	}
}
