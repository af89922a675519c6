package pace

import (
	"testing"
	"time"
)

// TestPace: a busy database is polled sooner, and a burst is remembered for a second or two.
func TestPace(t *testing.T) {
	t.Parallel()
	const frame = 4096 + 24
	now := time.Unix(1_700_000_000, 0)
	p := &Pace{}
	p.Observe(now, 0, 0)
	if got := p.Next(frame); got != Active {
		t.Errorf("nothing was written: next look after %v, want %v", got, Active)
	}
	now = now.Add(time.Second)
	p.Observe(now, 1, 1)
	if got := p.Next(frame); got != First {
		t.Errorf("first commit in a while: next look after %v, want %v", got, First)
	}
	now = now.Add(First)
	p.Observe(now, 1000, 100_000)
	if got := p.Next(frame); got != Busy {
		t.Errorf("a rush: next look after %v, want %v", got, Busy)
	}
	if got := p.LeaveZero(frame); got != OnZero {
		t.Errorf("a rush on READ0: next look after %v, want %v", got, OnZero)
	}
	for range 10 {
		now = now.Add(time.Second)
		p.Observe(now, 0, 0)
	}
	if got := p.Next(frame); got != Active {
		t.Errorf("ten quiet seconds after: next look after %v, want %v", got, Active)
	}
	if got := p.LeaveZero(frame); got != Level {
		t.Errorf("quiet on READ0: next look after %v, want %v", got, Level)
	}
}

// TestPaceFails: Steps may fail for a moment, but not for longer.
func TestPaceFails(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	p := &Pace{}
	failed := errForTest{}
	if p.Fails(now, failed) || p.Fails(now.Add(failPatience-1), failed) {
		t.Error("gave up before failPatience had passed")
	}
	if p.Fails(now.Add(failPatience-1), nil) || p.Fails(now.Add(failPatience), failed) {
		t.Error("a Step that went well does not count")
	}
	if !p.Fails(now.Add(2*failPatience), failed) {
		t.Error("never gives up")
	}
}

// TestPacePasses: an error that should be transient is treated as transient for a while only.
func TestPacePasses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	p := &Pace{}
	if !p.Passes(now, true) || !p.Passes(now.Add(hinderedPatience-1), true) {
		t.Error("not treated as transient before hinderedPatience had passed")
	}
	if p.Passes(now.Add(hinderedPatience), true) {
		t.Error("treated as transient for ever")
	}
	if p.Passes(now.Add(hinderedPatience), false) {
		t.Error("a Step that went well is reported as hindered")
	}
	if !p.Passes(now.Add(2*hinderedPatience), true) {
		t.Error("a Step that went well does not count")
	}
}

type errForTest struct{}

func (errForTest) Error() string { return "for the test" }

// TestRhythmic: the polls of many databases coincide, but a poll that is urgent does not wait for
// them.
func TestRhythmic(t *testing.T) {
	t.Parallel()
	base := time.Unix(1_700_000_000, 0)
	for _, after := range []time.Duration{0, 1, 30 * time.Millisecond, 99 * time.Millisecond} {
		if got := base.Add(after).Add(Rhythmic(base.Add(after), Active)); !got.Equal(base.Add(Active)) {
			t.Errorf("%v into a rhythm: next at %v", after, got.Sub(base))
		}
	}
	if got := Rhythmic(base, Busy); got != Busy {
		t.Errorf("an urgent poll: %v, want %v", got, Busy)
	}
}
