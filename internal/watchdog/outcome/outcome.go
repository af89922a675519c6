// Package outcome has the words for how an action ended, other than those of a checkpoint, and
// the advice about an action that did not succeed.
package outcome

import (
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The outcomes that only mean that the moment was wrong.
const (
	Away        = "unavailable" // the files are being replaced or opened
	Interrupted = "interrupted" // by the shutdown, or because the database was removed from the configuration
)

// WrongMoment reports whether the outcome only means that the moment was wrong.
func WrongMoment(outcome string) bool { return outcome == Away || outcome == Interrupted }

// checkpointAdvice says what to do if a checkpoint did not complete; %s is the database.
var checkpointAdvice = map[string]string{
	sqlite.OutcomePinned.String(): "a reader keeps frames back: see `sqlwatch blockers %s`",
	sqlite.OutcomeNotReset.String(): "everything is in the database, but a reader keeps the WAL from being emptied: " +
		"see `sqlwatch blockers %s`",
	sqlite.OutcomeWriterBusy.String(): "a transaction of %s was open all the time: see `sqlwatch blockers`, or try again",
	sqlite.OutcomeContended.String():  "another checkpointer of %s was at work all the time: try again",
	sqlite.OutcomeBudgetSpent.String(): "writers of %s would have waited too long: a quieter window, or a " +
		"larger stall_budget",
	sqlite.OutcomeShortened.String(): "the WAL of %s is reset, its file still long: freeing all of it at once would " +
		"have held writers up; it is done in portions",
	sqlite.OutcomeNotWAL.String(): "it is not in WAL mode: `sqlwatch doctor --fix %s` turns it on",
	sqlite.OutcomeFailed.String(): "correct what the error names; `sqlwatch doctor %s` looks closer",
	Away:                          "%s was just replaced, or is being opened or closed: it is tried again in a second",
	Interrupted:                   "sqlwatch was stopping, or %s was removed from the configuration: it is done later",
}

// operatorLeft is the advice for an operator's action that was interrupted: usually because its
// command ended first, by its --timeout or Ctrl-C.
const operatorLeft = "the command did not wait for its end, or sqlwatch was stopping; replication of %s " +
	"continues without it"

// Advice returns what to do next about an action of a database that did not succeed.
func Advice(operator bool, kind policy.ActionKind, outcome, db string) string {
	advice := checkpointAdvice[outcome]
	switch {
	case operator && outcome == Interrupted:
		advice = operatorLeft
	case kind == policy.ActCheckpoint:
	case kind == policy.ActNotify:
		return "see the notifier's address and whether it answers; the message itself is in this log"
	case !WrongMoment(outcome):
		advice = "correct what the error names; `sqlwatch doctor %s` looks closer"
	}
	if advice == "" {
		return ""
	}
	return fmt.Sprintf(advice, db)
}
