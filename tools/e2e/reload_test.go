package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// envReloads is the environment variable for the seconds that TestReloadStorm_C9_F14 lasts; 12 if
// it is not set.
const envReloads = "SQLWATCH_TEST_RELOAD_SECONDS"

// reloaded is a daemon with two replicated databases, each written to by a process of its own,
// whose policies have acted once and then pause for a day.
type reloaded struct {
	*daemon
	t       *testing.T
	data    string // where databases and replicas are
	good    string // the valid configuration
	writers map[string]*exec.Cmd
	ends    map[string]*os.File // closing one ends its writer
	out     map[string]*strings.Builder
}

// endless commits ten times a second until its input ends.
const endless = `
import select, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body TEXT)")
while not select.select([sys.stdin], [], [], 0.1)[0]:
    db.execute("INSERT INTO t(body) VALUES (?)", ("x" * 300,))
print(db.execute("SELECT count(*) FROM t").fetchone()[0])
`

func newReloaded(t *testing.T, extra string) *reloaded {
	t.Helper()
	dir := t.TempDir()
	r := &reloaded{t: t, data: dir, writers: map[string]*exec.Cmd{}, ends: map[string]*os.File{},
		out: map[string]*strings.Builder{}}
	for _, db := range []string{"app", "other"} {
		r.write(db, filepath.Join(dir, db+".db"))
	}
	// The databases come last: a half-written file lacks its end first.
	r.daemon = startDaemon(t, fmt.Sprintf(`
replica "file" "r" {
  dir        = "%[1]s/replica/${db.name}"
  sync_every = "100ms"
}
%[2]s
policy "keep" {
  when     = wal.frames > 1
  cooldown = "24h"
  checkpoint {
    step "passive" {}
  }
}
database "app" {
  path         = "%[1]s/app.db"
  replicate_to = [replica.file.r]
}
database "other" {
  path         = "%[1]s/other.db"
  replicate_to = [replica.file.r]
}
`, dir, extra))
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.good = string(text)
	eventually(t, time.Minute, "the policies have acted and the replicas have come so far", func() error {
		for _, db := range []string{"app", "other"} {
			if got := r.acted(db); got != 1 {
				return fmt.Errorf("%s: %d actions", db, got)
			}
			output(t, binary, "sync", "--wait", "--config", r.config, db)
		}
		return nil
	})
	return r
}

// write starts a database's application.
func (r *reloaded) write(db, path string) {
	r.t.Helper()
	input, end, err := os.Pipe()
	must(r.t, err)
	cmd := exec.Command("python3", "-c", endless, path)
	r.out[db] = &strings.Builder{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, r.out[db], os.Stderr
	must(r.t, cmd.Start())
	input.Close()
	r.writers[db], r.ends[db] = cmd, end
	r.t.Cleanup(func() {
		end.Close()
		_ = cmd.Wait()
	})
}

// stop ends a database's application and returns the number of rows.
func (r *reloaded) stop(db string) string {
	r.t.Helper()
	r.ends[db].Close()
	must(r.t, r.writers[db].Wait())
	return strings.TrimSpace(r.out[db].String())
}

// acted counts the policy's actions on a database, in this run of the daemon and all earlier
// ones.
func (r *reloaded) acted(db string) (n int) {
	text, err := os.ReadFile(filepath.Join(r.dir, "state", "decisions.jsonl"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var e struct {
			DB     string
			Action *struct {
				Policy string
				OK     bool
			}
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.DB == db && e.Action != nil && e.Action.Policy == "keep" &&
			e.Action.OK {
			n++
		}
	}
	return n
}

// reload writes a text into the configuration file in place, as an editor does, and reloads it.
func (r *reloaded) reload(text string) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.config, []byte(text), 0o600))
	must(r.t, r.cmd.Process.Signal(syscall.SIGHUP))
}

// series returns the value of one series in /metrics; "" if it is absent.
func (r *reloaded) series(name string) string {
	r.t.Helper()
	page, err := get(r.url + "/metrics")
	must(r.t, err)
	for line := range strings.Lines(page) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// settle reloads the good configuration and waits until it is in force.
func (r *reloaded) settle() {
	r.t.Helper()
	r.reload(r.good)
	eventually(r.t, time.Minute, "the good configuration is in force", func() error {
		page, err := get(r.url + "/metrics")
		if err != nil {
			return err
		}
		for _, want := range []string{"sqlwatch_config_last_reload_successful 1", `sqlite_up{db="app"} 1`,
			`sqlite_up{db="other"} 1`} {
			if !strings.Contains(page, want) {
				return fmt.Errorf("no %q", want)
			}
		}
		return nil
	})
}

// files lists the daemon's descriptors of files, as number and name.
func (r *reloaded) files() (open []string) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	must(r.t, err)
	for _, e := range entries {
		name, err := os.Readlink(filepath.Join(dir, e.Name()))
		passing := strings.Contains(name, "/.sqlwatch-tmp-") // is being written at the moment
		if err == nil && strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "/dev/") && !passing {
			open = append(open, e.Name()+" "+name)
		}
	}
	return open
}

// of returns those whose name ends in one of the suffixes.
func of(open []string, suffixes ...string) (some []string) {
	for _, name := range open {
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			some = append(some, name)
		}
	}
	return some
}

// names returns the descriptors' names, sorted.
func names(open []string) (out []string) {
	for _, one := range open {
		_, name, _ := strings.Cut(one, " ")
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// snapshots counts the full copies of each database in the replica.
func (r *reloaded) snapshots() map[string]int {
	r.t.Helper()
	n := map[string]int{}
	dir := filepath.Join(r.data, "replica")
	must(r.t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(path, "/ltx/9/") {
			rel, _ := filepath.Rel(dir, path)
			n[strings.Split(rel, "/")[0]]++
		}
		return err
	}))
	return n
}

// wantWhole restores a database, and checks its integrity and number of rows.
func (r *reloaded) wantWhole(db, rows string) {
	r.t.Helper()
	output(r.t, binary, "sync", "--wait", "--config", r.config, db)
	restored := filepath.Join(r.t.TempDir(), db)
	output(r.t, binary, "restore", "--config", r.config, "-o", restored, db)
	got := output(r.t, "sqlite3", "file:"+restored+"?immutable=1", "PRAGMA integrity_check; SELECT count(*) FROM t")
	if got != "ok\n"+rows+"\n" {
		r.t.Errorf("%s: the restored database says %q, its application made %s rows", db, got, rows)
	}
}

// While databases are written to, the configuration is reloaded again and again: valid, changed,
// invalid, empty, missing, and cut off further and further on, as if an editor were writing it.
// No timer, cooldown, position in a replica or descriptor is lost, and the connections of a
// database that every valid configuration names are never reopened.
func TestReloadStorm_C9_F14(t *testing.T) {
	t.Parallel()
	seconds := 12
	if text := os.Getenv(envReloads); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		seconds = n
	}
	r := newReloaded(t, "")
	before, copies := r.files(), r.snapshots()
	const extra = "policy \"extra\" {\n  when = wal.bytes > bytes(\"1GB\")\n  sync {}\n}\n"
	changed := strings.Replace(r.good, "database \"app\"", extra+"database \"app\"", 1)
	moved := strings.Replace(r.good, `"24h"`, `"12h"`, 1)
	texts := []string{r.good, "", changed, "database \"app\" {\n", r.good + "policy \"keep\" {}\n", moved, "\x00\xff"}
	began, reloads := time.Now(), 0
	length := time.Duration(seconds) * time.Second
	for time.Since(began) < length {
		if reloads%3 == 0 { // how far the editor has written
			n := int(float64(len(r.good)) * float64(time.Since(began)) / float64(length))
			r.reload(r.good[:min(n, len(r.good))])
		} else {
			r.reload(texts[reloads%len(texts)])
		}
		if reloads++; reloads%50 == 0 {
			must(t, os.Remove(r.config))
			must(t, r.cmd.Process.Signal(syscall.SIGHUP))
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.settle()
	eventually(t, time.Minute, "the same files are open as before", func() error {
		if now := r.files(); !slices.Equal(names(now), names(before)) {
			return fmt.Errorf("open are\n%s\nbefore\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
		}
		return nil
	})
	now := r.files()
	if app := []string{"/app.db", "/app.db-wal", "/app.db-shm"}; !slices.Equal(of(now, app...), of(before, app...)) {
		t.Errorf("descriptors of the database that stayed: %q, before %q", of(now, app...), of(before, app...))
	}
	page, err := get(r.url + "/metrics")
	must(t, err)
	if strings.Contains(page, `sqlwatch_replica_discontinuities_total{db="app"`) {
		t.Error("continuity was not proven for the database that stayed")
	}
	if got := r.snapshots(); fmt.Sprint(got) != fmt.Sprint(copies) || len(copies) != 2 {
		t.Errorf("full copies %v, before %v", got, copies)
	}
	// The timers still run: both databases are measured.
	for _, db := range []string{"app", "other"} {
		commits := fmt.Sprintf("sqlite_wal_commits_total{db=%q}", db)
		first := r.series(commits)
		eventually(t, time.Minute, db+" is measured", func() error {
			if now := r.series(commits); now == first || now == "" {
				return fmt.Errorf("still %q commits", now)
			}
			return nil
		})
		if n := r.acted(db); n != 1 {
			t.Errorf("%s: the policy has acted %d times within its cooldown", db, n)
		}
		r.wantWhole(db, r.stop(db))
	}
	t.Logf("%d reloads in %s", reloads, time.Since(began).Round(time.Second))
}

// A database that is removed from the configuration in the middle of an upload, and added
// again, continues where it was.
func TestRemovedWhileUploading_F11(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, "uploads { bandwidth = \"64KB\" }\n")
	copies := r.snapshots()
	without := r.good[:strings.Index(r.good, "database \"other\"")]
	for range 3 {
		must(t, exec.Command("sqlite3", filepath.Join(r.data, "other.db"), ".timeout 20000",
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300) "+
				"INSERT INTO t(body) SELECT hex(randomblob(500)) FROM n").Run())
		eventually(t, time.Minute, "an upload is under way", func() error {
			pending := r.series(`sqlwatch_replica_pending_bytes{db="other",replica="file.r"}`)
			if n, _ := strconv.ParseFloat(pending, 64); n < 50e3 {
				return fmt.Errorf("%q bytes are pending", pending)
			}
			return nil
		})
		r.reload(without)
		eventually(t, time.Minute, "it is gone", func() error {
			page, err := get(r.url + "/metrics")
			if err == nil && strings.Contains(page, `db="other"`) {
				err = fmt.Errorf("it is there")
			}
			return err
		})
		r.settle()
	}
	if got := r.snapshots(); fmt.Sprint(got) != fmt.Sprint(copies) || len(copies) != 2 {
		t.Errorf("full copies %v, before %v", got, copies)
	}
	for _, db := range []string{"other", "app"} {
		if n := r.acted(db); n != 1 {
			t.Errorf("%s: the policy has acted %d times within its cooldown", db, n)
		}
		r.wantWhole(db, r.stop(db))
	}
}
