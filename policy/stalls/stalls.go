// Package stalls predicts how long a TRUNCATE will stall writers, from the last ones.
package stalls

import (
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

// A TRUNCATE backfills before it freezes, and cuts a long file in portions that fit the budget, so
// the WAL's size does not predict its stall. The stalls of the last truncations do, for example on
// a disk that is slow to sync.
const (
	learnFrom = 1 << 20          // bytes reclaimed: a smaller truncation predicts nothing
	Forget    = 30 * time.Minute // half-life of what was learned: one bad day must not refuse forever
)

// Stalls has the stalls of the last three truncations, the latest first; 0 means none yet.
type Stalls [3]time.Duration

// Learn records a checkpoint: its outcome, the bytes that it reclaimed, and its stall.
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

// typical returns the median, or 0 if fewer than two are known. So one truncation during which the
// machine was suspended, this process stopped or the disk blocked is ignored; otherwise it would
// forbid the next ones for hours. Two slow ones of three are believed.
func (c Stalls) typical() time.Duration {
	slices.Sort(c[:])
	return c[1]
}

// Expect estimates how long writers would have to wait for a TRUNCATE that runs this
// long after the last one.
func (c Stalls) Expect(since time.Duration) time.Duration {
	return time.Duration(float64(c.typical()) * math.Exp2(-float64(max(0, since))/float64(Forget)))
}

// Fits returns how long after the last truncation the next one is expected to fit the budget.
func (c Stalls) Fits(budget time.Duration) time.Duration {
	return time.Duration(max(0, math.Log2(float64(c.typical())/float64(budget))) * float64(Forget))
}
