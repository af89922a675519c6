package policy

import (
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// succeeded reports whether an action achieved what its policy wanted.
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

// drained reports whether a ladder without its TRUNCATE did all that it could.
func drained(p *Policy, st PolicyState, r ActionResult) bool {
	return r.Err == nil && p.Ladder != nil && p.Ladder.Truncates() && !st.Truncated &&
		(r.Outcome == checkpoint.OutcomeComplete || r.Outcome == checkpoint.OutcomePartial)
}

// shortened reports whether a TRUNCATE has reset the WAL and cut off part of its file. That is
// progress, and the rest follows soon.
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

// Told returns the action with a message for its notifiers that says how it ended: a notice
// about a checkpoint must not sound as if a failed one had worked.
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
