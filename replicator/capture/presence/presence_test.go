package presence

import (
	"testing"
	"time"
)

// sight is a stretch of polls that all find the same: other processes connected, or none.
type sight struct {
	lasts    time.Duration
	every    time.Duration
	attached bool
}

// TestPresence: the processes that were seen decide whether capture stands back, stays connected or
// leaves. Each of these does harm in the wrong situation.
func TestPresence(t *testing.T) {
	t.Parallel()
	const beat = 100 * time.Millisecond
	for _, tc := range []struct {
		name              string
		seen              []sight
		alone, stay, long bool
	}{
		{"nobody was ever there", []sight{{time.Second, beat, false}}, true, false, false},
		{"nobody for less than a moment", []sight{{1100 * time.Millisecond, beat, true}, {beat, beat, false}}, false, false,
			true},
		{"others for a second", []sight{{1100 * time.Millisecond, beat, true}}, false, true, false},
		{"others for a second, at few looks", []sight{{2 * time.Second, time.Second, true}}, false, false, false},
		{"others for less", []sight{{900 * time.Millisecond, beat, true}}, false, false, false},
		{"a long life has ended", []sight{{3 * time.Second, beat, true}, {time.Second, beat, false}}, true, false, true},
		{"a short life has ended", []sight{{300 * time.Millisecond, beat, true}, {time.Second, beat, false}}, true, false,
			false},
		{"who was met at one look need not have stayed until the next", []sight{{time.Second, time.Second, true},
			{time.Second, beat, false}}, true, false, false},
		{"after a short life, others stay under suspicion", []sight{{300 * time.Millisecond, beat, true},
			{time.Second, beat, false}, {9 * time.Minute, time.Second, true}}, false, false, false},
		{"and are believed later", []sight{{300 * time.Millisecond, beat, true}, {time.Second, beat, false},
			{11 * time.Minute, time.Second, true}}, false, true, false},
	} {
		p, now := New(nil), time.Unix(1_700_000_000, 0)
		for _, s := range tc.seen {
			for end := now.Add(s.lasts); now.Before(end); now = now.Add(s.every) {
				p.met(now, s.attached)
			}
		}
		if p.Alone(now) != tc.alone || p.Stay(now) != tc.stay || p.Long() != tc.long {
			t.Errorf("%s: alone %v, stay %v, long %v; want %v, %v, %v", tc.name, p.Alone(now), p.Stay(now), p.Long(),
				tc.alone, tc.stay, tc.long)
		}
	}
}

// TestMissed: once a short-lived process was missed, the processes that are connected now count as
// short-lived too.
func TestMissed(t *testing.T) {
	t.Parallel()
	p, now := New(nil), time.Unix(1_700_000_000, 0)
	for range 30 {
		p.met(now, true)
		now = now.Add(100 * time.Millisecond)
	}
	if !p.Stay(now) {
		t.Fatal("processes connected for three seconds do not count as long-lived")
	}
	if p.Missed(now); p.Stay(now) || p.Long() {
		t.Error("a process was missed, and others still count as long-lived")
	}
}

// TestFamiliar: a long-lived process that interrupts its connection is not taken for a short-lived one, even if
// what it did meanwhile looks like one that was missed. A process that comes and goes is.
func TestFamiliar(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		before time.Duration // how long process 7 was connected before a process was missed
		short  time.Duration // how long once more after that, if at all
		again  []int         // who is there afterwards, for two seconds
		stay   bool
	}{
		{"the same process is there again", 3 * time.Second, 0, []int{7}, true},
		{"another is", 3 * time.Second, 0, []int{8}, false},
		{"its number is not known", 3 * time.Second, 0, []int{0}, false},
		{"it was not there for long", 500 * time.Millisecond, 0, []int{7}, false},
		{"it comes and goes", 3 * time.Second, 300 * time.Millisecond, []int{7}, false},
		{"one of several", 3 * time.Second, 0, []int{8, 7}, true},
	} {
		p, now := New(nil), time.Unix(1_700_000_000, 0)
		connected := func(lasts time.Duration, pids ...int) {
			for i := 0; lasts > 0; i, lasts = i+1, lasts-100*time.Millisecond {
				p.met(now, true)
				p.recognise(pids[i%len(pids)])
				now = now.Add(100 * time.Millisecond)
			}
		}
		connected(tc.before, 7)
		p.met(now, false)
		p.Missed(now)
		if tc.short > 0 {
			connected(tc.short, 7)
			p.met(now, false)
		}
		now = now.Add(time.Second)
		connected(2*time.Second, tc.again...)
		if got := p.Stay(now); got != tc.stay {
			t.Errorf("%s: counts as long-lived: %v", tc.name, got)
		}
	}
}

// TestExclusive: once a process was seen that wants exclusive use of the file, capture leaves as
// soon as no other process is connected.
func TestExclusive(t *testing.T) {
	t.Parallel()
	p, now := New(nil), time.Unix(1_700_000_000, 0)
	p.met(now, true)
	p.exclusive = true
	p.met(now.Add(time.Millisecond), false)
	if !p.Alone(now.Add(time.Millisecond)) || !p.Exclusive() {
		t.Error("not alone at once: capture would linger for the next process")
	}
}

// TestWaiting: a process that has the file open without a lock counts after a while as waiting for
// us to leave, but not for ever. Before we connect, a process that has just opened the file, or
// that has been waiting for us, goes first.
func TestWaiting(t *testing.T) {
	t.Parallel()
	p, begin := New(nil), time.Unix(1_700_000_000, 0)
	for _, look := range []struct {
		after         time.Duration
		pids          []int
		waited, comes bool
	}{
		{0, []int{7}, false, true},
		{100 * time.Millisecond, []int{7}, false, true},
		{300 * time.Millisecond, []int{7}, true, true}, // it was refused: we stay away for another waitsAfter
		{500 * time.Millisecond, nil, false, true},     // it may have ended or been let in
		{700 * time.Millisecond, nil, false, false},
		{time.Second, []int{8}, false, true}, // another process
		{1300 * time.Millisecond, []int{8}, true, true},
		{15 * time.Second, []int{8, 9}, true, true},
		{21 * time.Second, []int{8}, false, false},   // after waitsAtMost it is taken to be idle, not waiting
		{22 * time.Second, []int{8, 9}, false, true}, // a new process beside it
		{23 * time.Second, []int{8, 9}, true, true},
		{24 * time.Second, []int{8}, false, false},
	} {
		at := begin.Add(look.after)
		if got := p.wait(look.pids, at); got != look.waited {
			t.Errorf("after %s: a process is waiting: %v", look.after, got)
		}
		if got := p.comes(at); got != look.comes {
			t.Errorf("after %s: a process may be about to be refused: %v", look.after, got)
		}
	}
}
