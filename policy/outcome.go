package policy

import (
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
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
	case checkpoint.OutcomeTruncated:
		return true
	case checkpoint.OutcomeComplete, checkpoint.OutcomePartial:
		return !p.Ladder.Truncates()
	}
	return false
}

// drained reports whether a ladder whose TRUNCATE was left out did what it could.
func drained(p *Policy, st PolicyState, r ActionResult) bool {
	return r.Err == nil && p.Ladder != nil && p.Ladder.Truncates() && !st.Truncated &&
		(r.Outcome == checkpoint.OutcomeComplete || r.Outcome == checkpoint.OutcomePartial)
}

// shortened reports whether a TRUNCATE has reset the WAL and cut its file, but not yet
// all of it. That is progress, and the rest is due soon.
func shortened(r ActionResult) bool {
	return r.Err == nil && r.Outcome == checkpoint.OutcomeShortened
}

func contended(r ActionResult) bool {
	return r.Err == nil && r.Outcome == checkpoint.OutcomeContended
}

func outcomeWord(p *Policy, r ActionResult) string {
	switch {
	case r.Outcome != checkpoint.OutcomeNone:
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
		a.Message += fmt.Sprintf(" [checkpoint %s, writers stalled for %s, reclaimed %s]", r.Outcome,
			amounts.HumanSeconds(r.WriterStall.Seconds()), amounts.HumanBytes(float64(max(r.Reclaimed, 0))))
	default:
		a.Message += fmt.Sprintf(" [%s done]", a.Kind)
	}
	return a
}
