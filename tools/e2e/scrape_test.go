package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func urlEscape(s string) string { return url.QueryEscape(s) }

// daemon is a running sqlwatch and where it listens.
type daemon struct {
	*process
	url, dir, config string
}

// startDaemon runs sqlwatch with this configuration, to which it adds the server block.
func startDaemon(t *testing.T, body string) *daemon {
	t.Helper()
	return startDaemonAs(t, []string{binary}, body)
}

// startDaemonAs is startDaemon of another build, or in another environment.
func startDaemonAs(t *testing.T, program []string, body string) *daemon {
	t.Helper()
	return startDaemonIn(t, t.TempDir(), program, body)
}

// startDaemonIn is startDaemonAs with a directory for its configuration, socket and state, and
// with more arguments.
func startDaemonIn(t *testing.T, dir string, program []string, body string, more ...string) *daemon {
	t.Helper()
	return startDaemonAt(t, "127.0.0.1", dir, program, body, more...)
}

// startDaemonAt is startDaemonIn on a host with another address.
func startDaemonAt(t *testing.T, host, dir string, program []string, body string, more ...string) *daemon {
	t.Helper()
	port := freePort(t)
	config := write(t, dir, "sqlwatch.hcl", fmt.Sprintf(`
server {
  listen    = "%s:%s"
  admin     = "unix://%s/admin.sock"
  state_dir = "%s/state"
}
%s`, host, port, dir, dir, body))
	output(t, binary, "check", config)
	run := append(append(slices.Clone(program[1:]), "run", "--config", config), more...)
	d := &daemon{process: start(t, program[0], run...),
		url: "http://" + host + ":" + port, dir: dir, config: config}
	eventually(t, 20*time.Second, "sqlwatch ready", func() error { _, err := get(d.url + "/-/ready"); return err })
	return d
}

type writerReport struct {
	Commits, Rows  int
	Errors         []string
	LongestSeconds float64 `json:"longest_seconds"`
}

// runWriter runs the unmodified application to its end and checks that it had no error.
func runWriter(t *testing.T, db string, seconds, rate float64) writerReport {
	t.Helper()
	var r writerReport
	text := output(t, "python3", "writer.py", db, fmt.Sprint(seconds), fmt.Sprint(rate))
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("writer printed %q: %v", text, err)
	}
	if len(r.Errors) > 0 || r.Rows != r.Commits {
		t.Fatalf("the application saw %d errors, first %v, %d commits, %d rows", len(r.Errors),
			r.Errors[:min(1, len(r.Errors))], r.Commits, r.Rows)
	}
	return r
}

// startPrometheus runs Debian's Prometheus, scraping target every second.
func startPrometheus(t *testing.T, target string, extra string) string {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config := write(t, dir, "prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
%s
scrape_configs:
  - job_name: sqlwatch
    static_configs: [{targets: ["%s"]}]
`, extra, strings.TrimPrefix(target, "http://")))
	start(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:"+port)
	address := "http://127.0.0.1:" + port
	eventually(t, 30*time.Second, "prometheus ready", func() error { _, err := get(address + "/-/ready"); return err })
	return address
}

// A real Prometheus sees what a script computes from the same files.
func TestPrometheusSeesTheFilesFacts(t *testing.T) {
	db := filepath.Join(t.TempDir(), "app.db")
	holder := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE held(x)"); print("open", flush=True); sys.stdin.read()`, db)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = holder.Wait() })
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}

	d := startDaemon(t, fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", db))
	prometheus := startPrometheus(t, d.url, "")
	const commits = "sqlite_wal_commits_total"
	eventually(t, 20*time.Second, "first scrape", func() error {
		_, err := value(prometheus, commits)
		return err
	})
	before, err := value(prometheus, commits)
	if err != nil {
		t.Fatal(err)
	}
	report := runWriter(t, db, 5, 200)

	page, err := get(d.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(page)
	if text, err := promtool.CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, text)
	}

	var facts map[string]float64
	if err := json.Unmarshal([]byte(output(t, "python3", "walfacts.py", db)), &facts); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"sqlite_wal_frames":              facts["frames"],
		"sqlite_wal_checkpointed_frames": facts["checkpointed"],
		"sqlite_wal_size_bytes":          facts["wal_size"],
		"sqlite_database_size_bytes":     facts["database_size"],
		"sqlite_database_pages":          facts["pages"],
		"sqlite_up":                      1,
		commits:                          before + float64(report.Commits) + 1, // and the one that created the table
	}
	for name, w := range want {
		eventually(t, 10*time.Second, name, func() error {
			got, err := value(prometheus, name)
			if err == nil && got != w {
				err = fmt.Errorf("Prometheus has %v, the files say %v", got, w)
			}
			return err
		})
	}
	lag, err := value(prometheus, "sqlite_wal_checkpoint_lag_seconds")
	if err != nil || (facts["frames"] > facts["checkpointed"]) != (lag > 0) {
		t.Errorf("checkpoint lag is %v s with %v of %v frames checkpointed (%v)", lag, facts["checkpointed"], facts["frames"],
			err)
	}
}

// value returns the value of a metric of database "app".
func value(prometheus, name string) (float64, error) {
	values, err := query(prometheus, name+`{db="app"}`, "db")
	if err != nil {
		return 0, err
	}
	v, ok := values["app"]
	if !ok {
		return 0, fmt.Errorf("no series %s", name)
	}
	return v, nil
}

// A browser shows the status page, and only sqlite_database_info names a path.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "app.db")
	runWriter(t, db, 0.5, 100)
	d := startDaemon(t, fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", db))
	dom := output(t, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=3000", "--dump-dom", d.url+"/")
	for _, want := range []string{"sqlwatch", "app", "/metrics"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page does not show %q:\n%s", want, dom)
		}
	}
	page, err := get(d.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page) {
		if strings.Contains(line, db) && !strings.HasPrefix(line, "sqlite_database_info{") {
			t.Errorf("a metric names the path: %s", line)
		}
	}
}

// The API names the process that was refused a lock, for the person who looks there. No metric
// names a process, and no page shows a secret.
func TestMetricsNameNoProcess(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	runWriter(t, db, 0.2, 50)
	const command = "canarybusy" // the kernel's name of the process
	sqlite3, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sqlite3)
	if err != nil {
		t.Fatal(err)
	}
	refused := filepath.Join(dir, command)
	if err := os.WriteFile(refused, program, 0o700); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, fmt.Sprintf(`
database "app" { path = %q }
notifier "webhook" "ops" { url = "https://hooks.example.org/%s" }`, db, canary))
	page, err := get(d.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page, `sqlwatch_scrape_collector_success{collector="busy"} 0`) {
		t.Skip("the kernel does not report refused locks here")
	}
	holder := start(t, "python3", "-c", `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("begin immediate"); time.sleep(600)`, db)
	var api string
	eventually(t, 30*time.Second, "the refusal to show", func() error {
		if err := exec.Command(refused, db, "begin immediate").Run(); err == nil {
			return fmt.Errorf("nobody holds the lock yet")
		}
		var err error
		api, err = get(d.url + "/api/v1/databases")
		if err == nil && !strings.Contains(api, command) {
			err = fmt.Errorf("not in %s", api)
		}
		return err
	})
	eventually(t, 10*time.Second, "the refusal to be counted", func() error {
		page, err = get(d.url + "/metrics")
		if err == nil && strings.Contains(page, `sqlite_busy_total{db="app",lock="write",source="ebpf"} 0`) {
			err = fmt.Errorf("it is 0")
		}
		return err
	})
	html, err := get(d.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{command, "python", fmt.Sprintf("%q", fmt.Sprint(holder.cmd.Process.Pid)),
		"example.org"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("/metrics names %s", forbidden)
		}
	}
	for name, text := range map[string]string{"/metrics": page, "/api/v1/databases": api, "/": html} {
		if strings.Contains(text, canary) {
			t.Errorf("%s shows a secret", name)
		}
	}
}
