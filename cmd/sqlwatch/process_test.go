package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/daemon"
)

// output collects what a process writes while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// daemonProcess is `sqlwatch run` with a configuration of its own.
type daemonProcess struct {
	*exec.Cmd
	dir, config, address string
	log                  *output
	ended                chan error
}

// startDaemon runs the daemon with a configuration whose server block is added,
// and waits until it is ready.
func startDaemon(t *testing.T, dir, configuration string, env ...string) *daemonProcess {
	t.Helper()
	d := &daemonProcess{dir: dir, config: filepath.Join(dir, "sqlwatch.hcl"), address: unusedAddress(t), log: &output{},
		ended: make(chan error, 1)}
	d.write(t, configuration)
	d.Cmd = exec.Command("sqlwatch", "--config", d.config, "run", "--log.level=debug")
	d.Env = append(os.Environ(), env...)
	d.Stderr = d.log
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		d.ended <- d.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		d.Process.Kill()
		<-exited
		if t.Failed() {
			t.Log(d.log)
		}
	})
	poll(t, "the daemon is ready", func() bool {
		code, _ := d.get("/-/ready")
		return code == http.StatusOK
	})
	return d
}

func unusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (d *daemonProcess) write(t *testing.T, configuration string) {
	t.Helper()
	server := fmt.Sprintf("server {\n  listen    = %q\n  admin     = \"unix://%[2]s/admin.sock\"\n  state_dir = "+
		"\"%[2]s/state\"\n}\n", d.address, d.dir)
	if err := os.WriteFile(d.config, []byte(server+configuration), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *daemonProcess) get(path string) (int, string) {
	response, err := http.Get("http://" + d.address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

func (d *daemonProcess) shows(line string) bool {
	_, page := d.get("/metrics")
	return strings.Contains(page, "\n"+line+"\n")
}

func (d *daemonProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := d.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end sends SIGTERM and returns how the daemon ended.
func (d *daemonProcess) end(t *testing.T) error {
	t.Helper()
	d.signal(t, syscall.SIGTERM)
	select {
	case err := <-d.ended:
		return err
	case <-time.After(90 * time.Second):
		t.Fatal("the daemon has not ended 90 s after SIGTERM")
		return nil
	}
}

func databaseBlock(path string) string {
	return fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", path)
}

const aPolicy = `
policy %q {
  when = wal.bytes > bytes("1TB")
  checkpoint {}
}
`

// The daemon may open only a few more descriptors: it refuses a new database and reports that,
// and the databases that were there continue.
func TestFewDescriptors_P7(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startApplication(t, writer, filepath.Join(dir, "old.db"), "0.01")
	d := startDaemon(t, dir, fmt.Sprintf("database \"all\" {\n  glob = %q\n  name = path_element(db.path, -1)\n}\n",
		filepath.Join(dir, "*.db")))
	used, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("prlimit", fmt.Sprintf("--pid=%d", d.Process.Pid),
		fmt.Sprintf("--nofile=%d:", len(used)+12)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	startApplication(t, writer, filepath.Join(dir, "new.db"), "0.01")
	d.signal(t, syscall.SIGHUP)
	poll(t, "the new one is refused", func() bool { return d.shows(`sqlite_up{db="new.db"} 0`) })
	if _, page := d.get("/api/v1/health"); !strings.Contains(page, "no file descriptors are left") {
		t.Errorf("it is not told why: %s", page)
	}
	commits := func() string {
		_, page := d.get("/metrics")
		_, after, _ := strings.Cut(page, "\nsqlite_wal_commits_total{db=\"old.db\"} ")
		n, _, _ := strings.Cut(after, "\n")
		return n
	}
	before := commits()
	poll(t, "the old one is measured", func() bool { n := commits(); return n != "" && n != before })
}

// SIGHUP applies a good configuration; a bad one changes nothing, and the metrics show that.
func TestReload_SIGHUP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	startApplication(t, writer, database, "0.01")
	d := startDaemon(t, dir, databaseBlock(database)+fmt.Sprintf(aPolicy, "first"))
	d.write(t, databaseBlock(database)+fmt.Sprintf(aPolicy, "second"))
	d.signal(t, syscall.SIGHUP)
	poll(t, "the new policy is in force", func() bool {
		_, page := d.get("/metrics")
		return strings.Contains(page, `policy="second"`) && !strings.Contains(page, `policy="first"`)
	})
	if !d.shows("sqlwatch_config_last_reload_successful 1") {
		t.Error("a good reload does not show as successful")
	}
	d.write(t, databaseBlock(database)+"policy \"third\" {\n  when = nonsense.bytes > 1\n  checkpoint {}\n}\n")
	d.signal(t, syscall.SIGHUP)
	poll(t, "the failure shows", func() bool { return d.shows("sqlwatch_config_last_reload_successful 0") })
	if _, page := d.get("/metrics"); !strings.Contains(page, `policy="second"`) ||
		strings.Contains(page, `policy="third"`) {
		t.Error("a bad configuration changed what is in force")
	}
	if log := d.log.String(); !strings.Contains(log, "the previous one stays in force") ||
		!strings.Contains(log, "sqlwatch.hcl:") {
		t.Error("the log does not say what became of the reload, and where the mistake is")
	}
	d.write(t, databaseBlock(database)+fmt.Sprintf(aPolicy, "second"))
	d.signal(t, syscall.SIGHUP)
	poll(t, "the recovery shows", func() bool { return d.shows("sqlwatch_config_last_reload_successful 1") })
	if err := d.end(t); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// A second SIGTERM ends the daemon even while its last sync does not end.
func TestSecondSIGTERM_P3(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	startApplication(t, writer, database, "0.01")
	blackhole, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer blackhole.Close()
	d := startDaemon(t, dir, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.s3.main]
}
replica "s3" "main" {
  bucket     = "b"
  region     = "us-east-1"
  endpoint   = "http://%s"
  path_style = true
  credentials {
    access_key = "a"
    secret_key = "s"
  }
}
`, database, blackhole.Addr()))
	// Before a segment is captured there is nothing to sync: capture first asks the store where to
	// begin.
	poll(t, "a captured segment", func() bool {
		names, _ := filepath.Glob(filepath.Join(dir, "state", "databases", "app", "capture", "spool", "*.ltx"))
		return len(names) > 0
	})
	d.signal(t, syscall.SIGTERM)
	select {
	case err := <-d.ended:
		t.Fatalf("the last sync to a store that does not answer ended at once: %v", err)
	case <-time.After(time.Second):
	}
	d.signal(t, syscall.SIGTERM)
	select {
	case err := <-d.ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
			t.Errorf("ended after the second SIGTERM with %v; want killed by it", err)
		}
	case <-time.After(daemon.ShutdownGrace - 5*time.Second):
		t.Error("the second SIGTERM does not end the daemon before the last sync gives up")
	}
}

// A stopped daemon continues where it was, and costs the application no commit, even if it was
// stopped while it held the write lock.
func TestStopAndContinue_P4(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	writing := startApplication(t, writer, database, "0.001")
	d := startDaemon(t, dir, databaseBlock(database)+`
policy "shrink" {
  when     = wal.bytes > bytes("200KB")
  cooldown = "1s"
  checkpoint {}
}
`)
	d.signal(t, syscall.SIGSTOP)
	<-time.After(time.Second)
	d.signal(t, syscall.SIGCONT)
	truncated := func() int {
		_, page := d.get("/metrics")
		var n int
		for line := range strings.Lines(page) {
			if rest, ok := strings.CutPrefix(line, `sqlwatch_checkpoints_total{db="app",mode="truncate"} `); ok {
				fmt.Sscan(rest, &n)
			}
		}
		return n
	}
	first := truncated()
	poll(t, "a truncation after the pause", func() bool { return truncated() > first })
	commits, longest := numbers(t, writing.end(t))
	if got := rows(t, database); got != commits {
		t.Errorf("%d rows, the application committed %d", got, commits)
	}
	t.Logf("%d commits, longest %s", commits, longest)
}

// A second daemon on the same state directory refuses to start, and names the first.
func TestStartedTwice_P14(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	startApplication(t, writer, database, "0.01")
	d := startDaemon(t, dir, databaseBlock(database))
	second := exec.Command("sqlwatch", "--config", d.config, "run", "--web.listen-address=127.0.0.1:0")
	out, err := second.CombinedOutput()
	if want := fmt.Sprintf("another sqlwatch, pid %d, uses the state directory", d.Process.Pid); err == nil ||
		!strings.Contains(string(out), want) {
		t.Errorf("the second daemon: %v, lacks %q:\n%s", err, want, out)
	}
	if code, _ := d.get("/-/ready"); code != http.StatusOK {
		t.Errorf("the first daemon answers %d", code)
	}
}

// The daemon runs beside another user's database that it must not touch. It neither measures nor
// changes the database, and says so.
func TestForeignOwner_P15(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "sqlwatch-p15-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const nobody = 65534
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(dir, "app.db")
	for _, step := range []error{
		os.Chmod(dir, 0o777),
		os.WriteFile(filepath.Join(dir, "sqlwatch"), program, 0o755),
		os.Mkdir(filepath.Join(dir, "home"), 0o700), os.Chown(filepath.Join(dir, "home"), nobody, nobody),
		exec.Command("sqlite3", database, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)").Run(),
		os.Chmod(database, 0o646), // its group may not write: the file is shared with nobody
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	address := unusedAddress(t)
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(dir, "sqlwatch"),
		"run", database, "--web.listen-address="+address)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "XDG_RUNTIME_DIR=" +
		filepath.Join(dir, "home")}
	log := &output{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	d := &daemonProcess{address: address}
	poll(t, "the daemon is ready", func() bool {
		code, _ := d.get("/-/ready")
		return code == http.StatusOK
	})
	if _, page := d.get("/metrics"); !strings.Contains(page, `sqlite_up{db="app"} 0`) ||
		!strings.Contains(page, `state="foreign_owner"`) {
		t.Errorf("the database does not show as another user's:\n%s", log)
	}
	poll(t, "the log says what to do", func() bool {
		return strings.Contains(log.String(), "run sqlwatch as") || strings.Contains(log.String(), "uid 0")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, log)
	}
	for _, side := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(database + side); err == nil {
			t.Errorf("%s was created under another user", side)
		}
	}
}

// killedWriter is an application that kills itself and leaves its WAL behind.
const killedWriter = `
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t (x)")
for i in range(50):
    db.execute("INSERT INTO t VALUES (?)", ("x" * 900,))
os.kill(os.getpid(), 9)
`

// When sqlwatch is the last to close a database, it does what SQLite's last close does:
// everything is in the main file, and no side file remains.
func TestShutdownLeavesNoWAL_P16(t *testing.T) {
	t.Parallel()
	for name, replicated := range map[string]bool{"plain": false, "replicated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			database := filepath.Join(dir, "app.db")
			a := startTold(t, database)
			a.do("rows(50)")
			configuration := databaseBlock(database)
			if replicated {
				configuration = replicatedTo(database, filepath.Join(dir, "replica"))
				a.kill()
			}
			d := startDaemon(t, dir, configuration)
			a.kill() // after the daemon has seen it use its WAL
			if replicated {
				poll(t, "the replica has everything", captured(d))
			} else if out, err := exec.Command("sqlwatch", "--config", d.config, "checkpoint", "--mode=passive",
				"app").CombinedOutput(); err != nil {
				t.Errorf("a passive checkpoint, which opens a connection: %v\n%s", err, out)
			}
			if err := d.end(t); err != nil {
				t.Errorf("SIGTERM: %v", err)
			}
			wantClosed(t, database)
		})
	}
}

// Secrets of the configuration appear nowhere that anybody can read.
func TestCanary_H10(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry5ecret"
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	startApplication(t, writer, database, "0.01")
	refused := unusedAddress(t)
	configuration := fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.s3.main]
}
replica "s3" "main" {
  bucket     = "b"
  region     = "us-east-1"
  endpoint   = "http://%[2]s"
  path_style = true
  credentials {
    access_key = secret(env("CANARY_A"))
    secret_key = secret(env("CANARY_B"))
  }
}
notifier "webhook" "ops" {
  url = "http://%[2]s/${env("CANARY_C")}"
}
policy "shout" {
  when     = wal.bytes > 0
  notify   = [notifier.webhook.ops]
  message  = "${db.name} writes"
  severity = "critical"
}
`, database, refused)
	env := []string{"CANARY_A=" + canary + "a", "CANARY_B=" + canary + "b", "CANARY_C=" + canary + "c"}
	d := startDaemon(t, dir, configuration, env...)
	poll(t, "the webhook and the store were tried", func() bool {
		log := d.log.String()
		return strings.Contains(log, "notification could not be delivered") && strings.Contains(log, "replica=s3.main")
	})
	seen := map[string]string{}
	for _, path := range []string{"/", "/?db=app", "/metrics", "/api/v1/databases", "/api/v1/decisions",
		"/api/v1/decisions?db=app", "/-/healthy", "/-/ready"} {
		_, seen[path] = d.get(path)
	}
	run := func(args ...string) {
		ctx := t.Context()
		if args[0] == "sync" { // which does not end while the store is dead
			brief, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			ctx = brief
		}
		cmd := exec.CommandContext(ctx, "sqlwatch", append([]string{"--config", d.config}, args...)...)
		cmd.Env = append(os.Environ(), env...)
		out, _ := cmd.CombinedOutput() // findings exit with 2
		seen["sqlwatch "+strings.Join(args, " ")] = string(out)
	}
	run("check", d.config)
	run("status")
	run("status", "--json")
	run("why", "app", "--json")
	run("plan")
	run("snapshots", "app")
	run("sync", "app")
	// Put a mistake beside each secret, so that diagnostics quote the line.
	d.write(t, strings.Replace(strings.Replace(configuration, `region     = "us-east-1"`,
		`region     = 5 + env("CANARY_A")`, 1), "severity = \"critical\"", "severity = env(\"CANARY_C\")", 1))
	run("check", d.config)
	d.signal(t, syscall.SIGHUP)
	poll(t, "the bad reload shows", func() bool { return d.shows("sqlwatch_config_last_reload_successful 0") })
	d.signal(t, syscall.SIGQUIT) // the runtime prints the stacks of all goroutines
	<-d.ended
	seen["log"] = d.log.String()
	if !strings.Contains(seen["log"], "goroutine ") || !strings.Contains(seen["sqlwatch check "+d.config],
		"sqlwatch.hcl:") {
		t.Errorf("the crash or the diagnostics are missing, so that nothing is proven:\n%s", seen["sqlwatch check "+d.config])
	}
	for what, text := range seen {
		if at := strings.Index(text, canary); at >= 0 {
			t.Errorf("%s shows a secret: …%s…", what, text[max(0, at-200):min(len(text), at+50)])
		}
	}
}
