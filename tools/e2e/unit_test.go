package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// systemd-analyze rates the exposure of the shipped units at 1.2 of 10 at most.
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

// settings returns a unit's assignments, the last of each name.
func settings(t *testing.T, unit string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/" + unit)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			found[name] = value
		}
	}
	return found
}

// Besides hardening, the units have no core files, a watchdog, a reload that reports errors, a
// memory limit for Go below the cgroup's, and permission to write where sqlwatch writes.
func TestUnitSettings_X9(t *testing.T) {
	t.Parallel()
	for unit, runtime := range map[string]string{
		"sqlwatch.service": "/run/sqlwatch", "sqlwatch@.service": "/run/sqlwatch-%i",
	} {
		s := settings(t, unit)
		for name, want := range map[string]string{
			"Type": "notify", "WatchdogSec": "120", "LimitCORE": "0", "MemoryMax": "1G", "Environment": "GOMEMLIMIT=900MiB",
			"ExecReload":     "/usr/bin/sqlwatch reload --admin " + runtime + "/admin.sock",
			"ReadWritePaths": "-/srv -/var/backups/sqlite", "ProtectSystem": "strict",
			"RuntimeDirectory": strings.TrimPrefix(runtime, "/run/"),
		} {
			if s[name] != want {
				t.Errorf("%s: %s=%s, want %s", unit, name, s[name], want)
			}
		}
	}
	if user := settings(t, "sqlwatch.service")["User"]; user != "sqlwatch" {
		t.Errorf("sqlwatch.service runs as %q, not as a user of its own", user)
	}
}
