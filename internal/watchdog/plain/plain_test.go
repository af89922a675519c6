package plain

import (
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

// After a checkpoint the application is killed; then somebody writes who uses no wal-index, and
// is killed too. Neither the next application nor a checkpoint of ours may take an older
// wal-index for true: the WAL holds commits of which it knows nothing.
func TestKilledThenExclusive_D24(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	run := func(how string) *exec.Cmd {
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
	a := run("normal")
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	p := New(path, func() *dbfile.Files { return files })
	if r, err := p.Checkpoint(t.Context(), sqlite.Passive, sqlite.Budget{}); err != nil || r.Backfilled < 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	a.Process.Kill()
	a.Wait()
	run("exclusive").Wait()
	// The checkpoint of a policy may come first, or the application.
	if _, err := files.Refresh(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r, err := p.Checkpoint(t.Context(), sqlite.Truncate, sqlite.Budget{Stall: time.Minute})
		if err == nil && r.Outcome == sqlite.OutcomeTruncated {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never truncated: %+v, %v", r, err)
		}
	}
	out, err := exec.Command("sqlite3", path, "select count(*) from t").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "24" {
		t.Errorf("D24: the application finds %s of 24 rows, %v", out, err)
	}
}
