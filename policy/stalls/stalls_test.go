package stalls

import (
	"slices"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

// What was learned is forgotten with time: while TRUNCATE is refused, no measurement could
// correct it.
func TestForgotten(t *testing.T) {
	t.Parallel()
	c := Stalls{3 * time.Second, 3 * time.Second, 0}
	var foreseen []time.Duration
	for _, age := range []time.Duration{-time.Hour, 0, Forget, 2 * Forget, 20 * Forget} {
		foreseen = append(foreseen, c.Expect(age).Round(time.Millisecond))
	}
	want := []time.Duration{3 * time.Second, 3 * time.Second, 1500 * time.Millisecond, 750 * time.Millisecond,
		3 * time.Millisecond}
	want[4] = 0
	foreseen[4] = foreseen[4].Round(100 * time.Millisecond)
	if !slices.Equal(foreseen, want) {
		t.Errorf("expected stalls before and after 0, 1, 2 and 20 half-lives: %v, want %v", foreseen, want)
	}
	if got := c.Fits(750 * time.Millisecond); got != 2*Forget {
		t.Errorf("it fits after %s", got)
	}
	if got := (Stalls{}).Fits(time.Second); got != 0 {
		t.Errorf("with nothing known it fits after %s", got)
	}
}

func TestLearn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		outcome   checkpoint.Outcome
		reclaimed int64
		stall     time.Duration
		want      Stalls
	}{
		{"a truncation", checkpoint.OutcomeTruncated, 4 << 20, 5, Stalls{5, 7, 8}},
		{"a portion", checkpoint.OutcomeShortened, 4 << 20, 5, Stalls{5, 7, 8}},
		{"the budget was spent", checkpoint.OutcomeBudgetSpent, 0, 5, Stalls{5, 7, 8}},
		{"a small WAL", checkpoint.OutcomeTruncated, learnFrom - 1, 5, Stalls{7, 8, 9}},
		{"not measured", checkpoint.OutcomeTruncated, 4 << 20, 0, Stalls{7, 8, 9}},
		{"pinned", checkpoint.OutcomePinned, 4 << 20, 5, Stalls{7, 8, 9}},
	} {
		c := Stalls{7, 8, 9}
		if c.Learn(test.outcome, test.reclaimed, test.stall); c != test.want {
			t.Errorf("%s: learned %v, want %v", test.name, c, test.want)
		}
	}
}
