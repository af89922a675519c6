package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// envRestore is the environment variable for the size in megabytes that TestRestoreStreams
// restores; 330 if it is not set.
const envRestore = "SQLWATCH_TEST_RESTORE_MB"

// Restores and drills stream the database: their memory does not depend on its size.
func TestRestoreStreams_R17(t *testing.T) {
	t.Parallel()
	megabytes, _ := strconv.Atoi(os.Getenv(envRestore))
	if megabytes == 0 {
		megabytes = 330
	}
	const most = 160 << 20        // bytes of memory
	program, err := withoutRace() // the race detector needs more
	must(t, err)
	dir := t.TempDir()
	db, replica := filepath.Join(dir, "app.db"), filepath.Join(dir, "replica")
	output(t, "sqlite3", db, fmt.Sprintf(`PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=1000; CREATE TABLE t(b);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)
		INSERT INTO t SELECT zeroblob(1000000) FROM n`,
		megabytes))
	d := startDaemonAs(t, []string{program}, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" { dir = %q }
`, db, replica))
	output(t, binary, "sync", "--wait", "--timeout", "5m", "--config", d.config, "app")
	d.end(syscall.SIGTERM)
	restored := filepath.Join(dir, "restored.db")
	for _, args := range [][]string{{"restore", "-o", restored, "file://" + replica}, {"verify", "file://" + replica}} {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, text)
		}
		took := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		t.Logf("%s of %d MB: %d MB of memory", args[0], megabytes, took>>20)
		if took > most || int64(megabytes)<<20 < 2*most {
			t.Errorf("%s of %d MB took %d MB of memory, want %d at most", args[0], megabytes, took>>20, most>>20)
		}
	}
	if got, want := output(t, "sqlite3", restored, "SELECT count(*), sum(length(b)) FROM t"),
		fmt.Sprintf("%d|%d\n", megabytes, megabytes*1000000); got != want {
		t.Errorf("restored: %s, want %s", got, want)
	}
}
