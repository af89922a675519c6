package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

const tuned = `policy "p" {
  when     = wal.bytes > bytes("1MB")
  cooldown = "10m"
  checkpoint { stall_budget = "200ms" }
  tune "stall" {
    goal = p95_over(checkpoint.stall, "7d") < duration("150ms")
    mode = "MODE"
  }
}`

// tuneFor simulates a length of time. Every run stalls writers for stall(value in force).
// It returns the values that were in force, in order.
func tuneFor(w *world, length time.Duration, stall func(budget float64) time.Duration) (values []float64) {
	p := w.set.Policies[0]
	for end := w.now.Add(length); w.now.Before(end); {
		w.tick(time.Minute, func(s *collector.Sample) { s.WAL.SizeBytes = 2e6 })
		d := w.last.Tunes[0]
		if n := len(values); n == 0 || values[n-1] != d.Value {
			values = append(values, d.Value)
		}
		if w.last.Action == nil {
			continue
		}
		took := stall(d.Value)
		w.hist.ObserveStall(took)
		w.states["p"] = w.set.Finished(w.states["p"], p, w.now, ActionResult{Outcome: checkpoint.OutcomeTruncated,
			WriterStall: took})
	}
	return values
}

func tunedWorld(t *testing.T, mode string) *world {
	return newWorld(t, strings.ReplaceAll(tuned, "MODE", mode))
}

// If the stall of a run follows the budget, the value moves to where the goal is met, one
// step at a time, and each step is judged by its own runs.
func TestTune_F12(t *testing.T) {
	t.Parallel()
	w := tunedWorld(t, "apply")
	took := func(budget float64) time.Duration { return time.Duration(budget * 0.9 * 1e9) }
	values := tuneFor(w, 24*time.Hour, took)
	for i, v := range values[1:] {
		if ratio := v / values[i]; ratio < 0.74 || ratio > 1.11 {
			t.Errorf("%v → %v is more than one step", values[i], v)
		}
	}
	if d := w.last.Tunes[0]; d.Goal != True || d.Value >= 0.2 || d.Value < 0.1 {
		t.Errorf("after a day %+v", d)
	}
	if len(values) > 12 {
		t.Errorf("%d steps in a day", len(values))
	}
}

// One slow run does not keep the value low for good: a step is not judged by runs that were
// before it.
func TestTuneForgetsAnAccident(t *testing.T) {
	t.Parallel()
	w := tunedWorld(t, "apply")
	tuneFor(w, time.Hour, func(float64) time.Duration { return 20 * time.Millisecond })
	once := true
	values := tuneFor(w, 3*24*time.Hour, func(float64) time.Duration {
		if once {
			once = false
			return 30 * time.Second
		}
		return 20 * time.Millisecond
	})
	lowest := 1.0
	for _, v := range values {
		lowest = min(lowest, v)
	}
	if d := w.last.Tunes[0]; lowest != 0.15 || d.Value != 0.2 {
		t.Errorf("it went %v, ends with %+v; want one step down and back to 0.2", values, d)
	}
}

// If no value meets the goal, the value goes back to what the operator configured.
func TestTuneGivesUp(t *testing.T) {
	t.Parallel()
	w := tunedWorld(t, "apply")
	values := tuneFor(w, 48*time.Hour, func(float64) time.Duration { return time.Second })
	d := w.last.Tunes[0]
	if d.Value != 0.2 || !d.Frozen.After(w.now) || len(values) < 4 || !strings.HasPrefix(d.Reason, "frozen until") {
		t.Errorf("it went %v and ends with %+v", values, d)
	}
	again := roundTrip(t, w.states["p"])
	if got := again.Tunes["stall"]; !got.Frozen.Equal(d.Frozen) {
		t.Errorf("the freeze does not survive a restart: %+v", got)
	}
}

// A step up that misses the goal is taken back, and the value stays.
func TestTuneRevertsAStepUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when = wal.bytes > tune.limit
  checkpoint {}
  tune "limit" {
    goal  = max_over(checkpoint.stall, "1d") < duration("150ms")
    start = bytes("1MB")
    max   = bytes("1.5MB")
    mode  = "apply"
  }
}`)
	values := tuneFor(w, 20*time.Hour, func(limit float64) time.Duration {
		if limit > 1.15e6 {
			return time.Second
		}
		return time.Millisecond
	})
	d := w.last.Tunes[0]
	if len(values) != 4 || values[2] != 1.21e6 || d.Value != 1.1e6 || !d.Frozen.After(w.now) || d.Literal !=
		`bytes("1.1MB")` || d.Attribute != "start" {
		t.Errorf("it went %v and ends with %+v", values, d)
	}
}

// A value with which the policy no longer acts is taken back.
func TestTuneTakesBackWhatStarves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `policy "p" {
  when   = true
  unless = wal.bytes > tune.limit
  checkpoint {}
  tune "limit" {
    goal  = checkpoint.stall < duration("1s")
    start = bytes("250MB")
    mode  = "apply"
  }
}`)
	w.tick(time.Second, func(s *collector.Sample) { s.WAL.SizeBytes = 1e9 })
	st := w.states["p"]
	st.Tunes = map[string]TuneState{"limit": {Value: 190e6, Previous: 250e6, Changed: w.now, Judged: w.now}}
	w.states = map[string]PolicyState{"p": st}
	for minute := range 25 * 60 {
		w.tick(time.Minute, nil)
		if w.last.Action != nil {
			if d := w.last.Tunes[0]; d.Value != 250e6 || !strings.Contains(d.Reason, "has not come to act") || minute < 24*60 {
				t.Errorf("acts after %d minutes with %+v", minute, d)
			}
			return
		}
	}
	t.Errorf("it never acted: %+v", w.last.Tunes[0])
}

// Unless the mode is apply, nothing is applied: one step is suggested, and in mode shadow
// the runs are counted that it would have prevented.
func TestTuneSuggestsOneStep(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"suggest", "shadow"} {
		w := tunedWorld(t, mode)
		values := tuneFor(w, 24*time.Hour, func(float64) time.Duration { return 180 * time.Millisecond })
		d := w.last.Tunes[0]
		if len(values) != 1 || d.Value != 0.2 || d.Suggested != 0.15 || d.Literal != `duration("150ms")` || d.Attribute !=
			"stall_budget" {
			t.Errorf("%s: in force were %v; it ends with %+v", mode, values, d)
		}
		if (d.ShadowRuns > 0) != (mode == "shadow") {
			t.Errorf("%s: %d runs in the shadow", mode, d.ShadowRuns)
		}
	}
	// In mode shadow, a run counts as prevented if the suggested threshold was not reached.
	w := newWorld(t, `policy "p" {
  when = wal.bytes > tune.limit
  checkpoint {}
  tune "limit" {
    goal  = checkpoint.stall < duration("1s")
    start = bytes("1.9MB")
    max   = bytes("9MB")
    mode  = "shadow"
  }
}`)
	tuneFor(w, 12*time.Hour, func(float64) time.Duration { return time.Millisecond })
	if d := w.last.Tunes[0]; d.Suggested != 2.09e6 || d.ShadowDiffered == 0 || d.ShadowDiffered > d.ShadowRuns {
		t.Errorf("in the shadow: %+v", d)
	}
	w = tunedWorld(t, "freeze")
	tuneFor(w, 24*time.Hour, func(float64) time.Duration { return time.Second })
	if d := w.last.Tunes[0]; d.Value != 0.2 || d.Suggested != 0.2 {
		t.Errorf("frozen: %+v", d)
	}
}

// An operator takes a step back, or keeps a value; either way it stays for a week.
func TestRetune(t *testing.T) {
	t.Parallel()
	slow := func(float64) time.Duration { return 180 * time.Millisecond }
	for _, revert := range []bool{true, false} {
		w := tunedWorld(t, "apply")
		for values := 0; values < 2 && w.now.Before(start.Add(24*time.Hour)); {
			values += len(tuneFor(w, 10*time.Minute, slow)) - 1
			if w.last.Tunes[0].Value != 0.2 {
				break
			}
		}
		if d := w.last.Tunes[0]; d.Value != 0.15 {
			t.Fatalf("no step was taken: %+v", d)
		}
		before := w.states["p"]
		st, said, err := w.set.Policies[0].Retune(before, "stall", revert, w.now)
		if err != nil || !strings.Contains(said, "an operator") || before.Tunes["stall"].Value != 0.15 {
			t.Errorf("revert %v: %q, %v, the state it was given: %+v", revert, said, err, before.Tunes)
		}
		w.states["p"] = st
		want := map[bool]float64{true: 0.2, false: 0.15}[revert]
		if values := tuneFor(w, 6*24*time.Hour, slow); len(values) != 1 || values[0] != want {
			t.Errorf("revert %v: for six days in force were %v, want %v", revert, values, want)
		}
		if _, _, err := w.set.Policies[0].Retune(st, "other", revert, w.now); err == nil {
			t.Error("a tune block that does not exist was accepted")
		}
	}
}
