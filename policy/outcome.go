package policy

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// succeeded reports whether an action did what its policy wanted.
func succeeded(p *Policy, r ActionResult) bool {
	if r.Err != nil {
		return false
	}
	if p.Kind != ActCheckpoint {
		return true
	}
	switch r.Outcome {
	case sqlite.OutcomeTruncated:
		return true
	case sqlite.OutcomeComplete, sqlite.OutcomePartial:
		return !p.Ladder.Truncates()
	}
	return false
}

// drained reports whether a ladder whose TRUNCATE was left out did what it could.
func drained(p *Policy, st PolicyState, r ActionResult) bool {
	return r.Err == nil && p.Ladder != nil && p.Ladder.Truncates() && !st.Truncated &&
		(r.Outcome == sqlite.OutcomeComplete || r.Outcome == sqlite.OutcomePartial)
}

func contended(r ActionResult) bool {
	return r.Err == nil && r.Outcome == sqlite.OutcomeContended
}

func outcomeWord(p *Policy, r ActionResult) string {
	switch {
	case r.Outcome != sqlite.OutcomeNone:
		return r.Outcome.String()
	case r.Err != nil:
		return "failed"
	}
	return string(p.Kind) + " done"
}

// Told returns the action with a message that says how it ended, for those it tells:
// a notice that goes out beside a checkpoint must not sound as if that had worked.
func (a Action) Told(r ActionResult) Action {
	if a.Kind == ActNotify {
		return a
	}
	switch {
	case r.Err != nil:
		a.Message += fmt.Sprintf(" [%s failed: %v]", a.Kind, r.Err)
	case a.Kind == ActCheckpoint:
		a.Message += fmt.Sprintf(" [checkpoint %s, writers held up %s, gave back %s]", r.Outcome,
			amounts.HumanSeconds(r.WriterStall.Seconds()), amounts.HumanBytes(float64(max(r.Reclaimed, 0))))
	default:
		a.Message += fmt.Sprintf(" [%s done]", a.Kind)
	}
	return a
}

// What a TRUNCATE costs writers where nothing has been learned: the file
// system gives back the WAL's blocks, and without a PASSIVE before it the
// backlog is copied under the lock too.
const (
	freeCost  = 0.5 // nanoseconds a byte of the WAL file
	copyCost  = 3.0 // nanoseconds a byte of backlog
	learnFrom = 1 << 20
	forget    = 30 * time.Minute // half-life of a learned cost: one bad day must not refuse for ever
)

// stallCosts is what the last three truncations cost writers in nanoseconds for
// each byte they gave back, the latest first; 0 is none yet.
type stallCosts [3]float64

// learn takes a truncation's cost in. Those of a small WAL say nothing.
func (c *stallCosts) learn(r ActionResult) {
	if r.Outcome != sqlite.OutcomeTruncated || r.Reclaimed < learnFrom || r.WriterStall <= 0 {
		return
	}
	*c = stallCosts{float64(r.WriterStall) / float64(r.Reclaimed), c[0], c[1]}
}

// typical returns the median, 0 where fewer than two are known. One truncation
// during which the machine was suspended, this process stopped or the disk held
// up is so ignored, or it would forbid the next ones for hours; two slow ones of
// three are believed.
func (c stallCosts) typical() float64 {
	slices.Sort(c[:])
	return c[1]
}

// predictStall estimates how long writers would be held up by the ladder now.
func predictStall(p *Policy, st PolicyState, w collector.WAL, now time.Time) time.Duration {
	cost := freeCost
	if age, learned := now.Sub(st.Ended), st.StallCosts.typical(); learned > 0 && age >= 0 {
		cost += (learned - freeCost) * math.Exp2(-float64(age)/float64(forget))
	}
	stall := cost * float64(w.SizeBytes)
	if p.Ladder.Steps[0].Mode == sqlite.Truncate {
		stall += copyCost * float64(w.BacklogFrames()) * float64(w.PageSize)
	}
	return time.Duration(min(stall, math.MaxInt64/2))
}
