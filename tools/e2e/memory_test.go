package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// memoryGroup creates a cgroup with this limit in bytes and returns its directory. It needs root,
// and a kernel whose memory controller is mounted.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	const root = "/sys/fs/cgroup"
	dir, file := root+"/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		dir, file = root, "memory.max"
		_ = os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0o644)
	}
	dir, err := os.MkdirTemp(dir, "sqlwatch-test-")
	if err != nil {
		t.Skipf("no cgroup can be created here: %v", err)
	}
	t.Cleanup(func() { os.Remove(dir) }) // registered first, so that it runs when its processes are gone
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		t.Skipf("memory cannot be limited here: %v", err)
	}
	return dir
}

// inside returns a command that runs command in a cgroup.
func inside(group string, command ...string) []string {
	return append([]string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group}, command...)
}

// hog uses memory until a given file exists.
const hog = `
import os, sys, time
taken = []
while not os.path.exists(sys.argv[1]) and len(taken) < 1000:
    taken.append(b"x" * (1 << 20))
    time.sleep(0.001)
`

// The kernel kills sqlwatch for lack of memory while the application writes. sqlwatch is started
// again, as a service would be, and a restore returns what the application has.
func TestOutOfMemory_P5(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, replica := filepath.Join(dir, "app.db"), filepath.Join(dir, "replica")
	group := memoryGroup(t, 300<<20)
	d := startDaemonAs(t, inside(group, binary), fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" {
  dir        = %q
  sync_every = "100ms"
}
`, db, replica))
	for round := range 2 {
		// The kernel should choose sqlwatch in this cgroup.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", d.cmd.Process.Pid), []byte("1000"), 0o644); err != nil {
			t.Fatal(err)
		}
		ended := filepath.Join(dir, fmt.Sprint("ended", round))
		application := start(t, "python3", "writer.py", db, "6", "200")
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond) // a random moment
		eater := inside(group, "python3", "-c", hog, ended)
		eating := start(t, eater[0], eater[1:]...)
		late := time.AfterFunc(patience, func() { _ = d.cmd.Process.Signal(syscall.SIGTERM) })
		err := d.cmd.Wait()
		late.Stop()
		write(t, dir, filepath.Base(ended), "")
		_ = eating.cmd.Wait() // it may have been killed next
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the kernel was to kill sqlwatch, which ended with %v", err)
		}
		again := inside(group, binary, "run", "--config", d.config)
		d = &daemon{process: start(t, again[0], again[1:]...), url: d.url, dir: d.dir, config: d.config}
		eventually(t, 20*time.Second, "sqlwatch ready", func() error { _, err := get(d.url + "/-/ready"); return err })
		if err := application.cmd.Wait(); err != nil || !strings.Contains(application.output(t), `"errors": []`) {
			t.Fatalf("the application: %v\n%s", err, application.output(t))
		}
		output(t, binary, "sync", "--config", d.config, "app")
		restored := filepath.Join(dir, fmt.Sprintf("restored%d.db", round))
		output(t, binary, "restore", "-o", restored, "--check", "full", "file://"+replica)
		const rows = "SELECT count(*), max(id), total(length(body)) FROM t"
		if got, want := output(t, "sqlite3", restored, rows), output(t, "sqlite3", db, rows); got != want {
			t.Fatalf("round %d: the restored database has %q, the application's %q", round, got, want)
		}
	}
}

// When the program is aborted, its memory ends up neither on a disk nor in a log: it leaves no
// core file, although core files are permitted, and the trace that it prints on SIGABRT, SIGSEGV
// and SIGQUIT contains no key.
func TestAbort_X9(t *testing.T) {
	t.Parallel()
	const canary = "kanarienvogel7431"
	for _, signal := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGQUIT} {
		dir := t.TempDir()
		output(t, "sqlite3", dir+"/app.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1)")
		d := startDaemonAs(t, []string{"prlimit", "--core=unlimited", "env", "-C", dir, "CANARY=" + canary, binary},
			fmt.Sprintf(`
database "app" {
  path         = "%s/app.db"
  replicate_to = [replica.s3.main]
}
replica "s3" "main" {
  bucket   = "b"
  endpoint = "http://127.0.0.1:1"
  region   = "us-east-1"
  credentials {
    access_key = "key"
    secret_key = secret(env("CANARY", "unset"))
  }
}
`, dir))
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.cmd.Process.Pid))
		if !regexp.MustCompile(`(?m)^Max core file size +1 +1 `).Match(limits) {
			t.Errorf("%v: a core may be written, or piped to a program:\n%s", err, limits)
		}
		if err := d.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		exit := (*exec.ExitError)(nil)
		if err := d.cmd.Wait(); !errors.As(err, &exit) {
			t.Fatalf("%s: ended with %v", signal, err)
		}
		if exit.Sys().(syscall.WaitStatus).CoreDump() {
			t.Errorf("%s: a core file was written", signal)
		}
		said := d.output(t)
		if !strings.Contains(said, "goroutine ") {
			t.Errorf("%s: no trace of it: %s", signal, tail([]byte(said), 500))
		}
		if strings.Contains(said, canary) {
			t.Errorf("%s: the trace holds the key", signal)
		}
		left, err := filepath.Glob(dir + "/core*")
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", signal, left, err)
		}
	}
}
