package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// restoration is what `restore --json` prints.
type restoration struct {
	TXID      uint64    `json:"txid"`
	Timestamp time.Time `json:"timestamp"`
}

// restoreS3 restores into a new file and returns it.
func restoreS3(t *testing.T, url string, args ...string) (path string, r restoration) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "restored.db")
	a := sqlwatch(t, s3KeyID, s3Secret, append(append([]string{"restore", "--json", "-o", path}, args...), url)...)
	if a.code != 0 {
		t.Fatalf("restore %v: %d: %s", args, a.code, a.stderr)
	}
	if err := json.Unmarshal([]byte(a.stdout), &r); err != nil {
		t.Fatalf("restore --json printed %q: %v", a.stdout, err)
	}
	return path, r
}

// syncS3 asks the daemon to make everything durable, and returns its answer.
func syncS3(t *testing.T, d *daemon) error {
	t.Helper()
	if a := sqlwatch(t, s3KeyID, s3Secret, "sync", "--wait", "--config", d.config, "app"); a.code != 0 {
		return fmt.Errorf("sync: %d: %s", a.code, a.stderr)
	}
	return nil
}

// synced waits until everything committed is durable. A daemon that has just started, or that
// was just refused, reports an error and is asked again.
func synced(t *testing.T, d *daemon) {
	t.Helper()
	eventually(t, 30*time.Second, "a sync", func() error { return syncS3(t, d) })
}

// commits lets the unmodified application write for a while; none of its commits may fail.
func commits(t *testing.T, db string, seconds, rate float64) {
	t.Helper()
	var r writerReport
	text := output(t, "python3", "writer.py", db, fmt.Sprint(seconds), fmt.Sprint(rate))
	if err := json.Unmarshal([]byte(text), &r); err != nil || len(r.Errors) > 0 || r.Commits == 0 {
		t.Fatalf("the writer says %s (%v)", text, err)
	}
}

// must ends the test if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The database of an unmodified writer is restored from S3: the newest state, that of a moment
// and that of a TXID.
func TestS3ReplicatesAndRestores(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	db := filepath.Join(t.TempDir(), "app.db")
	commits(t, db, 0.5, 100)
	d := watchS3(t, replicated(db, s3Replica(server.url(), "v1/app", "")))
	url := s3URL(server.url(), "v1/app")

	commits(t, db, 2, 100)
	synced(t, d)
	early := contents(t, db)
	_, first := restoreS3(t, url)
	moment := time.Now().UTC().Format(time.RFC3339Nano)

	commits(t, db, 2, 100)
	synced(t, d)
	late := contents(t, db)
	if early == late {
		t.Fatalf("the writer changed nothing: %s", early)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{late, nil},
		{early, []string{"--timestamp", moment}},
		{early, []string{"--txid", fmt.Sprint(first.TXID)}},
	} {
		path, _ := restoreS3(t, url, c.args...)
		if got := contents(t, path); got != c.want {
			t.Errorf("restore %v: %s, want %s", c.args, got, c.want)
		}
	}
	if a := sqlwatch(t, s3KeyID, s3Secret, "verify", "--config", d.config, "app"); a.code != 0 {
		t.Errorf("verify: %d: %s%s", a.code, a.stdout, a.stderr)
	}
	d.end(syscall.SIGTERM)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	path, _ := restoreS3(t, url)
	if got := contents(t, path); got != late {
		t.Errorf("after the end: %s, want %s", got, late)
	}
}

// Two daemons with state directories of their own replicate to one prefix: different databases
// (C2), or a database and its copy (C3). One of them waits or stops and says why; what the first
// had stored before can be restored.
func TestS3TwoWriters(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"C2", "C3"} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			server := startS3(t)
			url := s3URL(server.url(), "v1/app")
			db, other := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "app.db")
			commits(t, db, 0.5, 100)
			if id == "C3" {
				output(t, "sqlite3", db, "VACUUM INTO '"+other+"'")
			}
			commits(t, other, 0.3, 100)
			one := watchS3(t, replicated(db, s3Replica(server.url(), "v1/app", "")))
			synced(t, one)
			mine := contents(t, db)
			_, before := restoreS3(t, url)

			two := watchS3(t, replicated(other, s3Replica(server.url(), "v1/app", "")))
			stopped, goes := whoStops(t, one, two, db, other)
			survivor := map[*daemon]string{one: db, two: other}[goes]
			synced(t, goes)
			t.Logf("stopped: %s", lastMatch(stopped.output(t), "level=ERROR"))

			path, _ := restoreS3(t, url)
			if got, want := contents(t, path), contents(t, survivor); got != want {
				t.Errorf("newest state: %s, want the survivor's %s", got, want)
			}
			path, _ = restoreS3(t, url, "--txid", fmt.Sprint(before.TXID))
			if got := contents(t, path); got != mine {
				t.Errorf("the first one's history: %s, want %s", got, mine)
			}
		})
	}
}

// whoStops lets both write until the log of one says that there is another writer, and what to
// do.
func whoStops(t *testing.T, one, two *daemon, dbOne, dbTwo string) (stopped, goes *daemon) {
	t.Helper()
	eventually(t, 120*time.Second, "one of two writers stops", func() error {
		commits(t, dbOne, 0.2, 20)
		commits(t, dbTwo, 0.2, 20)
		for _, d := range []*daemon{one, two} {
			text := d.output(t)
			told := strings.Contains(text, "another writer") || strings.Contains(text, "another database's history")
			if told && strings.Contains(text, "a prefix of its own") {
				stopped, goes = d, two
				if d == two {
					goes = one
				}
				return nil
			}
		}
		return errors.New("both go on")
	})
	return stopped, goes
}

func lastMatch(text, word string) string {
	found := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = strings.TrimSpace(line)
		}
	}
	return found
}

// The server is down at the start and again later: the application notices nothing, its commits
// wait in a spool, and seconds after the server is back the replica has everything (S2, I13).
func TestS3Outage_S2(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	server.stop()
	db := filepath.Join(t.TempDir(), "app.db")
	commits(t, db, 0.5, 100)
	d := watchS3(t, replicated(db, s3Replica(server.url(), "v1/app", "")))
	commits(t, db, 3, 200)
	server.start()
	caughtUpWithin(t, d, server, db, 20*time.Second)

	server.stop()
	commits(t, db, 10, 200)
	spool := directorySize(t, filepath.Join(d.dir, "state"))
	if limit := int64(64 << 20); spool > limit {
		t.Errorf("the state directory holds %d bytes after 10 s without the store", spool)
	}
	t.Logf("state directory after 10 s without the store: %d bytes", spool)
	server.start()
	caughtUpWithin(t, d, server, db, 20*time.Second)
}

// caughtUpWithin waits, without requesting a sync, until the replica has everything.
func caughtUpWithin(t *testing.T, d *daemon, server *s3Server, db string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	eventually(t, limit, "the replica has caught up by itself", func() error {
		page, err := get(d.url + "/metrics")
		if err != nil {
			return err
		}
		if lag := sample(page, "sqlwatch_replica_lag_seconds"); lag != "0" || sample(page, "sqlwatch_replica_txid") == "0" {
			return fmt.Errorf("lag %s", lag)
		}
		return nil
	})
	t.Logf("caught up %s after the server's return", time.Since(began).Round(time.Millisecond))
	path, _ := restoreS3(t, s3URL(server.url(), "v1/app"))
	if got, want := contents(t, path), contents(t, db); got != want {
		t.Errorf("restored %s, want %s", got, want)
	}
}

// sample returns the first value of a metric on a page.
func sample(page, name string) string {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok {
			_, v, _ := strings.Cut(rest, "} ")
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func directorySize(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	text := output(t, "du", "-sb", dir)
	if _, err := fmt.Sscan(text, &bytes); err != nil {
		t.Fatalf("du printed %q: %v", text, err)
	}
	return bytes
}

// An idle database costs nothing: no request in a minute (I11, D44).
func TestS3Idle_I11_D44(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	proxy := s3test.NewProxy(t, server.url())
	db := filepath.Join(t.TempDir(), "app.db")
	holder := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"); db.execute("CREATE TABLE t(x)")
print("open", flush=True); sys.stdin.read()`, db)
	stdin, err := holder.StdinPipe()
	must(t, err)
	stdout, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	t.Cleanup(func() { stdin.Close(); _ = holder.Wait() })
	_, err = stdout.Read(make([]byte, 8))
	must(t, err)

	d := watchS3(t, replicated(db, s3Replica(proxy.URL, "v1/app", "")))
	synced(t, d)
	settled, at, last := 0, time.Now(), 0
	// The window of the first compaction closes within a minute of the first upload.
	eventually(t, 80*time.Second, "a minute without a request", func() error {
		if settled = total(proxy.Requests()); settled != last {
			last, at = settled, time.Now()
		}
		if quiet := time.Since(at); quiet < time.Minute {
			return fmt.Errorf("quiet for %s after %d requests", quiet.Round(time.Second), settled)
		}
		return nil
	})
	by := proxy.Requests()
	t.Logf("requests before the quiet minute: %v", by)
	wal, err := os.Stat(db + "-wal")
	must(t, err)
	t.Logf("-wal last written %s ago", time.Since(wal.ModTime()).Round(time.Second))
	if time.Since(wal.ModTime()) < time.Minute {
		t.Error("something wrote to the WAL of an idle database")
	}
}
