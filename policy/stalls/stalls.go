// Package stalls foresees what a TRUNCATE will cost writers, from what the last ones did.
package stalls

import (
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

// A TRUNCATE backfills before it freezes, and cuts a long file in portions that fit the
// budget: its size says nothing of what it costs. What does is what the last ones cost,
// on a disk that is slow to sync for example.
const (
	learnFrom = 1 << 20          // bytes given back: a smaller truncation says nothing
	Forget    = 30 * time.Minute // half-life of what was learned: one bad day must not refuse forever
)

// Stalls is for how long the last three truncations held writers up, the latest first;
// 0 is none yet.
type Stalls [3]time.Duration

// Learn takes in how a checkpoint ended, how many bytes it reclaimed, and its stall.
func (c *Stalls) Learn(outcome checkpoint.Outcome, reclaimed int64, stall time.Duration) {
	switch outcome {
	case checkpoint.OutcomeTruncated, checkpoint.OutcomeShortened:
		if reclaimed < learnFrom {
			return
		}
	case checkpoint.OutcomeBudgetSpent:
	default:
		return
	}
	if stall > 0 {
		*c = Stalls{stall, c[0], c[1]}
	}
}

// typical returns the median, 0 where fewer than two are known. One truncation
// during which the machine was suspended, this process stopped or the disk held
// up is so ignored, or it would forbid the next ones for hours; two slow ones of
// three are believed.
func (c Stalls) typical() time.Duration {
	slices.Sort(c[:])
	return c[1]
}

// Expect estimates for how long writers would have to wait for a TRUNCATE so long after the
// last.
func (c Stalls) Expect(since time.Duration) time.Duration {
	return time.Duration(float64(c.typical()) * math.Exp2(-float64(max(0, since))/float64(Forget)))
}

// Fits returns how long after the last truncation one is expected to fit the budget.
func (c Stalls) Fits(budget time.Duration) time.Duration {
	return time.Duration(max(0, math.Log2(float64(c.typical())/float64(budget))) * float64(Forget))
}
