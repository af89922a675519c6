package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// systemd's own judgement of the units that are shipped: at most 1.2 of 10 exposed.
func TestUnitExposure_X10(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"sqlwatch.service", "sqlwatch@.service"} {
		cmd := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=12", "--no-pager",
			"../../packaging/"+unit)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
		if !strings.Contains(string(out), "Overall exposure level") {
			t.Errorf("%s was not judged: %s", unit, out)
		}
	}
}
