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
	if !r.Due(now, at) || !r.MayBeBold(now) {
		t.Error("the first attempt")
	}
	for want := minRetry; want <= 2*maxRetry; want *= 2 {
		r.Tried(now, now, at, false)
		until := now.Add(min(want, maxRetry))
		if r.Due(until, at) || r.MayBeBold(until) || !r.Due(until.Add(1), at) || !r.MayBeBold(until.Add(1)) {
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

// TestBold: the further the WAL is beyond its bound, the longer the last round of a rehearsal may have taken.
func TestBold(t *testing.T) {
	t.Parallel()
	r := NewRestart(1000)
	for live, want := range map[int64]time.Duration{0: 20, 1000: 20, 1500: 30, 1999: 39, 2000: 40, 8000: 160} {
		round, bold := r.Bold(live, 20*time.Millisecond)
		if got := round.Truncate(time.Millisecond); got != want*time.Millisecond || bold != (live >= 2000) {
			t.Errorf("with %d bytes of live WAL: %v, bold %v; want %d ms", live, got, bold, want)
		}
	}
}
