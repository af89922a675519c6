package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// speed is the factor by which the tests shorten the durations in the rules: a minute there is a
// second here.
const speed = 60

var (
	promDuration = regexp.MustCompile(`(for: |interval: |offset |\[|:)(\d+)(s|m|h|d)\b`)
	// The rules write time limits as a number times the seconds of a minute, an hour or a day.
	timeProduct = regexp.MustCompile(`\b(\d+) \* (60|3600|86400)\b`)
	unitSeconds = map[string]int{"s": 1, "m": 60, "h": 3600, "d": 86400}
)

// faster returns the rules with every duration divided by speed, at least a second.
func faster(rules string, speed int) string {
	rules = promDuration.ReplaceAllStringFunc(rules, func(s string) string {
		m := promDuration.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		return fmt.Sprintf("%s%ds", m[1], max(1, n*unitSeconds[m[3]]/speed))
	})
	return timeProduct.ReplaceAllStringFunc(rules, func(s string) string {
		m := timeProduct.FindStringSubmatch(s)
		unit, _ := strconv.Atoi(m[2])
		return fmt.Sprintf("%s * %d", m[1], max(1, unit/speed))
	})
}

// notification is one alert as Alertmanager delivers it to its receiver.
type notification struct {
	Status      string
	Labels      map[string]string
	Annotations map[string]string
}

// receiver is the webhook to which Alertmanager delivers.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	received []notification
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Alerts []notification }
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.received = append(r.received, body.Alerts...)
	}))
	t.Cleanup(r.Close)
	return r
}

// find returns the first notification of an alert for a database with this status: firing or
// resolved.
func (r *receiver) find(alert, db, status string) (notification, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.received {
		if n.Labels["alertname"] == alert && n.Labels["db"] == db && n.Status == status {
			return n, true
		}
	}
	return notification{}, false
}

// all returns the alert and the database of each notification received.
func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, n := range r.received {
		names = append(names, n.Labels["alertname"]+" "+n.Labels["db"])
	}
	return names
}

// await waits until the alert fires for the database, and checks the annotations that a person
// would read.
func (r *receiver) await(t *testing.T, alert, db string) {
	t.Helper()
	var got notification
	eventually(t, 60*time.Second, alert+" of "+db, func() error {
		n, ok := r.find(alert, db, "firing")
		if got = n; !ok {
			return fmt.Errorf("received %v", r.all())
		}
		return nil
	})
	for _, annotation := range []string{"summary", "description", "runbook_url"} {
		if text := got.Annotations[annotation]; text == "" || strings.Contains(text, "error expanding") ||
			strings.Contains(text, "{{") {
			t.Errorf("%s: %s is %q", alert, annotation, text)
		}
	}
	if summary := got.Annotations["summary"]; db != "" && !strings.HasPrefix(summary, db+":") {
		t.Errorf("%s: the summary does not begin with the database: %q", alert, summary)
	}
	t.Logf("%s: %s", alert, got.Annotations["summary"])
}

// awaitEnd waits for the notification that the alert is resolved.
func (r *receiver) awaitEnd(t *testing.T, alert, db string) {
	t.Helper()
	eventually(t, 90*time.Second, "the end of "+alert+" of "+db, func() error {
		if _, ok := r.find(alert, db, "resolved"); !ok {
			return fmt.Errorf("received %v", r.all())
		}
		return nil
	})
}

// startAlertmanager runs Debian's Alertmanager, which delivers to the receiver.
func startAlertmanager(t *testing.T, r *receiver) (address string) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config := write(t, dir, "alertmanager.yml", fmt.Sprintf(`
route: {receiver: test, group_by: [alertname, db], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}
receivers:
  - name: test
    webhook_configs: [{url: %q, send_resolved: true}]
`, r.URL))
	start(t, "prometheus-alertmanager", "--config.file="+config, "--storage.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:"+port, "--cluster.listen-address=")
	address = "127.0.0.1:" + port
	eventually(t, 30*time.Second, "alertmanager ready",
		func() error { _, err := get("http://" + address + "/-/ready"); return err })
	return address
}

// Each of five real faults is noticed by sqlwatch, turned into an alert by Prometheus, which
// evaluates the rules of alerts/ with shortened durations, and delivered by Alertmanager. The
// healthy databases beside them cause no alert.
func TestAlertsReachTheReceiver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount small disks")
	}
	dir := t.TempDir()
	small := mountSmall(t, "16m")
	store := s3test.NewProxy(t, startS3(t).url())
	path := map[string]string{}
	for _, db := range []string{"healthy", "idle", "held", "bloated", "cut", "swapped"} {
		path[db] = filepath.Join(dir, db+".db")
	}
	path["full"] = filepath.Join(small, "full.db")
	var config strings.Builder
	for db, file := range path {
		runWriter(t, file, 0.1, 100)
		replicas := ""
		if db == "healthy" || db == "swapped" || db == "cut" {
			replicas = "replicate_to = [replica." + map[bool]string{true: "s3.r", false: "file.good"}[db == "cut"] + "]"
			makeDirectory(t, dir, "replica", db)
		}
		fmt.Fprintf(&config, "database %q {\n  path = %q\n  %s\n}\n", db, file, replicas)
	}
	fmt.Fprintf(&config, "replica \"file\" \"good\" { dir = \"%s/replica/${db.name}\" }\n", dir)
	config.WriteString(s3Replica(store.URL, "alerts", ""))

	d := startDaemon(t, config.String())
	r := startReceiver(t)
	rules, err := os.ReadFile("../../alerts/sqlwatch.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	prometheus := startPrometheus(t, d.url, fmt.Sprintf("rule_files: [%q]\nalerting: {alertmanagers: [{static_configs: "+
		"[{targets: [%q]}]}]}",
		write(t, dir, "rules.yml", faster(string(rules), speed)), startAlertmanager(t, r)))
	for _, db := range []string{"healthy", "cut", "held"} {
		start(t, "python3", "writer.py", path[db], "600", "20")
	}
	before := start(t, "python3", "writer.py", path["swapped"], "600", "20")
	eventually(t, 30*time.Second, "replicas caught up", func() error {
		values, err := query(prometheus, `sqlwatch_replica_caught_up_timestamp_seconds > 0`, "db")
		if err == nil && len(values) != 3 {
			err = fmt.Errorf("caught up: %v", values)
		}
		return err
	})
	// For a quarter of an hour by the rules, which is 15 seconds here, no alert may arrive. Alerts
	// about the machine's own SQLite and disk do not count.
	quiet := time.Now().Add(15 * time.Second)
	eventually(t, 30*time.Second, "a quiet time", func() error {
		if time.Now().Before(quiet) {
			return fmt.Errorf("waiting")
		}
		return nil
	})
	if heard := relevant(r.all()); len(heard) > 0 {
		t.Errorf("before anything was wrong, these fired: %v", heard)
	}

	holdReader(t, path["held"])
	bloat(t, path["bloated"])
	fillDisk(t, small)
	store.Break(func(*http.Request, int) s3test.Fault { return s3test.Reset }) // S4, until Break(nil)
	before.end(syscall.SIGTERM)
	swap(t, path["swapped"])
	r.await(t, "SqlwatchDiscontinuity", "swapped")
	r.await(t, "SqlwatchDiskFilling", "") // one for the file system, however many databases are on it
	r.await(t, "SqlwatchReplicaStale", "cut")
	r.await(t, "SqlwatchUploadsFailing", "cut")
	r.await(t, "SqlwatchReaderPinning", "held")
	r.await(t, "SqlwatchWALOversized", "bloated")
	for _, heard := range relevant(r.all()) {
		if strings.HasSuffix(heard, " healthy") || strings.HasSuffix(heard, " idle") {
			t.Errorf("nothing is wrong there: %s", heard)
		}
	}
	store.Break(nil)
	r.awaitEnd(t, "SqlwatchReplicaStale", "cut")
	r.awaitEnd(t, "SqlwatchUploadsFailing", "cut")
}

// relevant drops alerts that depend on the test's machine: the SQLite version of its Python,
// and how full its disk is.
func relevant(heard []string) []string {
	var rest []string
	for _, h := range heard {
		if !strings.HasPrefix(h, "SqlwatchWALResetBug ") && (!strings.HasPrefix(h, "SqlwatchDiskFilling ") ||
			h == "SqlwatchDiskFilling full") {
			rest = append(rest, h)
		}
	}
	return rest
}

// mountSmall mounts a tmpfs of this size and returns its directory.
func mountSmall(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, "mount", "-t", "tmpfs", "-o", "size="+size, "sqlwatch-e2e", dir)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// bloat commits 600 MB with automatic checkpoints off, and stays connected, so that the WAL
// stays.
func bloat(t *testing.T, db string) {
	t.Helper()
	cmd := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA wal_autocheckpoint=0"); db.execute("PRAGMA synchronous=OFF")
db.execute("CREATE TABLE big(x)")
for _ in range(60): db.execute("INSERT INTO big VALUES (zeroblob(10000000))")
print("written", flush=True); sys.stdin.read()`, db)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
}

// fillDisk leaves a twentieth of a file system free.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	size := int64(fs.Bavail)*fs.Bsize - int64(fs.Blocks)*fs.Bsize/20
	if err := os.WriteFile(filepath.Join(dir, "movie.mkv"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// swap replaces a database by another one, as a deployment or a restore does, and starts an
// application on the new file.
func swap(t *testing.T, db string) {
	t.Helper()
	fresh := db + ".new"
	runWriter(t, fresh, 0.2, 50)
	for _, side := range []string{"-wal", "-shm"} {
		if err := os.Remove(db + side); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(fresh, db); err != nil {
		t.Fatal(err)
	}
	start(t, "python3", "writer.py", db, "600", "5")
}

// faster changes durations and nothing else.
func TestFaster(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"for: 5m":                       "for: 5s",
		"interval: 15s":                 "interval: 1s",
		"increase(x[15m]) > 0":          "increase(x[15s]) > 0",
		"avg_over_time(y[30d:1h])":      "avg_over_time(y[43200s:60s])",
		"z offset 8d":                   "z offset 11520s",
		"time() - x > 10 * 60":          "time() - x > 10 * 1",
		"time() - x > 8 * 86400":        "time() - x > 8 * 1440",
		"sqlite_wal_size_bytes > 512e6": "sqlite_wal_size_bytes > 512e6",
		"y > 14.4 * 0.001":              "y > 14.4 * 0.001",
		"sqlwatch:x:ratio_5m":           "sqlwatch:x:ratio_5m",
	} {
		if got := faster(in, speed); got != want {
			t.Errorf("faster(%q) = %q, want %q", in, got, want)
		}
	}
}
