package daemon

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The log of a healthy day says at the start what listens, what is replicated where, and how much
// is sent first; then nothing, however much the application writes.
func TestLogOfAHealthyDay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "app.db")
	python(t, app, `db.execute("pragma journal_mode=wal"); db.execute("create table t(x)")`)
	d := serving(t, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.local]
}
replica "file" "local" { dir = "%s/replica" }
`, app, dir), nil)
	writer := exec.Command("/usr/bin/python3", "-c", `
import select, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    db.execute("insert into t values(randomblob(5000))")
db.close()`, app)
	theEnd, err := writer.StdinPipe() // closing it makes the writer end as applications do
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = writer.Process.Kill(); _ = writer.Wait() })
	txid := regexp.MustCompile(`(?m)^sqlwatch_replica_txid\{db="app",replica="file.local"\} (\S+)$`)
	reaches := func(least float64) func() bool {
		return func() bool {
			found := txid.FindStringSubmatch(d.page(t, "/metrics"))
			if found == nil {
				return false
			}
			at, err := strconv.ParseFloat(found[1], 64)
			return err == nil && at >= least
		}
	}
	poll(t, "the first uploads", reaches(2))
	atStart := d.log.String()
	poll(t, "some more uploads", reaches(8))
	if grown := strings.TrimPrefix(d.log.String(), atStart); grown != "" {
		t.Errorf("all is well, and the log says:\n%s", grown)
	}
	want := []string{
		`level=INFO msg="sqlwatch is starting" .*listen=`,
		`level=INFO msg="Listening on" `, `level=INFO msg="TLS is disabled."`,
		`level=INFO msg="replicating app to file://\S*/replica: first snapshot of \S+ kB"`,
		`level=INFO msg=measuring db=app path=\S+ wal="?\d+(\.\d)? k?B"? engine=`,
	}
	lines := strings.Split(strings.TrimSpace(atStart), "\n")
	for _, line := range want {
		expression := regexp.MustCompile(line)
		found := false
		for i, l := range lines {
			if found = expression.MatchString(l); found {
				lines = append(lines[:i], lines[i+1:]...)
				break
			}
		}
		if !found {
			t.Errorf("no line is %s in\n%s", line, atStart)
		}
	}
	if len(lines) > 0 {
		t.Errorf("more is said at the start than anybody wants to know:\n%s", strings.Join(lines, "\n"))
	}
	if err := theEnd.Close(); err != nil {
		t.Fatal(err)
	}
	if err := writer.Wait(); err != nil {
		t.Fatalf("the writer: %v", err)
	}
	d.stop()
	if end := strings.TrimPrefix(d.log.String(), atStart); strings.Count(end, "\n") > 2 ||
		!strings.Contains(end, "sqlwatch has stopped") || strings.Contains(end, "level=WARN") {
		t.Errorf("at the end the log says:\n%s", end)
	}
}
