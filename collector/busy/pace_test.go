package busy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

func TestPauseAfter(t *testing.T) {
	for _, tt := range []struct {
		name         string
		events, busy uint64
		turn, want   time.Duration
	}{
		{"nothing happens", 0, 0, time.Second, 0},
		{"as many as the budget allows", 1000, 0, time.Second, 0},
		{"twice as many: as long as a turn", 2000, 0, time.Second, turnLength},
		{"the rate counts, not the number", 1000, 0, time.Second / 4, 3 * turnLength},
		{"SQLITE_BUSY is counted one by one", 2000, 1, time.Second, 0},
		{"no pause takes for ever", 1e9, 0, time.Second, longestPause},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := pauseAfter(tt.events, tt.busy, tt.turn, 1000); got != tt.want {
				t.Errorf("pauseAfter(%d, %d, %v) = %v, want %v", tt.events, tt.busy, tt.turn, got, tt.want)
			}
		})
	}
}

// pace lets Run limit c to a number of events a second until the test stops it.
func pace(t *testing.T, c *Collector, budget float64) (stop func()) {
	t.Helper()
	c.budget = budget
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestPausesAreEstimated lets a writer commit flat out beside a collector that may see about a
// fourth of it.
func TestPausesAreEstimated(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	writer := testapp.Start(t, flatOut, path, "0")
	writer.Line(t)
	watch(t, c, "app", path)
	var warm, commits float64
	var ignored [2]float64
	writer.Send(t, "1")
	fmt.Sscan(writer.Line(t), &warm, &ignored[0], &ignored[1])
	before, err := c.WriteHolds("app")
	if err != nil {
		t.Fatal(err)
	}
	seen := c.activity().events
	stop := pace(t, c, float64(seen)/4)
	writer.Send(t, "8")
	fmt.Sscan(writer.Line(t), &commits, &ignored[0], &ignored[1])
	stop()
	after, err := c.WriteHolds("app")
	if err != nil {
		t.Fatal(err)
	}
	attached := float64(c.activity().events-seen) / (float64(seen) / warm) / commits
	counted := float64(after.Count-before.Count) / commits
	t.Logf("%.0f commits; the program was attached to %.2f of them, and counted %.2f", commits, attached, counted)
	if attached > 0.7 {
		t.Errorf("the program was attached to %.2f of the commits: no pauses", attached)
	}
	if counted < 0.4 || counted > 2.2 || counted < 1.3*attached {
		t.Errorf("%.2f of the commits were counted, %.2f of them seen", counted, attached)
	}
}

// TestBusyIsNotEstimated checks that while SQLITE_BUSY happens each one is counted, however many events there are.
func TestBusyIsNotEstimated(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	stop := pace(t, c, 1)
	defer stop()
	_, want := contend(t, c, path, "3", "0")
	counts, err := c.Counts("app")
	if err != nil {
		t.Fatal(err)
	}
	if want < 100 {
		t.Fatalf("only %d busy: the test proves nothing", want)
	}
	// The first look may come before the contenders begin.
	if got := counts[collector.LockWrite]; got < want*9/10 || got > want*11/10 {
		t.Errorf("kernel counted %d, the applications %d", got, want)
	}
}
