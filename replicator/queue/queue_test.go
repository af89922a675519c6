package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// line is a queue with a clock of its own. It records who was notified that its turn has come.
type line struct {
	*Queue
	now  time.Time
	told []string
	all  map[string]*Place
}

func newLine(most int) *line {
	l := &line{Queue: New(most), now: time.Unix(1_700_000_000, 0), all: map[string]*Place{}}
	l.clock = func() time.Time { return l.now }
	return l
}

// begin asks for a place for name.
func (l *line) begin(name string, size int64, first bool) bool {
	if l.all[name] == nil {
		l.all[name] = l.Place(func() { l.told = append(l.told, name) })
	}
	return l.all[name].Begin(size, first)
}

// TestQueue: only a limited number are read at a time. One that waits is notified when its turn has
// come, and the place is reserved for it.
func TestQueue(t *testing.T) {
	t.Parallel()
	l := newLine(2)
	for i := range 5 {
		if got := l.begin(fmt.Sprint(i), 1, true); got != (i < 2) {
			t.Errorf("%d begins: %v", i, got)
		}
	}
	if l.begin("0", 1, true); !l.begin("1", 1, true) || l.begin("2", 1, true) {
		t.Error("asking again changed something")
	}
	l.all["1"].End()
	l.all["1"].End()
	l.all["3"].End() // gives up waiting
	if want := []string{"2"}; !slices.Equal(l.told, want) || l.begin("4", 1, true) || !l.begin("2", 1, true) {
		t.Errorf("told %q, want %q", l.told, want)
	}
	l.all["0"].End()
	if want := []string{"2", "4"}; !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
}

// TestQueueOrder: small databases come first, but now and then the one that has waited longest.
func TestQueueOrder(t *testing.T) {
	t.Parallel()
	l := newLine(1)
	l.begin("under way", 1, true)
	l.begin("large", large+1, true)
	l.begin("large too", large+1, true)
	l.begin("small", large, true)
	l.begin("small too", 1, true)
	l.all["under way"].End()
	for len(l.told) < 5 {
		last := l.told[len(l.told)-1]
		if len(l.told) == 2 {
			l.begin("smaller", 1, true)
		}
		l.all[last].End()
	}
	if want := []string{"small", "small too", "large", "smaller", "large too"}; !slices.Equal(l.told, want) {
		t.Errorf("in the order %q, want %q", l.told, want)
	}
}

// TestQueueKnown: a database that was captured before does not wait for those that were not,
// however large they are.
func TestQueueKnown(t *testing.T) {
	t.Parallel()
	l := newLine(2)
	if !l.begin("terabyte", 1<<40, true) || !l.begin("new", 1, true) || l.begin("newer", 1, true) {
		t.Fatal("want two of three databases read for the first time")
	}
	if !l.begin("large", large+1, false) || !l.begin("known", 1, false) || l.begin("known too", 1, false) {
		t.Error("want two of three databases that were captured before read beside them")
	}
	l.all["known"].End()
	if want := []string{"known too"}; !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
}

// TestQueueLarge: a large database never gets the last free place, unless there is only one place.
func TestQueueLarge(t *testing.T) {
	t.Parallel()
	l := newLine(2)
	if !l.begin("large", large+1, true) || l.begin("large too", large+1, true) || !l.begin("small", 1, true) {
		t.Error("a large database got the last place, or kept a small one from getting it")
	}
	l.all["small"].End()
	if len(l.told) > 0 {
		t.Errorf("%q: a large database got the last place", l.told)
	}
	l.all["large"].End()
	if want := []string{"large too"}; !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
	if one := newLine(1); !one.begin("large", large+1, true) {
		t.Error("a large database did not get the only place")
	}
}

// TestQueueSilence: a database whose disk does not answer keeps its place for a short time only,
// and so does one that does not come when it is its turn.
func TestQueueSilence(t *testing.T) {
	t.Parallel()
	l := newLine(1)
	l.begin("hangs", 1, true)
	l.begin("next", 1, true)
	l.now = l.now.Add(silence - 1)
	l.all["hangs"].Advance()
	l.now = l.now.Add(silence - 1)
	if l.begin("next", 1, true) {
		t.Error("a database that makes progress lost its place")
	}
	l.now = l.now.Add(1)
	if !l.begin("next", 1, true) {
		t.Error("the next one still waits for a disk that does not answer")
	}
	l.begin("does not come", 1, true)
	l.begin("last", 1, true)
	l.all["next"].End()
	l.now = l.now.Add(silence)
	if !l.begin("last", 1, true) || l.begin("does not come", 1, true) {
		t.Error("a place was kept for a database that does not come")
	}
}

// TestNoQueue: without a queue nothing waits.
func TestNoQueue(t *testing.T) {
	t.Parallel()
	p := (*Queue)(nil).Place(nil)
	if !p.Begin(1<<40, true) {
		t.Error("has to wait without a queue")
	}
	p.Advance()
	p.End()
}
