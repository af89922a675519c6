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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// scenes holds the scene that causes each condition.
var scenes = map[string]scene{
	"daemon_down":               {how: "SIGTERM"},
	"reload_failed":             {how: "a mistake in the configuration, then `sqlwatch reload`"},
	"left_out":                  {how: "two `database` blocks with one path"},
	"no_databases":              {how: "a glob that matches nothing"},
	"state_directory_read_only": {how: "an error that the kernel finds in its file system (`trigger_fs_error` of ext4)"},
	"handler_panicked": {how: "a bug that is planted in the tests' build", prepare: func(f *fleet, db *member) {
		plain(f, db)
		db.apart = true
		f.panics("request /-/panicked")
	}, trouble: func(f *fleet, db *member) { _, _ = get(f.url + "/-/panicked") }},
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
	"foreign_owner": {how: "sqlwatch run by another user than the database's"},
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
	"unreadable": {how: "a process that died between the two copies of the wal-index header",
		prepare: func(f *fleet, db *member) {
			plain(f, db)
			f.app(db.path, `
db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
			f.meddle(db.path+"-shm", `os.pwrite(fd, b"\xff", 8); time.sleep(0.05)`) // the change counter of the first copy
		}},
	"schema_unreadable": {how: "an index whose statement breaks off", prepare: func(f *fleet, db *member) {
		toFile(f, db)
		output(f.t, "sqlite3", db.path, "CREATE INDEX i ON t(body); PRAGMA writable_schema=ON; "+
			"UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(' WHERE name = 'i'")
	}},
	"open_failed": {how: "a replica's `ca_file` that is not there", prepare: func(f *fleet, db *member) {
		toStore(f, db)
		db.more = strings.Replace(db.more, "path_style", "ca_file    = \"/gone.pem\"\n  path_style", 1)
	}},
	"hung": {how: "a mount over its directory that never answers", prepare: plain,
		trouble: func(f *fleet, db *member) { hang(f.t, filepath.Dir(db.path)) }},
	"restarted": {how: "a bug that is planted in the tests' build", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.panics("turn " + db.name)
	}},

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
		must(f.t, os.Truncate(db.path+"-wal", 600e6)) // as after a long transaction; it uses no space
	}},
	"checkpoint_starved": {how: "`wal_autocheckpoint=0`, and 70 MB of commits", prepare: plain,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `
db.execute("PRAGMA wal_autocheckpoint=0"); db.execute("PRAGMA synchronous=OFF")
for i in range(70): db.execute("INSERT INTO t VALUES (NULL, zeroblob(1000000))")`)
		}},
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
	"read_only_filesystem": {how: "an error that the kernel finds in its file system (`trigger_fs_error` of ext4)",
		prepare: func(f *fleet, db *member) {
			disk, err := mountFragile(f.t)
			must(f.t, err)
			db.path, db.disk = makeWAL(f.t, filepath.Join(disk.dir, "app.db")), disk
		}, trouble: func(f *fleet, db *member) { db.disk.fail() }},
	"paused": {how: "`sqlwatch pause`", prepare: plain, trouble: func(f *fleet, db *member) {
		output(f.t, binary, "--config", f.config, "pause", db.name)
	}},
	"action_failed": {how: "a policy's snapshot while the store is away", prepare: func(f *fleet, db *member) {
		plain(f, db)
		f.toS3(db, "http://127.0.0.1:"+freePort(f.t), s3Bucket, s3Secret)
		db.more += fmt.Sprintf("policy \"copy\" {\n  when = true\n  databases = [%q]\n  snapshot {}\n}\n", db.name)
	}},
	"policy_hindered": {how: "a policy whose `stall_budget` is 1 ms", prepare: func(f *fleet, db *member) {
		plain(f, db)
		db.more = fmt.Sprintf("policy \"hurry\" {\n  when = wal.bytes > bytes(\"1MB\")\n  databases = [%q]\n  "+
			"cooldown = \"1s\"\n  checkpoint {\n    stall_budget = \"1ms\"\n    step \"truncate\" {}\n  }\n}\n", db.name)
	}, trouble: func(f *fleet, db *member) {
		f.app(db.path, `
db.execute("PRAGMA wal_autocheckpoint=0"); db.execute("PRAGMA synchronous=OFF")
def work():
    while True:
        db.execute("INSERT INTO t VALUES (NULL, zeroblob(4000000))"); time.sleep(0.5)`)
	}},

	"capture_stopped": {how: "a file in the place of its state directory", prepare: func(f *fleet, db *member) {
		toFile(f, db)
		must(f.t, os.MkdirAll(filepath.Join(f.dir, "state", "databases"), 0o700))
		must(f.t, os.WriteFile(filepath.Join(f.dir, "state", "databases", db.name), nil, 0o600))
	}},
	"file_cut": {how: "the file is cut while an application writes", prepare: toFile,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `
for i in range(50): db.execute("INSERT INTO t VALUES (NULL, zeroblob(4000))")
db.execute("PRAGMA wal_checkpoint")
def work():
    while True:
        db.execute("INSERT INTO t VALUES (NULL, 'x')"); time.sleep(0.3)`)
			f.caughtUp(db)
			f.meddle(db.path, `os.ftruncate(fd, 3*4096); time.sleep(0.2)`) // a checkpoint makes it longer again
		}},
	"index_cut": {how: "`truncate -s 0` of the -shm of an application that rests, again and again", prepare: toFile,
		trouble: func(f *fleet, db *member) {
			f.app(db.path, `db.execute("INSERT INTO t VALUES (NULL, 'x')")`)
			f.caughtUp(db)
			f.meddle(db.path+"-shm", `os.ftruncate(fd, 0); time.sleep(0.0003)`)
		}},
	"spool_full": {how: "40 MB of commits while the store is away, with a spool of 32 MB", prepare: toStore,
		trouble: func(f *fleet, db *member) { f.spool(db, 40) }},
	"spool_filling": {how: "28 MB of commits while the store is away, with a spool of 32 MB", prepare: toStore,
		trouble: func(f *fleet, db *member) { f.spool(db, 28) }},
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
	"replica_lagging": {how: "connections to the store are reset", prepare: toStore,
		trouble: func(f *fleet, db *member) {
			f.caughtUp(db)
			f.store.breaks(db.name, s3test.Reset)
			f.write(db)
		}},
	"replica_incomplete": {how: "60 MB to upload at 200 kB/s", prepare: func(f *fleet, db *member) {
		toStore(f, db)
		large(f, db, 60)
		db.more += "uploads {\n  bandwidth = \"200kB\"\n}\n" // small uploads go first
	}},
	"snapshot_too_old": {how: "a snapshot of 60 hours ago, and 500 to every newer one",
		prepare: func(f *fleet, db *member) {
			toStore(f, db)
			db.with("snapshot", "24h")
		}, before: func(f *fleet, db *member) { f.caughtUp(db) }, between: func(f *fleet, db *member) {
			f.store.refuses(db.name, "/0009/", s3test.InternalError)
		}, trouble: func(f *fleet, db *member) { f.write(db) }},
	"replica_files_lost": {how: "a byte of a file is changed that is still to be merged", prepare: toFile,
		before: func(f *fleet, db *member) {
			f.caughtUp(db)
			for range 4 {
				output(f.t, "sqlite3", db.path, "INSERT INTO t VALUES (NULL, 'x')")
				f.caughtUp(db)
			}
		}, between: func(f *fleet, db *member) {
			files := strings.Fields(output(f.t, "find", f.replicaDir(db), "-path", "*/ltx/0/*.ltx"))
			slices.Sort(files)
			if len(files) < 3 {
				f.t.Fatalf("files of single commits: %v", files)
			}
			damageFile(f.t, files[len(files)-2])
		}},
	"replica_maintenance": {how: "403 to every merged file", prepare: func(f *fleet, db *member) {
		f.store.refuses(db.name, "/0001/", s3test.Forbidden)
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
	"drill_overdue": {how: "a drill of 60 hours ago, and the next one over a line of 16 kB/s",
		prepare: func(f *fleet, db *member) {
			toStore(f, db)
			db.with("verify", "24h")
			large(f, db, 20)
		}, before: func(f *fleet, db *member) {
			f.caughtUp(db)
			f.post("/v1/verify?db=" + db.name)
		}, between: func(f *fleet, db *member) {
			f.store.when(db.name, func(r *http.Request) s3test.Fault {
				if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".ltx") {
					return s3test.Slow
				}
				return s3test.None
			})
		}},
}

// plain prepares a database without any condition.
func plain(f *fleet, db *member) { makeWAL(f.t, db.path) }

// toFile prepares a database that is replicated to a directory.
func toFile(f *fleet, db *member) { plain(f, db); f.toFile(db) }

// toStore prepares a database that is replicated to the fleet's store.
func toStore(f *fleet, db *member) {
	plain(f, db)
	f.toS3(db, f.store.URL, s3Bucket, s3Secret)
}

// large adds megabytes of data that does not compress to a member's database.
func large(f *fleet, db *member, megabytes int) {
	output(f.t, "sqlite3", db.path, fmt.Sprintf("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "+
		"INSERT INTO t SELECT NULL, randomblob(1000000) FROM n; PRAGMA wal_checkpoint(TRUNCATE)", megabytes))
}

// with makes a member's replica do something, such as verify, at an interval.
func (m *member) with(what, every string) {
	m.more = strings.TrimSuffix(m.more, "}\n") + fmt.Sprintf("  %s {\n    every = %q\n  }\n}\n", what, every)
}

// makeWAL makes a database in WAL mode that nobody has open.
func makeWAL(t *testing.T, path string) string {
	t.Helper()
	output(t, "sqlite3", path, "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT); "+
		"INSERT INTO t VALUES (NULL, 'first')")
	return path
}

func newFleet(t *testing.T) *fleet {
	program, err := impatient() // a lease takes seconds to expire
	must(t, err)
	f := &fleet{t: t, dir: t.TempDir(), program: program, store: newFaultyStore(t)}
	f.store.Rate = 16 << 10
	return f
}

// add adds a member named after its condition.
func (f *fleet) add(id string) *member {
	dir := filepath.Join(f.dir, "databases", id)
	must(f.t, os.MkdirAll(dir, 0o700))
	m := &member{name: id, path: filepath.Join(dir, "app.db")}
	f.members = append(f.members, m)
	return m
}

// panics plants a panic in the daemon.
func (f *fleet) panics(where string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planted = append(f.planted, where)
}

// together calls a function of each member's scene, several at a time, because most of each is
// waiting. If it fails for one, the others finish before the test ends.
func (f *fleet) together(members []*member, of func(*scene) func(*fleet, *member)) {
	f.t.Helper()
	var doing sync.WaitGroup
	slots := make(chan struct{}, 6)
	for _, m := range members {
		s := scenes[m.name]
		if do := of(&s); do != nil {
			slots <- struct{}{}
			doing.Go(func() {
				defer func() { <-slots }()
				do(f, m)
			})
		}
	}
	doing.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// blocks returns the members' blocks in the configuration.
func blocks(members []*member) string {
	var text strings.Builder
	for _, m := range members {
		fmt.Fprintf(&text, "database %q {\n  path = %q\n%s}\n%s", m.name, m.path, m.lines, m.more)
	}
	return text.String()
}

// earlier runs the daemon with a clock that is 60 hours behind, for the members that need an
// earlier run.
func (f *fleet) earlier() {
	f.t.Helper()
	members := slices.DeleteFunc(slices.Clone(f.members), func(m *member) bool { return scenes[m.name].before == nil })
	if len(members) == 0 {
		return
	}
	f.daemon = startDaemonIn(f.t, f.dir, []string{"env", "SQLWATCH_TEST_CLOCK=-60h", f.program}, blocks(members))
	f.together(members, func(s *scene) func(*fleet, *member) { return s.before })
	f.end(syscall.SIGTERM)
	f.together(members, func(s *scene) func(*fleet, *member) { return s.between })
}

// start runs the daemon over all members.
func (f *fleet) start() {
	f.t.Helper()
	program := append(slices.Clone(f.as), f.program)
	if f.planted != nil {
		program = append([]string{"env", "SQLWATCH_TEST_PANIC=" + strings.Join(f.planted, ",")}, program...)
	}
	f.daemon = startDaemonIn(f.t, f.dir, program, blocks(f.members))
	rules, err := os.ReadFile("../../alerts/sqlwatch.rules.yml")
	must(f.t, err)
	f.prometheus = startPrometheus(f.t, f.url, fmt.Sprintf("rule_files: [%q]",
		write(f.t, f.dir, "rules.yml", faster(string(rules), 3*speed))))
}

func (f *fleet) replicaDir(db *member) string { return filepath.Join(f.dir, "replicas", db.name) }

// toFile replicates a member to a directory of its own.
func (f *fleet) toFile(db *member) {
	must(f.t, os.MkdirAll(f.replicaDir(db), 0o700))
	db.lines = fmt.Sprintf("  replicate_to = [replica.file.%s]\n", db.name)
	db.more = fmt.Sprintf("replica \"file\" %q {\n  dir = %q\n}\n", db.name, f.replicaDir(db))
}

// toS3 replicates a member to a prefix with its name.
func (f *fleet) toS3(db *member, endpoint, bucket, secret string) {
	db.lines = fmt.Sprintf("  replicate_to = [replica.s3.%s]\n", db.name)
	db.more = named(s3ReplicaWith(endpoint, bucket, db.name, s3KeyID, secret, ""), db.name)
}

func named(block, name string) string { return strings.Replace(block, `"r"`, `"`+name+`"`, 1) }

// app runs an application on a database until the test ends. When app returns, the program has
// run to its end, and only the function work that it may have defined goes on.
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

// meddle starts a process that changes a file again and again, because whoever opens the database
// repairs it.
func (f *fleet) meddle(file, program string) {
	f.t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", "import os, sys, time\nfd = os.open(sys.argv[1], os.O_RDWR)\n"+
		"while True:\n    "+program, file)
	must(f.t, cmd.Start())
	f.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// write starts an application that commits a few times a second.
func (f *fleet) write(db *member) {
	f.app(db.path, `
def work():
    while True:
        db.execute("INSERT INTO t VALUES (NULL, 'x')"); time.sleep(0.3)`)
}

// caughtUp waits until a member's replica holds everything.
func (f *fleet) caughtUp(db *member) {
	f.t.Helper()
	f.post("/v1/sync?db=" + db.name)
}

// spool makes megabytes of a member's commits wait for the store.
func (f *fleet) spool(db *member, megabytes int) {
	f.t.Helper()
	f.caughtUp(db)
	f.store.breaks(db.name, s3test.NotImplemented)
	f.app(db.path, fmt.Sprintf(`
db.execute("PRAGMA synchronous=OFF")
for i in range(%d): db.execute("INSERT INTO t VALUES (NULL, randomblob(1000000))")`, megabytes))
}

// another runs a second sqlwatch that replicates another database to a member's prefix.
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

// hang mounts a file system whose server never answers over a directory.
func hang(t *testing.T, dir string) {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	must(t, syscall.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())))
	t.Cleanup(func() {
		_ = device.Close() // ends the pending requests
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
}

// seal writes the checksum that cksumvfs would write into each page.
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

// damage changes a byte in the middle of each LTX file of a directory replica.
func damage(t *testing.T, dir string) {
	t.Helper()
	corrupt := 0
	must(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".ltx") {
			return err
		}
		corrupt++
		damageFile(t, name)
		return nil
	}))
	if corrupt == 0 {
		t.Fatalf("%s holds no files", dir)
	}
}

// damageFile changes a byte in the middle of a file.
func damageFile(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	must(t, err)
	data[len(data)/2] ^= 0xff
	must(t, os.WriteFile(name, data, 0o600))
}

// faultyStore is a real S3 server behind a proxy with faults by prefix.
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
		return s.of(r)(r)
	})
	return s
}

// of returns the faults of the prefix in a request's URL.
func (s *faultyStore) of(r *http.Request) func(*http.Request) s3test.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for prefix, fault := range s.faults {
		if strings.Contains(r.URL.String(), prefix) {
			return fault
		}
	}
	return func(*http.Request) s3test.Fault { return s3test.None }
}

func (s *faultyStore) when(prefix string, fault func(*http.Request) s3test.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[prefix] = fault
}

// breaks makes every request below a prefix meet a fault.
func (s *faultyStore) breaks(prefix string, fault s3test.Fault) {
	s.when(prefix, func(*http.Request) s3test.Fault { return fault })
}

// refuses makes the store refuse to store objects of a prefix whose key contains a part.
func (s *faultyStore) refuses(prefix, part string, fault s3test.Fault) {
	s.when(prefix, func(r *http.Request) s3test.Fault {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, part) {
			return fault
		}
		return s3test.None
	})
}
