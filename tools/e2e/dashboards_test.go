package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dashboardPanel is the part of a dashboard's panel that the test reads.
type dashboardPanel struct {
	Type, Title string
	Targets     []struct {
		Expr    string
		Instant bool
	}
}

// emptyHere are the panels that may have no data in this test, and why.
var emptyHere = map[string]string{
	"Error budget left":              "needs an hour",
	"Budget left of 30 days":         "needs an hour",
	"Longest since a restore drill":  "the scene has no drill",
	"Time to restore":                "the scene has no drill",
	"Requests":                       "a replica in a directory is asked nothing",
	"Requests that failed":           "nothing failed",
	"Duration of requests":           "a replica in a directory is asked nothing",
	"How long writers keep the lock": "needs eBPF",
	"Alerts":                         "nothing fires",
	"Checkpoints that fell short":    "what never happened has no series",
	"Drills that failed":             "what never happened has no series",
	"Discontinuities":                "what never happened has no series",
	"Actions that fell short":        "what never happened has no series",
	"Refusals":                       "what never happened has no series",
	"Faults of sqlwatch":             "what never happened has no series",
	"Not written to":                 "what never happened has no series",
	"Files lost":                     "what never happened has no series",
	"Refused locks":                  "what never happened has no series",
	"Tuned values":                   "no policy of the scene tunes",
	"Notifications":                  "the scene has no notifier",
}

// Every query of every dashboard runs against a real Prometheus that scrapes a real sqlwatch
// beside real applications, and returns data.
func TestDashboardsShowData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app, held := filepath.Join(dir, "app.db"), filepath.Join(dir, "held.db")
	runWriter(t, app, 0.2, 100)
	runWriter(t, held, 0.2, 100)
	reader := holdReader(t, held)
	makeDirectory(t, dir, "replica", "app")
	d := startDaemon(t, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.local]
}
database "held" { path = %q }
replica "file" "local" { dir = "%s/replica/${db.name}" }
window "always" {
  cron     = "* * * * *"
  duration = "2m"
}
policy "shrink" {
  when     = wal.bytes > bytes("100kB")
  window   = window.always
  cooldown = "1s"
  checkpoint { stall_budget = "500ms" }
}`, app, held, dir))
	prometheus := startPrometheus(t, d.url, fmt.Sprintf("rule_files: [%q]",
		absolutePath(t, "../../alerts/sqlwatch.rules.yml")))
	for _, db := range []string{app, held} {
		start(t, "python3", "writer.py", db, "300", "100")
	}
	var counted float64
	eventually(t, 60*time.Second, "checkpoints to show", func() error {
		values, err := query(prometheus, `sum by (db) (increase(sqlwatch_checkpoint_reclaimed_bytes_total[10s]))`, "db")
		if counted = values["app"]; err == nil && counted == 0 {
			err = fmt.Errorf("nothing reclaimed")
		}
		return err
	})
	eventually(t, 60*time.Second, "recording rules", func() error {
		values, err := query(prometheus, `sqlwatch:replica_objective_missed:ratio_6h`, "db")
		if err == nil && len(values) == 0 {
			err = fmt.Errorf("not recorded")
		}
		return err
	})
	files, err := filepath.Glob("../../dashboards/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("dashboards %v, %v", files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) { askEverything(t, prometheus, path) })
	}
	reader.end()
}

// askEverything runs the queries and annotations of one dashboard.
func askEverything(t *testing.T, prometheus, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels      []dashboardPanel
		Annotations struct {
			List []struct{ Name, Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries++
			points, err := ask(prometheus, target.Expr, target.Instant)
			if err != nil {
				t.Errorf("panel %q: %v\n%s", p.Title, err, target.Expr)
			} else if points == 0 && emptyHere[p.Title] == "" {
				t.Errorf("panel %q has no data\n%s", p.Title, target.Expr)
			}
		}
	}
	for _, a := range board.Annotations.List {
		if points, err := ask(prometheus, a.Expr, false); err != nil || points == 0 && a.Name != "Alerts" {
			t.Errorf("annotation %q: %d points, %v\n%s", a.Name, points, err, a.Expr)
		}
	}
	if queries < 15 {
		t.Errorf("only %d queries", queries)
	}
}

// ask runs one query with the dashboard's variables filled in, as Grafana does, and returns
// the number of values.
func ask(prometheus, expr string, instant bool) (int, error) {
	expr = strings.NewReplacer("$__rate_interval", "10s", "$__range", "30s", "$job", "sqlwatch", "$instance",
		"127.0.0.1:.+", "$db", "app|held").Replace(expr)
	if strings.Contains(expr, "$") {
		return 0, fmt.Errorf("a variable was not filled in: %s", expr)
	}
	now := time.Now().Unix()
	address := fmt.Sprintf("%s/api/v1/query?query=%s", prometheus, url.QueryEscape(expr))
	if !instant {
		address = fmt.Sprintf("%s/api/v1/query_range?query=%s&start=%d&end=%d&step=2", prometheus, url.QueryEscape(expr),
			now-19, now+1)
	}
	text, err := get(address)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status   string
		Warnings []string
		Data     struct {
			Result []struct {
				Value  [2]any
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return 0, fmt.Errorf("%s: %v", answer.Status, answer.Warnings)
	}
	points := 0
	for _, r := range answer.Data.Result {
		for _, v := range append(r.Values, r.Value) {
			text, _ := v[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
				points++
			}
		}
	}
	return points, nil
}

func makeDirectory(t *testing.T, elements ...string) string {
	t.Helper()
	path := filepath.Join(elements...)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func absolutePath(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// heldReader is an application that forgot to end its read transaction.
type heldReader struct{ end func() }

func holdReader(t *testing.T, db string) heldReader {
	t.Helper()
	cmd := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN"); db.execute("SELECT count(*) FROM t").fetchall()
print("reading", flush=True); sys.stdin.read()`, db)
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
	ended := false
	end := func() {
		if !ended {
			ended = true
			stdin.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	return heldReader{end: end}
}
