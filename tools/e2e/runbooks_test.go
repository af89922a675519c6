package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// trial says in which scene a runbook's first command is run as it is written, and what it must
// print.
type trial struct {
	in    string // the scene that fires the alert
	wants string // a regular expression
}

// trials holds the trial of each alert's runbook. That of SqlwatchDown is
// TestDaemonConditions_V3.
var trials = map[string]trial{
	"SqlwatchBusyErrors":           {"write_lock_held", `(?m)^write .*python3.*every other writer`},
	"SqlwatchCheckpointStarved":    {"reader_pinning", `(?m)^read.*python3.*from leaving the WAL`},
	"SqlwatchConditionCritical":    {"replica_auth_failed", `CRITICAL \(replica_auth_failed`},
	"SqlwatchConditionWarning":     {"wal_oversized", `WARNING \(wal_oversized`},
	"SqlwatchConfigReloadFailed":   {"reload_failed", `sqlwatch\.hcl.*line \d+|sqlwatch\.hcl:\d+`},
	"SqlwatchDatabaseUnreadable":   {"missing", `missing: CRITICAL \(missing.*o file at `},
	"SqlwatchDatabaseVanished":     {"left_out", `not watched: .*same file`},
	"SqlwatchDiscontinuity":        {"well", `(?m)^well .*file\.well `},
	"SqlwatchDiskFilling":          {"disk_low", `disk_low.* are free on `},
	"SqlwatchMeasurementsStale":    {"hung", `No measurement of hung has finished for`},
	"SqlwatchNotificationsFailing": {"notification_failed", `notification_failed.*webhook\.gone.*404`},
	"SqlwatchReaderPinning":        {"reader_pinning", `(?m)^read.*python3.*from leaving the WAL`},
	"SqlwatchReplicaBudgetBurn":    {"replica_lagging", `replica_lagging.* lacks the commits of the last`},
	"SqlwatchReplicaStale":         {"replica_lagging", `replica_lagging: CRITICAL.* lacks the commits of the last`},
	"SqlwatchRestoreDrillFailed":   {"drill_failed", `checksum|corrupt|differs`},
	"SqlwatchRestoreUnverified":    {"well", `well`},
	"SqlwatchSnapshotTooOld":       {"well", `(?m)^file\.well +9 `},
	"SqlwatchUploadsFailing":       {"replica_failing", `501|NotImplemented`},
	"SqlwatchWALOversized":         {"wal_oversized", `wal_oversized.*600 MB`},
	"SqlwatchWALResetBug":          {"wal_reset_bug", `last written by SQLite 3\.40\.1`},
	"SqlwatchWriteLockSaturated":   {"write_lock_saturated", `python3 +([89]\d|100)\.\d %`},
}

// Every runbook begins with a command of sqlwatch, and a trial runs that command.
func TestRunbooksBeginWithACommand(t *testing.T) {
	t.Parallel()
	books, err := filepath.Glob("../../alerts/runbooks/*.md")
	must(t, err)
	if len(books) < 20 {
		t.Fatalf("only %d runbooks", len(books))
	}
	for _, book := range books {
		alert := strings.TrimSuffix(filepath.Base(book), ".md")
		if firstCommand(t, alert) == "" {
			t.Errorf("%s does not begin with a command of sqlwatch", alert)
		}
		if _, tried := trials[alert]; !tried && alert != "SqlwatchDown" {
			t.Errorf("the first command of %s is not tried", alert)
		}
	}
}

var code = regexp.MustCompile("(?m)^sqlwatch .*$|`([^`\n]+)`")

// firstCommand returns the command with which a runbook's "How to see it" begins; "" if that is
// another program's.
func firstCommand(t *testing.T, alert string) string {
	t.Helper()
	text, err := os.ReadFile("../../alerts/runbooks/" + alert + ".md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "## How to see it\n")
	section, _, _ = strings.Cut(section, "\n## ")
	m := code.FindString(section)
	m = strings.Trim(m, "`")
	if !strings.HasPrefix(m, "sqlwatch ") {
		return ""
	}
	return m
}

// runbooks runs in a shell, as they are written, the first commands of the runbooks whose trial
// is in this condition's scene.
func (f *fleet) runbooks(h holding) error {
	for alert, trial := range trials {
		if trial.in != cmp.Or(h.db, h.id) {
			continue
		}
		written := firstCommand(f.t, alert)
		replica := "file." + trial.in
		if strings.HasPrefix(trial.in, "replica_") {
			replica = "s3." + trial.in
		}
		command := regexp.MustCompile(`\bDB\b`).ReplaceAllString(written, trial.in)
		command = regexp.MustCompile(`\bNAME\b`).ReplaceAllString(command, replica)
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "SQLWATCH_CONFIG="+f.config)
		out, _ := cmd.CombinedOutput()
		if !regexp.MustCompile(trial.wants).Match(out) {
			return fmt.Errorf("%s: `%s` exits with %d and does not say %s: %s", alert, command, cmd.ProcessState.ExitCode(),
				trial.wants, out)
		}
	}
	return nil
}
