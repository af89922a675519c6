package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// writer commits until its standard input ends, with a pause after each commit of as many seconds
// as its second argument says. Then it prints how many commits it made, and how many milliseconds
// the longest took.
const writer = `
import select, sqlite3, sys, time
pause = float(sys.argv[2])
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT)")
print("ready", flush=True)
n, longest = 0, 0.0
while n % 100 or not select.select([sys.stdin], [], [], 0)[0]:
    began = time.monotonic()
    db.execute("INSERT INTO t (x) VALUES (?)", ("x" * 500,))
    n, longest = n + 1, max(longest, time.monotonic() - began)
    if pause:
        time.sleep(pause)
print(n, longest * 1000, flush=True)
sys.stdin.read()
`

// longReader holds a read transaction until its standard input ends.
const longReader = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM t").fetchall()
print("reading", flush=True)
sys.stdin.read()
`

// application is an unmodified program in another process.
type application struct {
	*exec.Cmd
	stdin interface{ Close() error }
	lines *bufio.Scanner
}

func startApplication(t *testing.T, program string, args ...string) *application {
	t.Helper()
	cmd := exec.Command("python3", append([]string{"-c", program}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &application{Cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if !a.lines.Scan() {
		t.Fatalf("the application did not start: %v", a.lines.Err())
	}
	return a
}

// end tells the application to stop and returns its last line. The test fails if the application
// had an exception.
func (a *application) end(t *testing.T) string {
	t.Helper()
	if err := a.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	last := ""
	for a.lines.Scan() {
		last = a.lines.Text()
	}
	if err := a.Wait(); err != nil {
		t.Errorf("the application saw an error: %v", err)
	}
	return last
}

// runDaemon starts `sqlwatch run` on a database and returns its configuration.
func runDaemon(t *testing.T, dir, database, more string) (configFile string, daemon *exec.Cmd) {
	t.Helper()
	configFile = filepath.Join(dir, "sqlwatch.hcl")
	text := fmt.Sprintf(`
server {
  listen    = "127.0.0.1:0"
  admin     = "unix://%[1]s/admin.sock"
  state_dir = "%[1]s/state"
}
database "app" {
  path = %[2]q
}
%[3]s`, dir, database, more)
	if err := os.WriteFile(configFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon = exec.Command("sqlwatch", "--config", configFile, "run")
	var log strings.Builder
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	poll(t, "the first sample", func() bool {
		d, err := lookDaemon(configFile)
		return err == nil && d.Sample != nil && d.Sample.State == collector.StateUp
	})
	return configFile, daemon
}

func testEnvironment(configFile string) *environment {
	admin := filepath.Join(filepath.Dir(configFile), "admin.sock")
	return &environment{Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.LookupEnv, Config: &configFile, Admin: &admin}
}

// lookDaemon returns what the daemon publishes about the database.
func lookDaemon(configFile string) (databaseView, error) {
	views, err := newAdminClient(testEnvironment(configFile)).Databases(context.Background(), "app")
	if err != nil {
		return databaseView{}, err
	}
	return views[0], nil
}

func poll(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !condition(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 90 s: %s", what)
		}
	}
}

// checkpointNow asks the daemon for a TRUNCATE checkpoint, on the path that policies use.
func checkpointNow(t *testing.T, configFile string) watchdog.ActionRecord {
	t.Helper()
	var record watchdog.ActionRecord
	query := url.Values{"db": {"app"}, "mode": {"truncate"}}
	if err := newAdminClient(testEnvironment(configFile)).Call(t.Context(), http.MethodPost, "/v1/checkpoint", query,
		&record); err != nil {
		t.Fatal(err)
	}
	return record
}

// numbers reads "COMMITS LONGEST_MS".
func numbers(t *testing.T, line string) (commits int, longest time.Duration) {
	t.Helper()
	words := strings.Fields(line)
	if len(words) != 2 {
		t.Fatalf("the application said %q", line)
	}
	commits, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	ms, err := strconv.ParseFloat(words[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return commits, time.Duration(ms * float64(time.Millisecond))
}

func rows(t *testing.T, database string) int {
	t.Helper()
	out, err := exec.Command("sqlite3", database, "PRAGMA integrity_check; SELECT count(*) FROM t").Output()
	if err != nil {
		t.Fatal(err)
	}
	verdict, count, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if verdict != "ok" {
		t.Errorf("integrity_check: %s", verdict)
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An unmodified writer runs at full speed beside TRUNCATE checkpoints by a policy and by hand: it
// meets no error, no commit is lost, and no hold of the write lock exceeds the budget. The budget
// is three of the five seconds that the writer waits for a lock, far more than an idle machine
// needs, because the other tests run at the same time.
func TestWriterAtFullSpeed(t *testing.T) {
	t.Parallel()
	const budget = 3 * time.Second
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	writing := startApplication(t, writer, database, "0")
	configFile, daemon := runDaemon(t, dir, database, `
policy "shrink" {
  when     = wal.bytes > bytes("1MB")
  cooldown = "1s"
  checkpoint {
    stall_budget = "3s"
    step "passive"  { repeat = 2 }
    step "truncate" { busy_timeout = "100ms" }
  }
}`)
	truncated := 0
	enough, latest := time.Now().Add(6*time.Second), time.Now().Add(time.Minute)
	for ; time.Now().Before(enough) || truncated == 0 && time.Now().Before(latest); <-time.After(time.Second) {
		record := checkpointNow(t, configFile)
		if record.OK {
			truncated++
		}
		if record.WriterStall > budget {
			t.Errorf("writers stalled for %s, budget %s: %+v", record.WriterStall, budget, record)
		}
	}
	poll(t, "a truncation by the policy", func() bool {
		d, err := lookDaemon(configFile)
		for _, a := range d.Actions {
			if a.WriterStall > budget {
				t.Errorf("writers stalled for %s, budget %s: %+v", a.WriterStall, budget, a)
			}
			if a.Policy == "shrink" && a.Outcome == "truncated" {
				return true
			}
		}
		return err != nil
	})
	commits, longest := numbers(t, writing.end(t))
	if truncated == 0 {
		t.Errorf("no TRUNCATE succeeded beside the writer")
	}
	if got := rows(t, database); got != commits {
		t.Errorf("%d rows, the application committed %d", got, commits)
	}
	t.Logf("%d commits, longest %s, %d truncations by hand", commits, longest, truncated)
	// P3: SIGTERM ends the daemon cleanly.
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// A reader keeps its transaction open: the daemon does not take the write lock in vain, and the
// commands name the reader.
func TestReaderPinsTheWAL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	writing := startApplication(t, writer, database, "0.001")
	reader := startApplication(t, longReader, database)
	configFile, _ := runDaemon(t, dir, database, `
policy "shrink" {
  when = wal.bytes > bytes("1MB")
  checkpoint {
    on_busy {
      backoff = "1s"
      max     = "1s"
    }
  }
}`)
	pid := fmt.Sprint(reader.Process.Pid)
	poll(t, "the pin", func() bool {
		d, err := lookDaemon(configFile)
		return err == nil && !d.Sample.Readers.PinnedSince.IsZero() &&
			time.Since(d.Sample.Readers.PinnedSince) > 2*time.Second
	})
	for range 3 {
		if record := checkpointNow(t, configFile); record.Outcome != "pinned" || record.WriterStall != 0 {
			t.Errorf("outcome %s, writers stalled for %s; want pinned without touching the write lock", record.Outcome,
				record.WriterStall)
		}
	}
	poll(t, "the policy's refusal", func() bool {
		d, err := lookDaemon(configFile)
		return err == nil && len(d.Decision.Policies) == 1 && d.Decision.Policies[0].Refused == "reader"
	})
	why := commandOutput(t, configFile, "why", "app")
	for _, want := range []string{"by pid " + pid + " (python3)", "first guard that refuses: reader"} {
		if !strings.Contains(why, want) {
			t.Errorf("why lacks %q:\n%s", want, why)
		}
	}
	blockers := commandOutput(t, configFile, "blockers", "app")
	found := false
	for line := range strings.Lines(blockers) {
		found = found || strings.HasPrefix(line, "read") && strings.Contains(line, " "+pid+" ") && strings.Contains(line,
			"python3") && strings.Contains(line, "from leaving the WAL")
	}
	if !found {
		t.Errorf("blockers does not name the reader, pid %s:\n%s", pid, blockers)
	}
	reader.end(t)
	poll(t, "a truncation once the reader is gone", func() bool { return checkpointNow(t, configFile).OK })
	commits, longest := numbers(t, writing.end(t))
	if got := rows(t, database); got != commits {
		t.Errorf("%d rows, the application committed %d", got, commits)
	}
	t.Logf("%d commits, longest %s", commits, longest)
}

// commandOutput runs a command to its end. Exit code 2, for findings, is no failure.
func commandOutput(t *testing.T, configFile string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sqlwatch", append([]string{"--config", configFile}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != exitFindings {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}
