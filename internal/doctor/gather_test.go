package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// appScript is an application: it runs each SQL statement of its input.
const appScript = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
for line in sys.stdin:
    try:
        print(json.dumps({"rows": db.execute(json.loads(line)).fetchall()}), flush=True)
    except sqlite3.Error as e:
        print(json.dumps({"error": str(e)}), flush=True)
`

// app is an unmodified application in another process.
type app struct {
	t   *testing.T
	pid int
	in  io.WriteCloser
	out *bufio.Scanner
}

// start runs an application; command may replace Python's own program file.
func start(t *testing.T, path string, statements ...string) *app {
	t.Helper()
	return startAs(t, exec.Command("/usr/bin/python3", "-S", "-c", appScript, path), statements...)
}

func startAs(t *testing.T, cmd *exec.Cmd, statements ...string) *app {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a := &app{t: t, pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
	a.run(statements...)
	return a
}

func (a *app) run(statements ...string) {
	a.t.Helper()
	for _, s := range statements {
		line, err := json.Marshal(s)
		if err != nil {
			a.t.Fatal(err)
		}
		if _, err := a.in.Write(append(line, '\n')); err != nil {
			a.t.Fatal(err)
		}
		if !a.out.Scan() {
			a.t.Fatalf("the application ended at %s: %v", s, a.out.Err())
		}
		var answer struct{ Error string }
		if err := json.Unmarshal(a.out.Bytes(), &answer); err != nil || answer.Error != "" {
			a.t.Fatalf("application: %s: %s %v", s, answer.Error, err)
		}
	}
}

// Statements for applications.
const (
	walOn = "PRAGMA journal_mode=WAL"
	table = "CREATE TABLE IF NOT EXISTS t(x)"
	noCkp = "PRAGMA wal_autocheckpoint=0"
	small = "PRAGMA page_size=512"
	fill  = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 6000) INSERT INTO t SELECT " +
		"randomblob(400) FROM n"
)

// fresh returns the path for a test's database.
func fresh(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "app.db")
}

// A database in memory is a warning, and nothing else is wrong with it.
func TestGather_D39_tmpfs(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "sqlwatch-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "app.db")
	closed(t, path, walOn, table)
	i := slices.IndexFunc(Diagnose(Gather(t.Context(), "app", path)), func(f Finding) bool {
		return f.ID == "volatile-filesystem" && f.Severity == Warning
	})
	if i < 0 {
		t.Error("a database on tmpfs is not warned of")
	}
	if got := ids(t, path); len(got) > 0 {
		t.Errorf("found %q", got)
	}
}

// closed creates a database that nobody has open.
func closed(t *testing.T, path string, statements ...string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-S", "-c",
		"import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1],isolation_level=None)\nfor s in sys.argv[2:]: "+
			"db.execute(s)\ndb.close()", path)
	cmd.Args = append(cmd.Args, statements...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ids gathers facts, diagnoses them and returns the findings' ids. It leaves out what may be
// wrong with the machine itself: its SQLite is old, and its disk may be full.
func ids(t *testing.T, path string) []string {
	t.Helper()
	before := listing(t, filepath.Dir(path))
	all := Diagnose(Gather(context.Background(), "app", path))
	if after := listing(t, filepath.Dir(path)); !slices.Equal(before, after) {
		t.Errorf("the examination changed the directory from %v to %v", before, after)
	}
	var out []string
	for _, f := range all {
		checkText(t, f)
		if !slices.Contains([]string{"wal-reset-bug", "disk-full", "disk-tight", "volatile-filesystem"}, f.ID) {
			out = append(out, f.ID)
		}
	}
	return out
}

func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestGather finds real faults in real databases. Each database has only the fault that it was
// given, so it also shows that the other faults are not found there.
func TestGather(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		make func(t *testing.T, path string) string // returns the path to look at
		want string
	}{
		{"nothing wrong, in use", func(t *testing.T, path string) string {
			start(t, path, walOn, table)
			chmod(t, path, 0o600)
			return path
		}, ""},
		{"nothing wrong, closed", func(t *testing.T, path string) string { closed(t, path, walOn, table); return path }, ""},
		{"missing", func(t *testing.T, path string) string { return path }, "missing"},
		{"text", func(t *testing.T, path string) string { write(t, path, strings.Repeat("text ", 100)); return path },
			"not-a-database"},
		{"D19 FIFO", func(t *testing.T, path string) string { must(t, syscall.Mkfifo(path, 0o600)); return path },
			"not-a-database"},
		{"corrupt schema", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			_, err = file.WriteAt([]byte(strings.Repeat("x", 400)), 100)
			must(t, errors.Join(err, file.Close()))
			return path
		}, "schema-unreadable"},
		{"no bytes", func(t *testing.T, path string) string { write(t, path, ""); return path }, "empty"},
		{"rollback journal", func(t *testing.T, path string) string { closed(t, path, table); return path }, "journal-mode"},
		{"rollback journal, locked", func(t *testing.T, path string) string {
			closed(t, path, table)
			start(t, path, "BEGIN EXCLUSIVE")
			return path
		}, "journal-mode"},
		{"D22 hard link", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			must(t, os.Link(path, path+".bak"))
			return path
		}, "hard-link"},
		{"D22 symbolic link", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			must(t, os.Symlink(path, path+".link"))
			return path + ".link"
		}, "symlink"},
		{"linked directory", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			link := filepath.Join(t.TempDir(), "current")
			must(t, os.Symlink(filepath.Dir(path), link))
			return filepath.Join(link, "app.db")
		}, "symlink-directory"},
		{"everybody may write", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			chmod(t, path, 0o666)
			return path
		}, "world-writable"},
		{"everybody may read", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			chmod(t, path, 0o644)
			return path
		}, "world-readable"},
		{"owner may not write", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			chmod(t, path, 0o400)
			return path
		}, "file-read-only"},
		{"no autocheckpoint", func(t *testing.T, path string) string {
			start(t, path, small, walOn, table, noCkp, fill)
			chmod(t, path, 0o600)
			return path
		}, "autocheckpoint"},
		{"a reader far behind", func(t *testing.T, path string) string {
			closed(t, path, small, walOn, table)
			writer := start(t, path, noCkp, "INSERT INTO t VALUES (1)")
			start(t, path, "BEGIN", "SELECT * FROM t")
			writer.run(fill)
			return path
		}, "pinned-reader"},
		{"a reader that keeps up", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			start(t, path, "INSERT INTO t VALUES (1)")
			start(t, path, "BEGIN", "SELECT * FROM t")
			return path
		}, ""},
		{"a writer that does not commit", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			start(t, path, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)")
			return path
		}, "long-writer"},
		{"a large WAL", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			start(t, path, "INSERT INTO t VALUES (1)")
			must(t, os.Truncate(path+"-wal", largeWAL)) // the file keeps the size that it once needed
			return path
		}, "wal-size"},
		{"exclusive locking", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			start(t, path, "PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t VALUES (1)")
			return path
		}, "exclusive-locking"},
		{"crashed", func(t *testing.T, path string) string {
			a := start(t, path, walOn, noCkp, table)
			chmod(t, path, 0o600)
			must(t, syscall.Kill(a.pid, syscall.SIGKILL))
			for a.out.Scan() { // until it is gone
			}
			return path
		}, "wal-left-behind"},
		{"Litestream's tables", func(t *testing.T, path string) string {
			closed(t, path, walOn, "CREATE TABLE _litestream_seq(id)")
			return path
		}, "litestream-traces"},
		{"Litestream's tables, still in the WAL", func(t *testing.T, path string) string {
			start(t, path, walOn, noCkp, "CREATE TABLE _litestream_seq(id)")
			chmod(t, path, 0o600)
			return path
		}, "litestream-traces"},
		{"Litestream's directory", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			must(t, os.Mkdir(filepath.Join(filepath.Dir(path), ".app.db-litestream"), 0o700))
			return path
		}, "litestream-traces"},
		{"Litestream at work", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			startAs(t, copyOfPython(t, "litestream", path), "SELECT * FROM t")
			return path
		}, "two-replicators"},
		{"an old release", func(t *testing.T, path string) string {
			closed(t, path, walOn, table)
			cmd := copyOfPython(t, "web", path)
			startAs(t, cmd, "SELECT * FROM t")
			must(t, os.Remove(cmd.Path))
			return path
		}, "old-program"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(ids(t, tt.make(t, fresh(t))), " "); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// copyOfPython returns an application whose program has another name.
func copyOfPython(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	must(t, err)
	content, err := os.ReadFile(python)
	must(t, err)
	program := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(program, content, 0o755))
	cmd := exec.Command(program, "-S", "-c", appScript, path)
	cmd.Env = append(os.Environ(), "PYTHONHOME=/usr")
	return cmd
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	must(t, os.Chmod(path, mode))
}

// TestGatherOwners needs root, to create files of other users.
func TestGatherOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const nobody = 65534
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"root on another's database", func(t *testing.T, path string) {
			closed(t, path, walOn, table)
			must(t, os.Chown(path, nobody, nobody))
			must(t, os.Chown(filepath.Dir(path), nobody, nobody))
		}, "running-as-root"},
		{"P15 -shm of another", func(t *testing.T, path string) {
			start(t, path, walOn, table)
			chmod(t, path, 0o600)
			must(t, os.Chown(path+"-shm", nobody, nobody))
		}, "side-file-owner"},
		{"a directory of another", func(t *testing.T, path string) {
			closed(t, path, walOn, table)
			must(t, os.Chown(path, nobody, nobody))
		}, "directory-not-writable running-as-root"},
		{"a process of another", func(t *testing.T, path string) {
			closed(t, path, walOn, table)
			for d := filepath.Dir(path); d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
				chmod(t, d, 0o777)
			}
			chmod(t, path, 0o660)
			must(t, os.Chown(path, 0, nobody))
			cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-S", "-c",
				appScript, path)
			startAs(t, cmd, "SELECT * FROM t")
			must(t, os.Chown(path+"-shm", 0, 0))
			must(t, os.Chown(path+"-wal", 0, 0))
		}, "foreign-process"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := fresh(t)
			tt.make(t, path)
			if got := strings.Join(ids(t, path), " "); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("P15 as nobody", func(t *testing.T) {
		path := fresh(t)
		closed(t, path, walOn, table)
		chmod(t, path, 0o644)
		if got := strings.Join(asNobody(t, path), " "); got != "foreign-owner world-readable" {
			t.Errorf("found %q", got)
		}
		chmod(t, path, 0o600)
		if got := strings.Join(asNobody(t, path), " "); got != "unreadable" {
			t.Errorf("D21 found %q", got)
		}
	})
}

// asNobody runs this test binary again under another uid.
func asNobody(t *testing.T, path string) []string {
	t.Helper()
	binary := filepath.Join(filepath.Dir(path), "doctor.test")
	content, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(binary, content, 0o755))
	for d := filepath.Dir(path); d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		chmod(t, d, 0o755)
	}
	child := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "-test.run=^TestChild$",
		"-test.v")
	child.Env, child.Dir = append(os.Environ(), "DOCTOR_TEST_CHILD="+path), "/"
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "found: ")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Fields(line)
}

// TestChild is what asNobody runs.
func TestChild(t *testing.T) {
	path := os.Getenv("DOCTOR_TEST_CHILD")
	if path == "" {
		t.Skip("run by TestGatherOwners")
	}
	t.Logf("found: %s", strings.Join(ids(t, path), " "))
}

func TestGatherHost(t *testing.T) {
	t.Parallel()
	find := func(dir string) string {
		var out []string
		for _, f := range DiagnoseHost(GatherHost(dir, nil)) {
			if f.ID != "state-directory-place" {
				out = append(out, f.ID)
			}
		}
		return strings.Join(out, " ")
	}
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	if got := find(dir); got != "" {
		t.Errorf("a good one: %s", got)
	}
	if got := find(filepath.Join(dir, "not", "yet")); got != "" {
		t.Errorf("one to be made: %s", got)
	}
	write(t, filepath.Join(dir, "file"), "")
	if got := find(filepath.Join(dir, "file")); got != "state-directory" {
		t.Errorf("a file in its place: %s", got)
	}
	chmod(t, dir, 0o755)
	if got := find(dir); got != "state-directory-open" {
		t.Errorf("an open one: %s", got)
	}
	if memory, err := os.MkdirTemp("/dev/shm", "doctor-test-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(memory) })
		if all := DiagnoseHost(GatherHost(memory, nil)); len(all) != 1 || all[0].ID != "state-directory-place" {
			t.Errorf("one in memory: %+v", all)
		}
		path := filepath.Join(memory, "app.db")
		closed(t, path, walOn, table)
		if f := Gather(context.Background(), "app", path); len(volatileFilesystem(f)) != 1 || len(networkFilesystem(f)) != 0 {
			t.Errorf("a database in memory: %+v", f.Place)
		}
	}
}

func TestFileReplica(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	closed(t, path, walOn, table)
	if r := FileReplica(filepath.Join(dir, "replica"), path); !r.Dir.Missing || r.Skipped == "" || !r.Dir.SameDisk ||
		r.Dir.Forbidden {
		t.Errorf("one to be made: %+v", r)
	}
	if r := FileReplica("/dev/shm", path); r.Dir.SameDisk || r.Dir.Missing {
		t.Errorf("one on another disk: %+v", r)
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 65534, 65534))
		if r := FileReplica(dir, path); r.Skipped == "" || r.Dir.UID != 65534 {
			t.Errorf("one of another user: %+v", r)
		}
	}
}

// busyWriter commits without a busy timeout until its input ends, then reports its commits and
// errors.
const busyWriter = `
import json, sqlite3, sys, threading
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
commits, errors = 0, []
print("ready", flush=True)
while not stop.is_set():
    try:
        db.execute("INSERT INTO t VALUES (1)")
        commits += 1
    except sqlite3.Error as e:
        errors.append(str(e))
print(json.dumps({"Commits": commits, "Errors": errors}), flush=True)
`

// A writer that never waits for a lock meets no error while the database is examined.
func TestGatherDisturbsNobody(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"WAL": walOn, "rollback journal": small} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := fresh(t)
			closed(t, path, first, table)
			cmd := exec.Command("/usr/bin/python3", "-S", "-c", busyWriter, path)
			writer := startAs(t, cmd)
			if !writer.out.Scan() || writer.out.Text() != "ready" {
				t.Fatalf("the writer said %q", writer.out.Text())
			}
			for range 5 {
				if f := Gather(context.Background(), "app", path); f.State != StateDatabase || f.File.WALMode != (first == walOn) {
					t.Errorf("%+v", f)
				}
			}
			must(t, writer.in.Close())
			var report struct {
				Commits int
				Errors  []string
			}
			if !writer.out.Scan() {
				t.Fatal("the writer ended without a word")
			}
			must(t, json.Unmarshal(writer.out.Bytes(), &report))
			if report.Commits == 0 || len(report.Errors) > 0 {
				t.Errorf("%d commits, %d errors: %.200v", report.Commits, len(report.Errors), report.Errors)
			}
		})
	}
}
