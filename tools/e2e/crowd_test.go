package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// flood is an application that commits tiny transactions without a pause.
type flood struct {
	cmd       *exec.Cmd
	committed atomic.Int64
	done      chan struct{}
}

const floodApplication = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("PRAGMA synchronous=NORMAL")
n = 0
while True:
    db.execute("INSERT INTO t(body) VALUES ('x')")
    n += 1
    if n % 100 == 0:
        print(n, flush=True)
`

func startFlood(t *testing.T, db string) *flood {
	t.Helper()
	f := &flood{cmd: exec.Command("python3", "-c", floodApplication, db), done: make(chan struct{})}
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	must(t, err)
	must(t, f.cmd.Start())
	begun := time.Now()
	go func() {
		defer close(f.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				f.committed.Store(n)
			}
		}
	}()
	t.Cleanup(func() {
		f.end()
		t.Logf("%.0f commits a second", float64(f.committed.Load())/time.Since(begun).Seconds())
	})
	return f
}

func (f *flood) end() {
	if f.cmd.ProcessState == nil {
		_ = f.cmd.Process.Kill()
		<-f.done
		_ = f.cmd.Wait()
	}
}

// crowdApplication commits once in each of its databases for every line that it reads.
const crowdApplication = `
import sqlite3, sys
dbs = [sqlite3.connect(path, isolation_level=None) for path in sys.argv[1:]]
for db in dbs:
    db.execute("PRAGMA cache_size=10")
for line in sys.stdin:
    for db in dbs:
        db.execute("INSERT INTO t VALUES (NULL, 'together')")
    print(len(dbs), flush=True)
`

// A hundred idle databases are written to at the same moment, twice: the application meets no
// error, every replica catches up, and a restored database has every row.
func TestManyWakeTogether_C12(t *testing.T) {
	t.Parallel()
	const count = 100
	program, err := withoutRace()
	must(t, err)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, os.Mkdir(data, 0o700))
	template, err := os.ReadFile(makeWAL(t, filepath.Join(dir, "template.db")))
	must(t, err)
	paths := []string{"-c", crowdApplication}
	for n := range count {
		path := filepath.Join(data, fmt.Sprintf("db%03d.db", n))
		must(t, os.WriteFile(path, template, 0o600))
		paths = append(paths, path)
	}
	app := &lineApplication{t: t, cmd: exec.Command("python3", paths...)}
	in, err := app.cmd.StdinPipe()
	must(t, err)
	out, err := app.cmd.StdoutPipe()
	must(t, err)
	app.cmd.Stderr = os.Stderr
	must(t, app.cmd.Start())
	t.Cleanup(app.kill)
	app.stdin, app.stdout = io.Writer(in), bufio.NewReader(out)
	app.do("")
	d := startDaemonIn(t, dir, []string{program}, fmt.Sprintf(`
database "crowd" {
  glob         = "%s/*.db"
  name         = path_element(db.path, -1)
  replicate_to = [replica.file.r]
}
replica "file" "r" {
  dir        = "%s/replica/${db.name}"
  sync_every = "1s"
}
`, data, dir))
	current := func(since time.Time) {
		t.Helper()
		eventually(t, 2*patience, "all are current", func() error { return allCurrent(d.url, count, since) })
	}
	current(time.Now())
	for range 2 {
		app.do("")
		current(time.Now())
	}
	for _, name := range []string{"db000.db", "db049.db", "db099.db"} {
		restored := filepath.Join(t.TempDir(), name)
		output(t, binary, "restore", "-o", restored, "file://"+filepath.Join(dir, "replica", name))
		if got := strings.TrimSpace(output(t, "sqlite3", restored, "SELECT count(*) FROM t")); got != "4" {
			t.Errorf("%s has %s rows, 4 were committed", name, got)
		}
	}
}

var caughtUp = regexp.MustCompile(`(?m)^sqlwatch_replica_caught_up_timestamp_seconds\{.*\} (\S+)$`)

// allCurrent returns an error unless count replicas hold everything that was committed before
// since.
func allCurrent(url string, count int, since time.Time) error {
	text, err := get(url + "/metrics?name[]=sqlwatch_replica_caught_up_timestamp_seconds")
	if err != nil {
		return err
	}
	current := 0
	for _, m := range caughtUp.FindAllStringSubmatch(text, -1) {
		if at, err := strconv.ParseFloat(m[1], 64); err == nil && at >= float64(since.UnixMicro())/1e6 {
			current++
		}
	}
	if current < count {
		return fmt.Errorf("%d of %d", current, count)
	}
	return nil
}
