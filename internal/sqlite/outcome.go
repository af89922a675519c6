package sqlite

import "github.com/sqlwatch/sqlwatch/internal/checkpoint"

// What a checkpoint is asked for, and what it answers.
type (
	Mode    = checkpoint.Mode
	Budget  = checkpoint.Budget
	Outcome = checkpoint.Outcome
	Result  = checkpoint.Result
)

// The checkpoint modes.
const (
	Passive  = checkpoint.Passive
	Truncate = checkpoint.Truncate
)

// DefaultStall is the stall budget where none is given.
const DefaultStall = checkpoint.DefaultStall

// The outcomes of a checkpoint.
const (
	OutcomeNone        = checkpoint.OutcomeNone
	OutcomeTruncated   = checkpoint.OutcomeTruncated
	OutcomeComplete    = checkpoint.OutcomeComplete
	OutcomePartial     = checkpoint.OutcomePartial
	OutcomePinned      = checkpoint.OutcomePinned
	OutcomeContended   = checkpoint.OutcomeContended
	OutcomeWriterBusy  = checkpoint.OutcomeWriterBusy
	OutcomeNotReset    = checkpoint.OutcomeNotReset
	OutcomeBudgetSpent = checkpoint.OutcomeBudgetSpent
	OutcomeNotWAL      = checkpoint.OutcomeNotWAL
	OutcomeFailed      = checkpoint.OutcomeFailed
	OutcomeShortened   = checkpoint.OutcomeShortened
)
