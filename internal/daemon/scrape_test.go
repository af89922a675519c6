package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// served is a complete daemon that runs, with its listeners.
type served struct {
	*Daemon
	url, dir string
	log      *output
	stop     func() // ends it, once
}

// serving runs a daemon on a configuration until the test ends.
func serving(t *testing.T, configuration string, change func(*Options)) *served {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "sqlwatch.hcl")
	server := fmt.Sprintf("server {\n  listen = \"127.0.0.1:0\"\n  admin = \"unix://%s/run/admin.sock\"\n"+
		"  state_dir = \"%s/state\"\n}\n", dir, dir)
	if err := os.WriteFile(path, []byte(server+configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func() (*config.Config, error) {
		cfg, diags := config.Load(path, os.LookupEnv)
		if diags.HasErrors() {
			return nil, diags
		}
		return cfg, nil
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{dir: dir, log: &output{}}
	listening := make(chan string, 1)
	o := Options{Config: cfg, Load: load, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
		Ready: func(addresses []string) { listening <- addresses[0] }}
	if change != nil {
		change(&o)
	}
	if s.Daemon, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("log:\n%.8000s", s.log.String())
		}
	})
	select {
	case address := <-listening:
		s.url = "http://" + address
	case err := <-ended:
		t.Fatalf("the daemon did not start: %v", err)
	}
	poll(t, "the watchdog is ready", s.watchdog.Ready)
	return s
}

// page returns what is served at a path.
func (s *served) page(t *testing.T, path string) string {
	t.Helper()
	answer, err := http.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%.500s", path, answer.Status, err, text.String())
	}
	return text.String()
}

// python runs a program of the application to its end; db is a connection.
func python(t *testing.T, path, program string) {
	t.Helper()
	out, err := exec.Command("/usr/bin/python3", "-c", "import sqlite3, sys\n"+
		"db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"+program, path).CombinedOutput()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, out)
	}
}

// application keeps a database open, as applications do, until the test ends.
func application(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", "import sqlite3, sys\n"+
		"db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"+
		"db.execute('pragma journal_mode=wal'); db.execute('pragma wal_autocheckpoint=0')\n"+
		"db.execute('create table if not exists t(x)')\n"+
		"print('open', flush=True); sys.stdin.read()", path)
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
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if _, err := stdout.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

// ourSeries returns the lines of a page that are series of sqlite_* or sqlwatch_*.
func ourSeries(page string) []string {
	return regexp.MustCompile(`(?m)^(?:sqlite|sqlwatch)_.*$`).FindAllString(page, -1)
}

// goneWrong matches a series that exists because something went wrong; how often that happens is
// up to the machine.
var goneWrong = regexp.MustCompile(`^(\w+_failures_total|sqlite_busy_total|sqlwatch_condition)\{`)

// dueToOneDatabase counts the series of the database and its replica: those that exist while all
// is well, and those that exist because something went wrong. It does not count what the daemon
// says of itself.
func dueToOneDatabase(page string) (atWork, wrong int) {
	for _, line := range ourSeries(page) {
		switch {
		case goneWrong.MatchString(line):
			wrong++
		case strings.Contains(line, `db="app"`), strings.Contains(line, `replica="file.local"`):
			atWork++
		}
	}
	return atWork, wrong
}

// A database with a replica and a policy costs at most 90 series, at rest and at work, its
// replica's histograms included; with all detail it has the series that there were before that
// limit.
func TestSeriesOfAReplicatedDatabase_H7(t *testing.T) {
	t.Parallel()
	const most = 90
	for _, detail := range []bool{false, true} {
		t.Run(fmt.Sprintf("detail=%v", detail), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			app := filepath.Join(dir, "app.db")
			application(t, app)
			d := serving(t, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.local]
}
replica "file" "local" { dir = "%s/replica" }
policy "shrink" {
  when     = wal.bytes > bytes("100kB")
  cooldown = "1s"
  checkpoint {
    stall_budget = "500ms"
    step "passive" {}
    step "truncate" {}
  }
}`, app, dir), func(o *Options) { o.Detail = detail })
			poll(t, "the replica is complete", func() bool {
				return !strings.Contains(d.page(t, "/metrics"), "sqlwatch_replica_caught_up_timestamp_seconds{db=\"app\","+
					"replica=\"file.local\"} 0\n")
			})
			atRest := ourSeries(d.page(t, "/metrics"))
			python(t, app, `[db.execute("insert into t values(randomblob(4000))") for _ in range(100)]`)
			var page string
			poll(t, "the policy has acted", func() bool {
				page = d.page(t, "/metrics")
				return !strings.Contains(page, "sqlwatch_checkpoint_reclaimed_bytes_total{db=\"app\"} 0\n")
			})
			ours := ourSeries(page)
			atWork, wrong := dueToOneDatabase(page)
			t.Logf("%d series at rest; at work %d, of which the database and its replica have %d, and %d for what went wrong",
				len(atRest), len(ours), atWork, wrong)
			if detail {
				if len(ours) < 2*most || !strings.Contains(page, `failures_total{db="app",operation="put",`+
					`reason="auth",replica="file.local"} 0`) {
					t.Errorf("detail shows %d series", len(ours))
				}
				return
			}
			if len(atRest) > most || atWork > most {
				t.Errorf("more than %d series:\n%s", most, page)
			}
			if never := regexp.MustCompile(`(?m)^sqlwatch_.*failures_total.* 0$`).FindString(page); never != "" {
				t.Errorf("a failure that never happened is there: %s", never)
			}
		})
	}
}
