package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Started as root beside another user's database, the daemon runs as that user, in its own
// process, with the capabilities that counting needs and no others.
func TestRunAsOwner_X11(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	const uid = 54321
	dir, err := os.MkdirTemp("", "sqlwatch-x11-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	files := filepath.Join(dir, "srv")
	database := filepath.Join(files, "app.db")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(files, 0o755),
		os.WriteFile(filepath.Join(dir, "sqlwatch"), program, 0o755),
		exec.Command("sqlite3", database, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)").Run(),
		os.Chown(files, uid, uid), os.Chown(database, uid, uid),
	); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "sqlwatch.hcl")
	text := fmt.Sprintf(`
server {
  listen    = "127.0.0.1:0"
  admin     = "unix://%[1]s/run/admin.sock"
  state_dir = "%[1]s/state"
}
database "app" {
  path         = %[2]q
  replicate_to = [replica.file.copy]
}
replica "file" "copy" {
  dir = "%[1]s/copy"
}
`, dir, database)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() (*exec.Cmd, *output) {
		cmd := exec.Command(filepath.Join(dir, "sqlwatch"), "--config", config, "run")
		log := &output{}
		cmd.Stderr = log
		return cmd, log
	}
	refused, log := run()
	if err := refused.Run(); err == nil || !strings.Contains(log.String(), fmt.Sprintf("chown %d %s", uid, config)) {
		t.Errorf("a configuration that the owner may not read: %v\n%s", err, log)
	}
	if err := os.Chown(config, uid, uid); err != nil {
		t.Fatal(err)
	}
	cmd, log := run()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	poll(t, "the replica has its first file", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "copy", "ltx", "*", "*.ltx"))
		return err == nil && len(found) > 0
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if want := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", uid); !strings.Contains(string(status), want) {
		t.Errorf("it does not run as the owner:\n%s", status)
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok && strings.TrimSpace(set) > "000000c000000000" {
			t.Errorf("it kept more capabilities than counting needs: %s", line)
		}
	}
	for _, path := range []string{database + "-shm", filepath.Join(dir, "state", "lock"),
		filepath.Join(dir, "copy", "ltx")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if got := info.Sys().(*syscall.Stat_t).Uid; got != uid {
			t.Errorf("%s belongs to uid %d, want %d", path, got, uid)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, log)
	}
}
