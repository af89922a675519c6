package plain

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

const life = `
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
if sys.argv[2] == "exclusive": db.execute("pragma locking_mode=exclusive")
db.execute("pragma journal_mode=wal"); db.execute("pragma wal_autocheckpoint=0")
db.execute("create table if not exists t(v)")
for i in range(12): db.execute("insert into t values(randomblob(500))")
print("wrote", flush=True)
if sys.argv[2] == "exclusive": os.kill(os.getpid(), 9)
sys.stdin.read()
`

// start starts an application of the given kind and returns when it has written.
func start(t *testing.T, path, how string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("python3", "-c", life, path, how)
	stdin, err := cmd.StdinPipe()
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
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	if n, err := out.Read(make([]byte, 5)); n != 5 {
		t.Fatalf("%s: %v", how, err)
	}
	return cmd
}

// kill kills an application, which does not close its database.
func kill(a *exec.Cmd) { a.Process.Kill(); a.Wait() }

// run runs a program, so that no file of a watched database is opened in this process.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// watched opens a database's files for a Checkpointer.
func watched(t *testing.T, path string) *Checkpointer {
	t.Helper()
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	return New(path, func() *dbfile.Files { return files }, nil)
}

const rows = "select count(*) from t"

// After a checkpoint the application is killed. Then somebody writes without a wal-index, and is
// killed too. Neither the next application nor our checkpoint may trust an older wal-index: the
// WAL has commits that it does not know.
func TestKilledThenExclusive_D24(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	a := start(t, path, "normal")
	p := watched(t, path)
	if r, err := p.Checkpoint(t.Context(), sqlite.Passive, sqlite.Budget{}); err != nil || r.Backfilled < 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	p.Look()
	kill(a)
	start(t, path, "exclusive").Wait()
	// Either the checkpoint of a policy comes first, or the application.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r, err := p.Checkpoint(t.Context(), sqlite.Truncate, sqlite.Budget{Stall: time.Minute})
		if err == nil && r.Outcome == sqlite.OutcomeTruncated { // the WAL continues the one that was seen in use
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never truncated: %+v, %v", r, err)
		}
	}
	if got := run(t, "sqlite3", path, rows); got != "24" {
		t.Errorf("D24: the application finds %s of 24 rows", got)
	}
}

// TestWALPutFirst_D4: a copy of two files is put in place while nobody is connected, the WAL
// first. That WAL must not be checkpointed into the old file, which is about to be replaced.
func TestWALPutFirst_D4(t *testing.T) {
	t.Parallel()
	// Each puts a WAL beside the database, and returns the command that puts its main file there
	// and the number of rows in the copy.
	for name, put := range map[string]func(t *testing.T, path string, p func() *Checkpointer) (file []string, n string){
		"of another life": func(t *testing.T, path string, p func() *Checkpointer) ([]string, string) {
			kill(start(t, path+".copy", "normal"))
			run(t, "sqlite3", path, "create table t(v)")
			p().Look()
			run(t, "mv", path+".copy-wal", path+"-wal")
			return []string{"mv", path + ".copy", path}, "12"
		},
		"of the same life, earlier": func(t *testing.T, path string, p func() *Checkpointer) ([]string, string) {
			a := start(t, path, "normal")
			run(t, "cp", path, path+".copy")
			run(t, "cp", path+"-wal", path+".copy-wal")
			b := start(t, path, "normal")
			p().Look()
			kill(a)
			kill(b)
			run(t, "cp", path+".copy-wal", path+"-wal")
			return []string{"cp", path + ".copy", path}, "12"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			var p *Checkpointer
			file, want := put(t, path, func() *Checkpointer { p = watched(t, path); return p })
			for _, mode := range []sqlite.Mode{sqlite.Passive, sqlite.Truncate} {
				if r, err := p.Checkpoint(t.Context(), mode, sqlite.Budget{}); !errors.Is(err, ErrUnclaimed) {
					t.Errorf("%s checkpoint: %+v, %v", mode, r, err)
				}
			}
			run(t, file[0], file[1:]...)
			if got := run(t, "sqlite3", path, rows+"; pragma integrity_check"); got != want+"\nok" {
				t.Errorf("the application finds %q, want the %s rows of the copy", got, want)
			}
		})
	}
}

// If the WAL of a killed application was seen in use, it is known to be its own. A WAL without
// frames belongs to nobody: what a killed sqlwatch left is removed by the next checkpoint.
func TestKilled_P16(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	a := start(t, path, "normal")
	p := watched(t, path)
	p.Look()
	kill(a)
	r, err := p.Checkpoint(t.Context(), sqlite.Truncate, sqlite.Budget{})
	if err != nil || r.Outcome != sqlite.OutcomeTruncated {
		t.Errorf("the application's own WAL: %+v, %v", r, err)
	}
	for _, side := range []string{"-wal", "-shm"} {
		run(t, "touch", path+side)
	}
	if r, err := p.Checkpoint(t.Context(), sqlite.Passive, sqlite.Budget{}); err != nil {
		t.Errorf("empty side files: %+v, %v", r, err)
	}
	if got := run(t, "ls", filepath.Dir(path)); got != "app.db" {
		t.Errorf("left: %s", got)
	}
	if got := run(t, "sqlite3", path, rows); got != "12" {
		t.Errorf("%s rows of 12", got)
	}
}

// The side files of a running application are removed just before our connection is open. If the
// checkpoint continued, the application's close would not be the last one, and its commits would
// be lost with an unlinked WAL.
func TestSidesGo_D15_connecting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	start(t, path, "normal")
	p := watched(t, path)
	p.Names = func(string, []string, func()) (func(), error) { // called between MayOpen and the connection
		run(t, "rm", path+"-wal", path+"-shm")
		return func() {}, nil
	}
	if r, err := p.Checkpoint(t.Context(), sqlite.Passive, sqlite.Budget{}); !errors.Is(err, dbfile.ErrUnclear) {
		t.Errorf("a checkpoint beside an application that uses a WAL without a name: %+v, %v", r, err)
	}
}
