package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// The daemon runs three times. During the second run the machine's clock is far ahead or far
// behind; during the others it is right. Nothing stored is lost, every state can be restored by
// its TXID, and the newest state stays the newest. A restore of a moment that the wrong clock
// makes doubtful says so or fails; with --exact it always fails.
func TestWrongClock_P8_R21(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"26280h", "-26280h", "1h", "-1h"} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			program, err := impatient()
			must(t, err)
			fake := s3test.NewFake(t, s3test.Profile{Name: "any"})
			url := s3URL(fake.URL, "v1/app")
			db, dir := filepath.Join(t.TempDir(), "app.db"), t.TempDir()
			body := replicated(db, s3ReplicaWith(fake.URL, s3test.Bucket, "v1/app", s3test.AccessKey, s3test.SecretKey, ""))
			restored := func(args ...string) (string, answer) {
				t.Helper()
				path := filepath.Join(t.TempDir(), "restored.db")
				return path, sqlwatch(t, s3test.AccessKey, s3test.SecretKey,
					append(append([]string{"restore", "-o", path}, args...), url)...)
			}
			states := map[string]string{}
			var right time.Time // a moment of the newest run: in the end, of the one after the wrong clock
			var then string
			for _, clock := range []string{"0s", wrong, "0s"} {
				d := startDaemonIn(t, dir, []string{"env", "SQLWATCH_TEST_CLOCK=" + clock, program}, body)
				for range 2 {
					commits(t, db, 0.1, 50)
					synced(t, d)
					_, a := restored("--dry-run")
					txid := txidOf(t, a)
					states[txid], then, right = contents(t, db), contents(t, db), time.Now()
				}
				d.end(syscall.SIGTERM)
			}
			for txid, want := range states {
				path, a := restored("--txid", txid)
				if a.code != 0 || contents(t, path) != want {
					t.Errorf("restore of txid %s: exit code %d, or not the state it was: %s", txid, a.code, a.stderr)
				}
			}
			if path, a := restored(); a.code != 0 || contents(t, path) != contents(t, db) {
				t.Errorf("restore of the newest state: exit code %d, or not the newest: %s", a.code, a.stderr)
			}
			if len(states) < 6 {
				t.Errorf("%d states", len(states))
			}
			asked := right.UTC().Format(time.RFC3339Nano)
			path, a := restored("--timestamp", asked)
			told := a.code != 0 || strings.Contains(a.stdout+a.stderr, "not known for sure")
			if !told && contents(t, path) != then {
				t.Errorf("the restore of %s returned another state without a warning", asked)
			}
			if _, exact := restored("--timestamp", asked, "--exact"); told && exact.code == 0 {
				t.Errorf("%s is in doubt, yet --exact restored it: %s", asked, exact.stdout)
			}
		})
	}
}

// txidOf finds the TXID that a dry run would restore.
func txidOf(t *testing.T, a answer) (txid string) {
	t.Helper()
	_, behind, found := strings.Cut(a.stdout, "txid ")
	if _, err := fmt.Sscan(behind, &txid); a.code != 0 || !found || err != nil {
		t.Fatalf("dry run: %d: %s%s", a.code, a.stdout, a.stderr)
	}
	return strings.Trim(txid, ",:();")
}
