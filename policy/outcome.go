package policy

import (
	"fmt"
	"math"
	"slices"
	"time"

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

// shortened reports whether a TRUNCATE has reset the WAL and cut its file, but not yet
// all of it. That is progress, and the rest is due soon.
func shortened(r ActionResult) bool {
	return r.Err == nil && r.Outcome == sqlite.OutcomeShortened
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

// A TRUNCATE backfills before it freezes, and cuts a long file in portions that fit the
// budget: its size says nothing of what it costs. What does is what the last ones cost,
// on a disk that is slow to sync for example.
const (
	learnFrom = 1 << 20          // bytes given back: a smaller truncation says nothing
	forget    = 30 * time.Minute // half-life of what was learned: one bad day must not refuse for ever
)

// stalls is for how long the last three truncations held writers up, the latest first;
// 0 is none yet.
type stalls [3]time.Duration

// learn takes a truncation's stall in.
func (c *stalls) learn(r ActionResult) {
	switch r.Outcome {
	case sqlite.OutcomeTruncated, sqlite.OutcomeShortened:
		if r.Reclaimed < learnFrom {
			return
		}
	case sqlite.OutcomeBudgetSpent:
	default:
		return
	}
	if r.WriterStall > 0 {
		*c = stalls{r.WriterStall, c[0], c[1]}
	}
}

// typical returns the median, 0 where fewer than two are known. One truncation
// during which the machine was suspended, this process stopped or the disk held
// up is so ignored, or it would forbid the next ones for hours; two slow ones of
// three are believed.
func (c stalls) typical() time.Duration {
	slices.Sort(c[:])
	return c[1]
}

// predictStall estimates how long writers would be held up by a TRUNCATE now.
func predictStall(st *PolicyState, now time.Time) time.Duration {
	age := max(0, now.Sub(st.Truncation))
	return time.Duration(float64(st.Stalls.typical()) * math.Exp2(-float64(age)/float64(forget)))
}

// stallFits returns when what was learned will have been forgotten so far that a
// TRUNCATE is expected to fit the budget.
func stallFits(st *PolicyState, budget time.Duration) time.Time {
	ratio := float64(st.Stalls.typical()) / float64(budget)
	return st.Truncation.Add(time.Duration(math.Log2(ratio) * float64(forget)))
}
