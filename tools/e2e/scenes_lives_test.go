package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests below are about applications that come and go, and operators who work on the files in
// between.

// lived is a database with a directory replica, and the daemon that watches it.
type lived struct {
	t      *testing.T
	dir    string
	db     string
	daemon *daemon
}

func newLived(t *testing.T) *lived {
	t.Helper()
	dir := t.TempDir()
	l := &lived{t: t, dir: dir, db: makeWAL(t, filepath.Join(dir, "app.db"))}
	l.daemon = startDaemonIn(t, dir, []string{binary}, l.body())
	l.synced()
	return l
}

func (l *lived) body() string {
	return fmt.Sprintf("database \"app\" {\n  path = %q\n  replicate_to = [replica.file.r]\n}\n"+
		"replica \"file\" \"r\" {\n  dir = %q\n}\n", l.db, filepath.Join(l.dir, "replica"))
}

func (l *lived) synced() {
	l.t.Helper()
	waitForSync(l.t, l.daemon.config)
}

// life runs a Python application on the database to its end; db is its connection.
func (l *lived) life(program string) string {
	l.t.Helper()
	return output(l.t, "/usr/bin/python3", "-c", `
import os, sqlite3, sys, time
path = sys.argv[1]
def connect():
    return sqlite3.connect(path, isolation_level=None, timeout=5)
def rows():
    return db.execute("SELECT count(*) FROM t").fetchone()[0]
db = connect(); db.execute("PRAGMA journal_mode=WAL")
`+program, l.db)
}

// replica returns what a query prints on a restored copy.
func (l *lived) replica(query string) string {
	l.t.Helper()
	restored := filepath.Join(l.t.TempDir(), "restored.db")
	output(l.t, binary, "restore", "-o", restored, "file://"+filepath.Join(l.dir, "replica"))
	return strings.TrimSpace(output(l.t, "sqlite3", restored, query))
}

// comparisons counts how often continuity was not proven.
func (l *lived) comparisons() (n float64) {
	l.t.Helper()
	text, err := get(l.daemon.url + "/metrics?name[]=sqlwatch_replica_discontinuities_total")
	must(l.t, err)
	for line := range strings.Lines(text) {
		var v float64
		if _, value, ok := strings.Cut(line, "} "); ok && !strings.HasPrefix(line, "#") {
			_, err := fmt.Sscan(value, &v)
			must(l.t, err)
			n += v
		}
	}
	return n
}

// An application opens, commits and closes for each request, fifty times a second and then
// slowly: nothing is missed, without a comparison. After its last close there are no side files,
// and the next start of sqlwatch needs no comparison either.
func TestOpenCommitClose(t *testing.T) {
	t.Parallel()
	l := newLived(t)
	lives := func(n int, pause float64) {
		l.life(fmt.Sprintf(`
db.close()
for i in range(%d):
    db = connect(); db.execute("INSERT INTO t VALUES (NULL, 'x')"); db.close()
    time.sleep(%g)`, n, pause))
	}
	lives(250, 0.02)
	lives(3, 3)
	eventually(t, 90*time.Second, "the side files are gone", func() error {
		for _, side := range []string{"-wal", "-shm"} {
			if _, err := os.Stat(l.db + side); err == nil {
				return fmt.Errorf("%s is there", side)
			}
		}
		return nil
	})
	l.synced()
	if n := l.comparisons(); n != 0 {
		t.Errorf("%g comparisons while the application opened, committed and closed", n)
	}
	l.daemon.end(syscall.SIGTERM)
	l.daemon = startDaemonIn(t, l.dir, []string{binary}, l.body())
	l.synced()
	if n := l.comparisons(); n != 0 {
		t.Errorf("%g comparisons at the next start", n)
	}
	if got := l.replica("SELECT count(*) FROM t"); got != "254" {
		t.Errorf("the replica has %s rows of 254", got)
	}
}

// An operator stops an application, puts a copy in place a second later, and starts the
// application another second later: the application finds that copy, and so does the replica.
func TestCopyPutInPlace_D4(t *testing.T) {
	for how, command := range map[string][]string{
		"mv":      {"mv"},
		"cp":      {"cp"},
		"rsync":   {"rsync"},
		"restore": {"sh", "-c", `sqlite3 "$1" ".restore $0"`},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("no %s here", command[0])
			}
			l := newLived(t)
			for i := range 4 {
				l.life(fmt.Sprintf(`
for i in range(%d):
    db.execute("INSERT INTO t VALUES (NULL, hex(randomblob(400)))"); time.sleep(0.003)
db.close()`, 50+i*150))
				backup := makeWAL(t, filepath.Join(t.TempDir(), "backup.db"))
				output(t, "sqlite3", backup, fmt.Sprintf("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "+
					"INSERT INTO t SELECT NULL, 'backup' FROM n", 20+i))
				want := fmt.Sprintf("ok|%d|backup", 21+i)
				time.Sleep(time.Second) // the time that an operator takes; the test waits for nothing here
				output(t, command[0], append(command[1:], backup, l.db)...)
				time.Sleep(time.Second)
				got := l.life(`
newest = db.execute("SELECT max(body) FROM t WHERE id > 1").fetchone()[0]
print(db.execute("PRAGMA integrity_check").fetchone()[0], rows(), newest, sep="|", end="")
db.close()`)
				if got != want {
					t.Fatalf("round %d: the application found %q, want %q", i, got, want)
				}
				l.synced()
				want = fmt.Sprintf("ok\n%d|backup", 20+i)
				if got := l.replica("PRAGMA integrity_check; SELECT count(*), max(body) FROM t WHERE id > 1"); got != want {
					t.Fatalf("round %d: the replica has %q, want %q", i, got, want)
				}
			}
		})
	}
}

// The side files are removed under an application with one connection, which ends a moment later,
// as with `rm app.db-*; systemctl restart app`. It loses nothing, as without sqlwatch.
func TestSideFilesRemovedThenClosed(t *testing.T) {
	t.Parallel()
	l := newLived(t)
	for i, pause := range []int{20, 50, 5, 100, 30} {
		got := l.life(fmt.Sprintf(`
n, removed, end = rows(), None, time.time() + 2
while time.time() < end:
    db.execute("INSERT INTO t VALUES (NULL, hex(randomblob(150)))"); n += 1; time.sleep(0.002)
    if removed is None and end - time.time() < 0.1:
        os.unlink(path + "-wal"); os.unlink(path + "-shm")
        removed, end = time.time(), time.time() + %g
db.close()
time.sleep(2)
db = connect()
print(n - rows(), db.execute("PRAGMA integrity_check(1)").fetchone()[0], end="")
db.close()`, float64(pause)/1000))
		if got != "0 ok" {
			t.Fatalf("life %d, ended %d ms after its side files were removed: lost and integrity: %q", i, pause, got)
		}
	}
	l.synced()
	if got, want := l.replica("SELECT count(*) FROM t"), l.life(`print(rows())`); got != strings.TrimSpace(want) {
		t.Errorf("the replica has %s rows of %s", got, want)
	}
}

// A single connection without a busy timeout that reads and then writes in a deferred transaction
// meets no lock when it is alone. Neither does it beside a replica and a policy that truncates
// the WAL.
func TestDeferredIsNeverBusy_D81(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &lived{t: t, dir: dir, db: makeWAL(t, filepath.Join(dir, "app.db"))}
	l.daemon = startDaemonIn(t, dir, []string{binary}, strings.Replace(l.body(), "[replica.file.r]\n",
		"[replica.file.r]\n  restart {\n    at = \"1MB\"\n  }\n", 1)+`
policy "truncate" {
  when     = wal.bytes > bytes("100KB")
  cooldown = "1s"
  checkpoint {}
}`)
	l.synced()
	got := l.life(`
db.execute("PRAGMA busy_timeout=0")
n, errors, end = 0, [], time.time() + 25
while time.time() < end:
    try:
        db.execute("BEGIN"); rows(); time.sleep(0.002)
        db.execute("INSERT OR REPLACE INTO t VALUES (?, hex(randomblob(3000)))", (n % 400,))
        db.execute("COMMIT"); n += 1; time.sleep(0.005)
    except sqlite3.OperationalError as e:
        errors.append(str(e))
        if db.in_transaction: db.execute("ROLLBACK")
print(len(errors), errors[:3], "in many" if n > 100 else n, end="")`)
	if got != "0 [] in many" {
		t.Errorf("errors of the application: %s", got)
	}
	text, err := get(l.daemon.url + "/metrics?name[]=sqlwatch_checkpoints_total")
	if err != nil || !strings.Contains(text, `sqlwatch_checkpoints_total{db="app",mode="truncate"}`) {
		t.Errorf("the policy made no checkpoint meanwhile: %v\n%s", err, text)
	}
}
