package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// With these environment variables the test binary is a server that shows one directory at
// another path until its standard input ends.
const envServe, envServeAt = "SQLWATCH_TEST_SERVE", "SQLWATCH_TEST_SERVE_AT"

func serveDisk(from, at string) int {
	root, err := fs.NewLoopbackRoot(from)
	if err == nil {
		never := time.Duration(0) // nothing is cached: every access asks the server
		var server *fuse.Server
		server, err = fs.Mount(at, root, &fs.Options{AttrTimeout: &never, EntryTimeout: &never,
			MountOptions: fuse.MountOptions{DirectMount: true}})
		if err == nil {
			fmt.Println("ready")
			_, _ = io.Copy(io.Discard, os.Stdin)
			err = server.Unmount()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mountStoppable shows a directory at another path through a server that can be stopped: like a
// disk that stops answering while files on it are open.
func mountStoppable(t *testing.T, from string) (at string, stop func()) {
	t.Helper()
	at = t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envServe+"="+from, envServeAt+"="+at)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // ends the pending requests
		_ = cmd.Wait()
		stdin.Close()
		_ = syscall.Unmount(at, syscall.MNT_DETACH)
	})
	if said, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the server of %s: %q, %v", at, said, err)
	}
	return at, func() { must(t, cmd.Process.Signal(syscall.SIGSTOP)) }
}

// Some process of this machine has a file open on a disk that stops answering. A database
// elsewhere is still replicated, examined, checkpointed and replaced, though each of these
// looks at the open files of all processes.
func TestAnotherProcessOnADeadDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that can be stopped")
	}
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "text")
	at, stop := mountStoppable(t, dir)
	file, err := os.Open(filepath.Join(at, "file"))
	must(t, err)
	other := exec.Command("sleep", "3600")
	other.Stdin = file
	must(t, other.Start())
	t.Cleanup(func() { _ = other.Process.Kill(); go func() { _ = other.Wait() }() })
	must(t, file.Close())
	stop()

	l := &lived{t: t, dir: t.TempDir()}
	l.db = makeWAL(t, filepath.Join(l.dir, "app.db"))
	l.daemon = startDaemonIn(t, l.dir, []string{binary}, l.body())
	if text := l.life(`db.execute("INSERT INTO t VALUES (NULL, 'x')"); print(rows(), end="")`); text != "2" {
		t.Errorf("the application has %s rows", text)
	}
	if out, code := ending(t, "--config", l.daemon.config, "sync", "app", "--timeout=60s"); code != 0 {
		t.Fatalf("it is not replicated: %s", out)
	}
	out, _ := ending(t, "--config", l.daemon.config, "doctor", "--settings=none")
	if strings.Contains(out, "disk-silent") {
		t.Errorf("doctor of a sound disk: %s", out)
	}
	if out, code := ending(t, "--config", l.daemon.config, "checkpoint", "app"); code != 0 {
		t.Errorf("checkpoint: %s", out)
	}
	replaced := makeWAL(t, filepath.Join(l.dir, "replaced.db"))
	if out, code := ending(t, "restore", "--force", "-o", replaced, "file://"+filepath.Join(l.dir, "replica")); code != 0 {
		t.Errorf("restore over a file: %s", out)
	}
	if got := output(t, "sqlite3", replaced, "SELECT count(*) FROM t"); strings.TrimSpace(got) != "2" {
		t.Errorf("the restored file has %s rows", got)
	}
}

// A disk that does not answer is a condition, even if it is the disk of the only database.
// systemd is told that the daemon is alive, because a restarted daemon would hang at the same
// read. A reload does not wait for that disk either.
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

	// Another database is added meanwhile, by a glob that includes the hung disk.
	must(t, os.Mkdir(filepath.Join(dir, "well"), 0o700))
	makeWAL(t, filepath.Join(dir, "well", "other.db"))
	text, err := os.ReadFile(f.config)
	must(t, err)
	must(t, os.WriteFile(f.config, fmt.Appendf(text, "database \"all\" {\n  glob = \"%s/*/*.db\"\n}\n", dir), 0o600))
	output(t, binary, "--config", f.config, "reload")
	eventually(t, patience, "the other one is measured", func() error {
		return contains(f.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="all-well-other"} `)
	})
	must(t, contains(f.url+"/", "the disk does not answer"))
	eventually(t, patience, "the condition hung", func() error {
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

// If the disk of a database stops answering, or does not answer from the start, only that
// database has a condition. The other databases are measured, replicated and shown, although an
// application still has the first one open.
func TestADeadDiskIsOneDatabases(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	for name, from := range map[string]string{"later": "", "from the start": "start"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := &lived{t: t, dir: dir, db: makeWAL(t, filepath.Join(dir, "app.db"))}
			var dead []string
			body := l.body()
			for _, db := range []string{"plain", "replicated"} {
				must(t, os.Mkdir(filepath.Join(dir, db), 0o700))
				path := makeWAL(t, filepath.Join(dir, db, "app.db"))
				(&fleet{t: t}).app(path, `db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
				dead = append(dead, filepath.Dir(path))
				body += fmt.Sprintf("database %q {\n  path = %q\n", db, path)
				if db == "replicated" {
					body += "  replicate_to = [replica.file.other]\n"
				}
				body += "}\n"
			}
			body += fmt.Sprintf("replica \"file\" \"other\" {\n  dir = %q\n}\n", filepath.Join(dir, "other"))
			sync := func() {
				if out, code := ending(t, "--config", l.daemon.config, "sync", "app", "--timeout=60s"); code != 0 {
					t.Fatalf("it is not replicated: %s", out)
				}
			}
			if from == "start" {
				for _, disk := range dead {
					hang(t, disk)
				}
				l.daemon = startUnready(t, dir, body)
			} else {
				l.daemon = startDaemonIn(t, dir, []string{binary}, body)
				sync()
				eventually(t, patience, "all are measured", func() error {
					return contains(l.daemon.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="replicated"} 1`)
				})
				for _, disk := range dead {
					hang(t, disk)
				}
			}
			l.life(`db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
			sync()
			must(t, contains(l.daemon.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="app"} 1`))
			eventually(t, patience, "the condition hung", func() error {
				out, _ := ending(t, "--config", l.daemon.config, "status")
				for _, db := range []string{"plain", "replicated"} {
					if !strings.Contains(out, db+": CRITICAL (hung") {
						return fmt.Errorf("%s has no condition hung: %s", db, out)
					}
				}
				return nil
			})
			if out, code := ending(t, "--config", l.daemon.config, "checkpoint", "app"); code != 0 {
				t.Errorf("checkpoint of the other one: %s", out)
			}
		})
	}
}

// startUnready starts a daemon that cannot examine one of its databases: it never becomes
// ready.
func startUnready(t *testing.T, dir, body string) *daemon {
	t.Helper()
	address := "127.0.0.1:" + freePort(t)
	config := write(t, dir, "sqlwatch.hcl", fmt.Sprintf("server {\n  listen = %q\n  "+
		"admin = \"unix://%[2]s/admin.sock\"\n  state_dir = \"%[2]s/state\"\n}\n%[3]s", address, dir, body))
	d := &daemon{process: start(t, binary, "run", "--config", config), url: "http://" + address, dir: dir, config: config}
	eventually(t, patience, "sqlwatch answers", func() error {
		return contains(d.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="app"} 1`)
	})
	return d
}

// doctor names the disk that hangs, examines the other databases, and exits, although the kernel
// blocks everybody who looks up a name that another process is looking up.
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
	go func() { _, _ = os.Stat(hungDB) }() // stands for the application
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

// Without a daemon, restore and checkpoint serve databases on other disks while one disk hangs,
// and report those that they cannot serve.
func TestCommandsBesideAHungDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	t.Parallel()
	dir := t.TempDir()
	var body string
	for _, db := range []string{"hung", "well"} {
		must(t, os.Mkdir(filepath.Join(dir, db), 0o700))
		path := makeWAL(t, filepath.Join(dir, db, "app.db"))
		body += fmt.Sprintf("database %[1]q {\n  path = %[2]q\n}\ndatabase \"%[1]s-replicated\" {\n  path = %[3]q\n  "+
			"replicate_to = [replica.file.first, replica.file.second]\n}\n", db, path,
			makeWAL(t, filepath.Join(dir, db, "replicated.db")))
	}
	for _, replica := range []string{"first", "second"} {
		must(t, os.Mkdir(filepath.Join(dir, replica), 0o700))
		body += fmt.Sprintf("replica \"file\" %[1]q {\n  dir = \"%[2]s/%[1]s/${db.name}\"\n}\n", replica, dir)
	}
	d := startDaemonIn(t, dir, []string{binary}, body)
	for _, db := range []string{"hung", "well"} {
		output(t, binary, "--config", d.config, "sync", db+"-replicated", "--timeout=60s")
	}
	d.end(syscall.SIGTERM)
	for _, disk := range []string{"hung", "first"} {
		hang(t, filepath.Join(dir, disk))
	}
	out, hung := filepath.Join(dir, "out.db"), "the disk does not answer"
	// Applications look there too: the kernel blocks everybody who looks up the same name after
	// them.
	for _, name := range []string{"hung/app.db", "hung/replicated.db", "hung/out.db", "first/well-replicated",
		"first/hung-replicated"} {
		go func() { _, _ = os.Stat(filepath.Join(dir, name)) }()
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"checkpoint", "well"}, 0, ""},
		{[]string{"checkpoint", "hung"}, 1, hung},
		{[]string{"restore", "-o", out, "well-replicated"}, 0, "replica file.first is left out: "},
		{[]string{"restore", "-o", out + "2", "hung-replicated"}, 0, "replica file.first is left out: "},
		{[]string{"restore", "--force", "hung-replicated"}, 1, hung},
		{[]string{"restore", "-o", filepath.Join(dir, "hung", "out.db"), "well-replicated"}, 1, hung},
		{[]string{"restore", "-o", out + "3", "file://" + filepath.Join(dir, "first", "well-replicated")}, 1, hung},
		{[]string{"snapshots", "--replica=file.first", "well-replicated"}, 1, hung},
	} {
		begun := time.Now()
		text, code := ending(t, append([]string{"--config", d.config}, c.args...)...)
		if code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%v: exit code %d: %s", c.args, code, text)
		}
		t.Logf("%v: %s", c.args, time.Since(begun).Round(100*time.Millisecond))
	}
	if got := output(t, "sqlite3", out, "SELECT count(*) FROM t"); strings.TrimSpace(got) != "1" {
		t.Errorf("the restored file has %s rows", got)
	}
}

// ending runs a command that must end by itself.
func ending(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.WaitDelay = time.Second
	text, _ := cmd.CombinedOutput() // the exit code says how it ended
	if ctx.Err() != nil {
		t.Errorf("%v did not end: %s", args, text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}
