package watchdog

import (
	"fmt"
	"log/slog"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// checkpointAdvice says what to do where a checkpoint did not reach its end; %s is
// the database.
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
	sqlite.OutcomeNotWAL.String(): "%s is not in WAL mode: see `sqlwatch doctor`",
	sqlite.OutcomeFailed.String(): "see `sqlwatch doctor %s`",
	outcomeAway:                   "%s has just been replaced or is being opened: it is tried again in a second",
	outcomeInterrupted:            "sqlwatch was stopping, or %s was removed from the configuration: it is done later",
}

// operatorLeft is what is known of an operator's action that was interrupted: mostly its
// command ended first, by its --timeout or Ctrl-C.
const operatorLeft = "the command did not wait for its end, or sqlwatch was stopping; replication of %s " +
	"continues without it"

// adviceOn says what to do next about an action that did not succeed.
func adviceOn(r ActionRecord, db string) string {
	advice := checkpointAdvice[r.Outcome]
	switch kind := policy.ActionKind(r.Action); {
	case r.Policy == Operator && r.Outcome == outcomeInterrupted:
		advice = operatorLeft
	case kind == policy.ActCheckpoint:
	case kind == policy.ActNotify:
		return "see the notifier's address and whether it answers; the message itself is in this log"
	default:
		if !wrongMoment(r.Outcome) {
			advice = "see `sqlwatch status %[1]s` and `sqlwatch doctor %[1]s`"
		}
	}
	if advice == "" {
		return ""
	}
	return fmt.Sprintf(advice, db)
}

// hindered logs that a policy does not come to do what it is for, and that it does
// again. One line, repeated every ten minutes while that lasts.
func (d *database) hindered(p policy.PolicyDecision) {
	matter := p.Policy + " hindered"
	if p.Hindered != "" {
		d.voice.Say(matter, slog.LevelWarn, true, "this policy cannot do everything it should", "policy", p.Policy, "err",
			p.Hindered, "next", "see `sqlwatch why "+d.target.Name+" "+p.Policy+"`")
	} else if d.voice.Failing(matter) {
		d.voice.Say(matter, slog.LevelInfo, false, "this policy is no longer hindered", "policy", p.Policy)
	}
}
