package pace

import (
	"testing"
	"time"
)

// TestRestart: after an attempt that failed the next one comes later each time, sooner where the WAL has grown by its
// bound meanwhile, and at once after one that succeeded.
func TestRestart(t *testing.T) {
	t.Parallel()
	const at = 1000
	r, now := NewRestart(at), time.Unix(1_700_000_000, 0)
	if r.Large(at-1, 0) || !r.Large(at, 0) || r.HandOver(4*at-1) || !r.HandOver(4*at) {
		t.Error("bounds")
	}
	if !r.Due(now, at) || r.Bold(now, 2*at-1) || !r.Bold(now, 2*at) {
		t.Error("the first attempt")
	}
	for want := minRetry; want <= 2*maxRetry; want *= 2 {
		r.Tried(now, now, at, false)
		until := now.Add(min(want, maxRetry))
		if r.Due(until, at) || r.Bold(until, 9*at) || !r.Due(until.Add(1), at) || !r.Bold(until.Add(1), 9*at) {
			t.Errorf("after an attempt that failed, not %v later", min(want, maxRetry))
		}
		sooner := now.Add(min(want, growthRetry) + 1)
		if !r.Due(sooner, 2*at) || want > growthRetry && r.Due(sooner, 2*at-1) {
			t.Errorf("where the WAL has grown, not %v later", sooner.Sub(now))
		}
		now = until.Add(1)
	}
	r.Tried(now, now.Add(time.Second), at, true)
	if !r.Large(at-100, 200) || r.Large(at-101, 200) || r.Large(at/2-1, 1e9) {
		t.Error("a restart that takes a second does not begin half of what grows meanwhile before the bound")
	}
	now = now.Add(time.Second)
	r.Tried(now, now, at, false)
	if r.Due(now.Add(minRetry), at) || !r.Due(now.Add(minRetry+1), at) {
		t.Error("the delay does not begin anew after a restart")
	}
}
