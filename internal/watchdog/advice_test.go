package watchdog

import (
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy"
)

// What is advised names the database and what happened: a command whose --timeout ended
// says nothing of the configuration.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy  string
		kind    policy.ActionKind
		outcome string
		want    string
	}{
		{Operator, policy.ActSync, outcomeInterrupted, "the command did not wait for its end"},
		{Operator, policy.ActCheckpoint, outcomeInterrupted, "the command did not wait for its end"},
		{"shrink", policy.ActCheckpoint, outcomeInterrupted, "removed from the configuration"},
		{"shrink", policy.ActCheckpoint, "pinned", "sqlwatch blockers app"},
		{"drill", policy.ActVerify, "failed", "sqlwatch doctor app"},
		{"drill", policy.ActVerify, outcomeAway, "tried again in a second"},
	} {
		got := adviceOn(ActionRecord{Policy: tt.policy, Action: string(tt.kind), Outcome: tt.outcome}, "app")
		if !strings.Contains(got, tt.want) || !strings.Contains(got, "app") || strings.Contains(got, "%") {
			t.Errorf("%s of %s that is %s: %q, want %q", tt.kind, tt.policy, tt.outcome, got, tt.want)
		}
	}
}
