package figures

import "testing"

func TestBusyness(t *testing.T) {
	t.Parallel()
	at := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		value       *float64
		quiet       bool
		level, most float64
		want        int
	}{
		{nil, false, 1, 9, NeverSeen},
		{at(1), true, 1, 9, Quiet},
		{at(1.5), false, 1, 9, 1},
		{at(4), false, 1, 9, 2},
		{at(9), false, 1, 9, Busiest},
		{at(3), false, 3, 3, 1}, // no hour is busier than the level
		{at(0), false, 1, 9, 1}, // only part of the hour is quiet
	} {
		if got := Busyness(c.value, c.quiet, c.level, c.most); got != c.want {
			t.Errorf("%v: %d", c, got)
		}
	}
}
