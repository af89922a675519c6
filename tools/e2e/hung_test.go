package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The only database's disk does not answer: that is a condition, and systemd, who would
// begin the daemon anew to hang at the same read, hears that it is alive. A reload does not
// wait for that disk either.
func TestHungDiskIsNoReasonToBeginAnew(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { systemd.Close() })
	must(t, os.Mkdir(filepath.Join(dir, "disk"), 0o700))
	db := makeWAL(t, filepath.Join(dir, "disk", "app.db"))
	f := &fleet{t: t, dir: dir}
	body := fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", db)
	f.daemon = startDaemonAs(t, []string{"env", "NOTIFY_SOCKET=" + socket, binary}, body)
	hang(t, filepath.Dir(db))

	// Another database is taken in meanwhile, by a glob that has the hung disk among others.
	must(t, os.Mkdir(filepath.Join(dir, "well"), 0o700))
	makeWAL(t, filepath.Join(dir, "well", "other.db"))
	text, err := os.ReadFile(f.config)
	must(t, err)
	must(t, os.WriteFile(f.config, fmt.Appendf(text, "database \"all\" {\n  glob = \"%s/*/*.db\"\n}\n", dir), 0o600))
	output(t, binary, "--config", f.config, "reload")
	must(t, contains(f.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="all-well-other"} `))
	must(t, contains(f.url+"/", "the disk does not answer"))
	eventually(t, patience, "that it is known", func() error {
		_, err := f.severity("app", "hung")
		return err
	})
	must(t, contains(f.url+"/?db=app", "<b>hung</b>"))
	must(t, contains(f.url+"/-/healthy", "app has not answered for a minute"))
	known := time.Now()
	for heard := ""; !strings.Contains(heard, "app: hung\nWATCHDOG=1"); {
		must(t, systemd.SetReadDeadline(known.Add(patience)))
		message := make([]byte, 4096)
		n, err := systemd.Read(message)
		if err != nil {
			t.Fatalf("systemd heard %q last: %v", heard, err)
		}
		heard = string(message[:n])
	}
}

// doctor over a disk that hangs says which, examines the others, and ends, though the kernel
// keeps whoever looks at a name that somebody else looks at already.
func TestDoctorOverAHungDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	dir := t.TempDir()
	for _, name := range []string{"hung", "well"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		makeWAL(t, filepath.Join(dir, name, "app.db"))
	}
	hungDB := filepath.Join(dir, "hung", "app.db")
	hang(t, filepath.Join(dir, "hung"))
	go func() { _, _ = os.Stat(hungDB) }() // the application
	config := write(t, dir, "sqlwatch.hcl", fmt.Sprintf("server {\n  state_dir = \"%[1]s/state\"\n  "+
		"admin = \"unix://%[1]s/nobody.sock\"\n}\ndatabase \"a\" {\n  path = %[2]q\n}\ndatabase \"b\" {\n  "+
		"path = \"%[1]s/well/app.db\"\n}\n", dir, hungDB))
	if out, _ := ending(t, "--config", config, "snapshots", "b"); !strings.Contains(out, "database b has no replica") {
		t.Errorf("snapshots of the other one: %s", out)
	}
	for what, args := range map[string][]string{
		"configured": {"--config", config, "doctor", "--settings=none"},
		"by name":    {"--config", config, "doctor", "--settings=none", "a"},
		"a file":     {"doctor", "--settings=none", hungDB},
	} {
		begun := time.Now()
		out, code := ending(t, args...)
		if code != 2 {
			t.Errorf("%s: exit code %d: %s", what, code, out)
		}
		if !strings.Contains(out, "disk-silent: reading "+hungDB+" does not return; fuse is mounted on "+
			filepath.Dir(hungDB)) {
			t.Errorf("%s: %s", what, out)
		}
		if what == "configured" && !strings.Contains(out, "\nb  "+dir+"/well/app.db\n  warning   wal-reset-bug: ") {
			t.Errorf("%s: of the other one: %s", what, out)
		}
		t.Logf("%s: %s", what, time.Since(begun).Round(100*time.Millisecond))
	}
}

// ending runs a command that must come to an end.
func ending(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.WaitDelay = time.Second
	text, _ := cmd.CombinedOutput() // the code says how
	if ctx.Err() != nil {
		t.Errorf("%v did not end: %s", args, text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}
