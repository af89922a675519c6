package outcome

import (
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy"
)

// The advice names the database and what happened; that a command's --timeout expired is not
// blamed on the configuration.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		operator bool
		kind     policy.ActionKind
		outcome  string
		want     string
	}{
		{true, policy.ActSync, Interrupted, "the command did not wait for its end"},
		{true, policy.ActCheckpoint, Interrupted, "the command did not wait for its end"},
		{false, policy.ActCheckpoint, Interrupted, "removed from the configuration"},
		{false, policy.ActCheckpoint, "pinned", "sqlwatch blockers app"},
		{false, policy.ActVerify, "failed", "sqlwatch doctor app"},
		{false, policy.ActVerify, Away, "tried again in a second"},
	} {
		got := Advice(tt.operator, tt.kind, tt.outcome, "app")
		if !strings.Contains(got, tt.want) || !strings.Contains(got, "app") || strings.Contains(got, "%") {
			t.Errorf("%s that is %s, by an operator: %t: %q, want %q", tt.kind, tt.outcome, tt.operator, got, tt.want)
		}
	}
}
