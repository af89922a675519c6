package e2e

import (
	"bufio"
	le "encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// scenes are by the condition that each brings about.
var scenes = map[string]scene{
	"daemon_down":      {how: "SIGTERM"},
	"reload_failed":    {how: "a mistake in the configuration, then `sqlwatch reload`"},
	"left_out":         {how: "two `database` blocks with one path"},
	"no_databases":     {how: "a glob that matches nothing"},
	"handler_panicked": {cannot: "it takes a fault of sqlwatch; internal/web plants one"},
	"notification_failed": {how: "a webhook that answers 404", prepare: func(f *fleet, db *member) {
		db.path = makeWAL(f.t, db.path)
		refuses := httptest.NewServer(http.NotFoundHandler())
		f.t.Cleanup(refuses.Close)
		db.apart = true // it is a condition of the daemon
		db.more = fmt.Sprintf("notifier \"webhook\" \"gone\" {\n  url = %q\n}\npolicy \"tell\" {\n  when = true\n"+
			"  databases = [%q]\n  notify = [notifier.webhook.gone]\n}\n", refuses.URL, db.name)
	}},

	"missing": {how: "the file is deleted", prepare: plain, trouble: func(f *fleet, db *member) {
		for _, side := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(db.path + side)
		}
	}},
	"empty": {how: "a file of no bytes", prepare: func(f *fleet, db *member) {
		must(f.t, os.WriteFile(db.path, nil, 0o600))
	}},
	"not_wal": {how: "`PRAGMA journal_mode=delete`", prepare: func(f *fleet, db *member) {
		output(f.t, "sqlite3", db.path, "CREATE TABLE t (x)")
	}},
	"not_a_database": {how: "a text in its place", prepare: func(f *fleet, db *member) {
		must(f.t, os.WriteFile(db.path, []byte(strings.Repeat("no database\n", 1000)), 0o600))
	}},
	"foreign_owner": {cannot: "the tests are root; cmd/sqlwatch.TestForeignOwner_P15 is another user"},
	"foreign_wal": {how: "an application with `locking_mode=EXCLUSIVE`", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.app(db.path, `db.execute("PRAGMA locking_mode=EXCLUSIVE"); db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
	}},
	"network_filesystem": {how: "a file system of FUSE, which counts as a network", prepare: func(f *fleet, db *member) {
		plain(f, db)
		mounted := filepath.Join(f.t.TempDir(), "mounted")
		must(f.t, os.Mkdir(mounted, 0o700))
		root, err := fs.NewLoopbackRoot(filepath.Dir(db.path))
		must(f.t, err)
		server, err := fs.Mount(mounted, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}})
		must(f.t, err)
		f.t.Cleanup(func() { _ = server.Unmount() })
		db.path = filepath.Join(mounted, filepath.Base(db.path))
	}},
	"unreadable":  {cannot: "a process must die while it writes the wal-index; tests of collector leave one so"},
	"open_failed": {cannot: "the limit of descriptors must be met; tests of internal/daemon meet it"},
	"hung": {late: true, how: "a mount over its directory that never answers", prepare: plain,
		trouble: func(f *fleet, db *member) { hang(f.t, filepath.Dir(db.path)) }},
	"restarted": {cannot: "it takes a fault of sqlwatch; internal/watchdog plants one"},

	"write_lock_held": {how: "`BEGIN IMMEDIATE`, and nothing more", prepare: plain, trouble: func(f *fleet, db *member) {
		f.app(db.path, `db.execute("BEGIN IMMEDIATE"); db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
	}},
	"write_lock_saturated": {how: "one transaction of 0.3 s after the other", prepare: plain,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `
def work():
    while True:
        db.execute("BEGIN IMMEDIATE"); db.execute("INSERT INTO t VALUES (NULL, 'x')")
        time.sleep(0.3); db.execute("COMMIT")`)
		}},
	"reader_pinning": {how: "a SELECT that is never finished, and a commit", prepare: plain,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `
db.execute("INSERT INTO t VALUES (NULL, 'x')")
db.execute("BEGIN"); db.execute("SELECT count(*) FROM t").fetchall()
other = connect(); other.execute("INSERT INTO t VALUES (NULL, 'y')")`)
		}},
	"overlapping_readers": {how: "two readers in turn, with 17 MB in the WAL", prepare: plain,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `
db.execute("PRAGMA wal_autocheckpoint=0")
readers = [connect(), connect()]
for r in readers:
    r.execute("BEGIN"); r.execute("SELECT count(*) FROM t").fetchall()
for i in range(17):
    db.execute("INSERT INTO t VALUES (NULL, zeroblob(1000000))")
def work():
    while True:
        for r in readers:
            time.sleep(0.5); db.execute("INSERT INTO t VALUES (NULL, 'x')")
            r.execute("COMMIT"); r.execute("BEGIN"); r.execute("SELECT count(*) FROM t").fetchall()`)
		}},
	"wal_oversized": {how: "a `-wal` of 600 MB", prepare: plain, trouble: func(f *fleet, db *member) {
		f.app(db.path, `db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
		must(f.t, os.Truncate(db.path+"-wal", 600e6)) // as a long transaction leaves it; it takes no room
	}},
	"checkpoint_starved": {cannot: "64 MB must have waited for a quarter of an hour"},
	"page_checksums": {how: "pages sealed as cksumvfs does", prepare: func(f *fleet, db *member) {
		output(f.t, "sqlite3", db.path, ".filectrl reserve_bytes 8", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
		seal(f.t, db.path)
	}},
	"wal_reset_bug": {how: "the version 3.40.1 in the file's header", prepare: func(f *fleet, db *member) {
		plain(f, db)
		patch(f.t, db.path, 96, []byte{0, 0x2e, 0x63, 0x01})
	}},
	"disk_low": {how: "a disk of 16 MB that is full", prepare: func(f *fleet, db *member) {
		small := mountSmall(f.t, "16m")
		db.path = makeWAL(f.t, filepath.Join(small, "app.db"))
		fillDisk(f.t, small)
	}},
	"paused": {how: "`sqlwatch pause`", prepare: plain, trouble: func(f *fleet, db *member) {
		output(f.t, binary, "--config", f.config, "pause", db.name)
	}},
	"action_failed": {how: "a policy's snapshot while the store is away", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.toS3(db, "http://127.0.0.1:"+freePort(f.t), s3Bucket, s3Secret)
		db.more += fmt.Sprintf("policy \"copy\" {\n  when = true\n  databases = [%q]\n  snapshot {}\n}\n", db.name)
	}},
	"policy_hindered": {cannot: "checkpoints must have taken longer than their budget before"},

	"capture_stopped": {cannot: "a disk error below the spool is told as replica_failing and replica_lagging"},
	"file_cut":        {cannot: "tests of replicator/capture cut one"},
	"index_cut":       {cannot: "tests of replicator/capture cut one"},
	"spool_full":      {cannot: "1 GB must have been captured"},
	"spool_filling":   {cannot: "768 MB must have been captured"},
	"replica_fenced": {how: "cut off, while another sqlwatch takes the place over with `--adopt`", prepare: toStore,
		trouble: func(f *fleet, db *member) {
			f.caughtUp(db)
			f.store.breaks(db.name, s3test.Reset)
			other := *db
			other.more = strings.Replace(db.more, f.store.URL, f.store.server.url(), 1)
			f.another(&other, makeWAL(f.t, filepath.Join(f.t.TempDir(), "other.db")), "--adopt", db.name)
			f.store.breaks(db.name, s3test.None)
			f.write(db)
		}},
	"replica_held": {how: "another sqlwatch that lives, with a copy of the database", prepare: func(f *fleet, db *member) {
		toFile(f, db)
		other := filepath.Join(f.t.TempDir(), "copy.db")
		copyFile(f.t, db.path, other)
		f.another(db, other)
	}},
	"replica_foreign": {how: "the history of another database in its place", prepare: func(f *fleet, db *member) {
		toFile(f, db)
		other := makeWAL(f.t, filepath.Join(f.t.TempDir(), "other.db"))
		output(f.t, "sqlite3", other, "INSERT INTO t VALUES (NULL, 'another history')")
		f.another(db, other).end(syscall.SIGTERM)
	}},
	"replica_auth_failed": {how: "a wrong secret", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.toS3(db, f.store.server.url(), s3Bucket, "wrong")
	}},
	"replica_misplaced": {how: "a bucket that does not exist", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.toS3(db, f.store.server.url(), "nowhere", s3Secret)
	}},
	"replica_unavailable": {how: "nobody listens at the endpoint", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.toS3(db, "http://127.0.0.1:"+freePort(f.t), s3Bucket, s3Secret)
	}},
	"replica_failing": {how: "501 Not Implemented to every request", prepare: func(f *fleet, db *member) {
		f.store.breaks(db.name, s3test.NotImplemented)
		toStore(f, db)
	}},
	"replica_lagging": {how: "connections to the store are reset for a minute", prepare: toStore,
		trouble: func(f *fleet, db *member) {
			f.caughtUp(db)
			f.store.breaks(db.name, s3test.Reset)
			f.write(db)
		}},
	"replica_incomplete": {cannot: "it ends with the first upload, or becomes replica_unavailable"},
	"snapshot_too_old":   {cannot: "two hours must have passed"},
	"replica_files_lost": {cannot: "it is noticed when files are merged that another process wrote"},
	"replica_maintenance": {how: "403 to every merged file", prepare: func(f *fleet, db *member) {
		f.store.refusesToMerge(db.name)
		toStore(f, db)
	}, trouble: func(f *fleet, db *member) { f.caughtUp(db); f.write(db) }},
	"replica_weak_fencing": {how: "a store that ignores If-Match and If-None-Match", prepare: func(f *fleet, db *member) {
		plain(f, db)
		weak := s3test.NewFake(f.t, s3test.Profile{Create: s3test.Ignored, Match: s3test.Ignored})
		db.lines = fmt.Sprintf("  replicate_to = [replica.s3.%s]\n", db.name)
		db.more = named(s3ReplicaWith(weak.URL, s3test.Bucket, db.name, s3test.AccessKey, s3test.SecretKey, ""), db.name)
	}},
	"drill_failed": {how: "a byte of the replica's snapshot is changed, then a drill", prepare: toFile,
		trouble: func(f *fleet, db *member) {
			f.caughtUp(db)
			damage(f.t, f.replicaDir(db))
			f.post("/v1/verify?db=" + db.name)
		}},
	"drill_overdue": {cannot: "a day must have passed"},
}

// plain is a database that is all right.
func plain(f *fleet, db *member) { makeWAL(f.t, db.path) }

// toFile is one that is replicated to a directory.
func toFile(f *fleet, db *member) { plain(f, db); f.toFile(db) }

// toStore is one that is replicated to the fleet's store.
func toStore(f *fleet, db *member) {
	plain(f, db)
	f.toS3(db, f.store.URL, s3Bucket, s3Secret)
}

// makeWAL makes a database in WAL mode that nobody has open.
func makeWAL(t *testing.T, path string) string {
	t.Helper()
	output(t, "sqlite3", path, "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT); "+
		"INSERT INTO t VALUES (NULL, 'first')")
	return path
}

func newFleet(t *testing.T) *fleet {
	program, err := impatient() // a lease is waited for for seconds
	must(t, err)
	return &fleet{t: t, dir: t.TempDir(), program: program, store: newFaultyStore(t)}
}

// add makes a member called after its condition.
func (f *fleet) add(id string) *member {
	dir := filepath.Join(f.dir, "databases", id)
	must(f.t, os.MkdirAll(dir, 0o700))
	m := &member{name: id, path: filepath.Join(dir, "app.db")}
	f.members = append(f.members, m)
	return m
}

// start runs the daemon over all members.
func (f *fleet) start() {
	f.t.Helper()
	var text strings.Builder
	for _, m := range f.members {
		fmt.Fprintf(&text, "database %q {\n  path = %q\n%s}\n%s", m.name, m.path, m.lines, m.more)
	}
	f.daemon = startDaemonIn(f.t, f.dir, []string{f.program}, text.String())
}

func (f *fleet) stateDir() string             { return filepath.Join(f.dir, "state") }
func (f *fleet) replicaDir(db *member) string { return filepath.Join(f.dir, "replicas", db.name) }

// toFile replicates a member to a directory of its own.
func (f *fleet) toFile(db *member) {
	must(f.t, os.MkdirAll(f.replicaDir(db), 0o700))
	db.lines = fmt.Sprintf("  replicate_to = [replica.file.%s]\n", db.name)
	db.more = fmt.Sprintf("replica \"file\" %q {\n  dir = %q\n}\n", db.name, f.replicaDir(db))
}

// toS3 replicates a member to a prefix of its name.
func (f *fleet) toS3(db *member, endpoint, bucket, secret string) {
	db.lines = fmt.Sprintf("  replicate_to = [replica.s3.%s]\n", db.name)
	db.more = named(s3ReplicaWith(endpoint, bucket, db.name, s3KeyID, secret, ""), db.name)
}

func named(block, name string) string { return strings.Replace(block, `"r"`, `"`+name+`"`, 1) }

// app runs an application on a database until the test ends. What it does first is done
// when app returns; work() goes on.
func (f *fleet) app(db, program string) {
	f.t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", `
import sqlite3, sys, threading, time
def connect():
    return sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30, check_same_thread=False)
work = None
db = connect()
`+program+`
print("ready", flush=True)
if work: threading.Thread(target=work, daemon=True).start()
sys.stdin.read()`, db)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(f.t, err)
	stdout, err := cmd.StdoutPipe()
	must(f.t, err)
	must(f.t, cmd.Start())
	f.t.Cleanup(func() { stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if said, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		f.t.Fatalf("the application on %s: %q, %v", db, said, err)
	}
}

// write has an application commit a few times a second from now on.
func (f *fleet) write(db *member) {
	f.app(db.path, `
def work():
    while True:
        db.execute("INSERT INTO t VALUES (NULL, 'x')"); time.sleep(0.3)`)
}

// caughtUp waits until a member's replica holds all of it.
func (f *fleet) caughtUp(db *member) {
	f.t.Helper()
	f.post("/v1/sync?db=" + db.name)
}

// another runs a second sqlwatch that replicates another database to a member's place.
func (f *fleet) another(db *member, path string, more ...string) *daemon {
	f.t.Helper()
	body := fmt.Sprintf("database %q {\n  path = %q\n%s}\n%s", db.name, path, db.lines, db.more)
	d := startDaemonIn(f.t, f.t.TempDir(), []string{f.program}, body, more...)
	eventually(f.t, patience, "the other one has caught up", func() error {
		text, err := get(d.url + "/metrics?name[]=sqlwatch_replica_caught_up_timestamp_seconds")
		if err == nil && !strings.Contains(text, "} 1.") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	return d
}

// hang mounts a file system over a directory whose server never answers.
func hang(t *testing.T, dir string) {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	must(t, syscall.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())))
	t.Cleanup(func() {
		_ = device.Close() // ends the requests that wait
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
}

// seal writes into each page the checksum that cksumvfs would.
func seal(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	for page := data; len(page) > 0; page = page[4096:] {
		var s1, s2 uint32
		for i := 0; i < 4088; i += 8 {
			s1 += le.LittleEndian.Uint32(page[i:]) + s2
			s2 += le.LittleEndian.Uint32(page[i+4:]) + s1
		}
		le.LittleEndian.PutUint32(page[4088:], s1)
		le.LittleEndian.PutUint32(page[4092:], s2)
	}
	must(t, os.WriteFile(path, data, 0o600))
}

func patch(t *testing.T, path string, at int64, bytes []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(bytes, at)
	must(t, err)
	must(t, file.Close())
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o600))
}

// damage changes a byte in the middle of each snapshot of a directory replica.
func damage(t *testing.T, dir string) {
	t.Helper()
	damaged := 0
	must(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".ltx") {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		damaged++
		data[len(data)/2] ^= 0xff
		return os.WriteFile(name, data, 0o600)
	}))
	if damaged == 0 {
		t.Fatalf("%s holds no files", dir)
	}
}

// faultyStore is a real S3 server behind a proxy whose faults are by prefix.
type faultyStore struct {
	*s3test.Proxy
	server *s3Server

	mu     sync.Mutex
	faults map[string]func(*http.Request) s3test.Fault
}

func newFaultyStore(t *testing.T) *faultyStore {
	s := &faultyStore{server: startS3(t), faults: map[string]func(*http.Request) s3test.Fault{}}
	s.Proxy = s3test.NewProxy(t, s.server.url())
	s.Break(func(r *http.Request, _ int) s3test.Fault {
		s.mu.Lock()
		defer s.mu.Unlock()
		for prefix, fault := range s.faults {
			if strings.Contains(r.URL.String(), prefix) {
				return fault(r)
			}
		}
		return s3test.None
	})
	return s
}

func (s *faultyStore) when(prefix string, fault func(*http.Request) s3test.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[prefix] = fault
}

// breaks has every request below a prefix go wrong.
func (s *faultyStore) breaks(prefix string, fault s3test.Fault) {
	s.when(prefix, func(*http.Request) s3test.Fault { return fault })
}

// refusesToMerge has no merged file of a prefix stored.
func (s *faultyStore) refusesToMerge(prefix string) {
	s.when(prefix, func(r *http.Request) s3test.Fault {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0001/") {
			return s3test.Forbidden
		}
		return s3test.None
	})
}
