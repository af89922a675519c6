package worker

import (
	"testing"
	"time"
)

// TestTrouble_S2_H15: an outage is logged with one line when it begins and one when it ends. If its
// reason changes again and again, or it comes and goes, there are at most a few lines a minute.
func TestTrouble_S2_H15(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var lines int
	var tr Trouble
	met := func(what string) {
		if tr.Met(what, now) {
			lines++
		}
	}
	for range 3600 { // two hours, an attempt every two seconds
		met("unavailable")
		now = now.Add(2 * time.Second)
	}
	if lines != 1 {
		t.Errorf("an outage of two hours is %d lines before its end, want 1", lines)
	}
	if !tr.Over() || tr.Over() {
		t.Error("the end must be reported exactly once")
	}
	lines = 0
	for i := range 3600 { // alternately a timeout and a refusal
		met([]string{"timeout", "unavailable"}[i%2])
		now = now.Add(2 * time.Second)
	}
	if lines < 60 || lines > 120 {
		t.Errorf("two hours of alternating failures are %d lines, want about one a minute", lines)
	}
	lines = 0
	for i := range 3600 { // every other attempt succeeds
		if i%2 == 0 {
			met("unavailable")
		} else if tr.Over() {
			lines++
		}
		now = now.Add(2 * time.Second)
	}
	if lines > 250 {
		t.Errorf("two hours of a store that comes and goes are %d lines, want two a minute at most", lines)
	}
}
