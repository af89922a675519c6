package cli_test

import (
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/cli"
)

// Commands that only need configurations and replicas, such as restore, work on any machine.
// Commands for databases in use are refused by a build without SQLite.
func TestPossible(t *testing.T) {
	for _, command := range []string{"restore", "snapshots", "check", "fmt", "test", "import"} {
		if err := cli.Possible(command, false); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	for _, command := range []string{"run", "top", "checkpoint", "doctor", "tune show"} {
		if err := cli.Possible(command, false); err == nil || !strings.Contains(err.Error(), "needs Linux") {
			t.Errorf("%s: %v, want that it needs Linux", command, err)
		}
		if err := cli.Possible(command, true); err != nil {
			t.Errorf("%s with SQLite: %v", command, err)
		}
	}
}
