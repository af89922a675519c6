package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// engineOf finds the version of SQLite that Python itself reports.
func TestEngineOf(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("/usr/bin/python3", "-c", "import sqlite3; print(sqlite3.sqlite_version)").Output()
	must(t, err)
	path := filepath.Join(t.TempDir(), "app.db")
	a := start(t, path, "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
	want := strings.TrimSpace(string(out))
	if got := dbfile.EngineVersion(engineOf(a.pid)); got != want {
		t.Errorf("python has loaded SQLite %s, found %s", want, got)
	}
	// This test has SQLite linked into its program.
	if got := dbfile.EngineVersion(versionIn("/proc/self/exe")); got == "" {
		t.Error("no SQLite was found in this program")
	}
	if got := versionIn("/bin/true"); got != 0 {
		t.Errorf("found SQLite %d in /bin/true", got)
	}
	if got := engineOf(1 << 30); got != 0 {
		t.Errorf("found SQLite %d in no process", got)
	}
}

// A process with an old SQLite is a finding even if a newer SQLite wrote last.
func TestOldEngines(t *testing.T) {
	t.Parallel()
	f := healthy()
	f.Processes[0].Engine = 3040001
	all := Diagnose(f)
	if len(all) != 1 || all[0].ID != "wal-reset-bug" || !strings.Contains(all[0].What, "pid 7") ||
		!strings.Contains(all[0].What, "3.40.1") {
		t.Errorf("found %+v", all)
	}
	f.File.WALResetBug, f.File.Engine = true, "3.40.1"
	if all := Diagnose(f); len(all) != 1 {
		t.Errorf("told twice: %+v", all)
	}
	f = healthy()
	f.Processes[0].Engine = 3051003
	if all := Diagnose(f); len(all) > 0 {
		t.Errorf("a good SQLite is a finding: %+v", all)
	}
}

// A reader of the database file itself, on READ0, prevents frames from being backfilled. It is
// reported like a reader on any other read mark.
func TestPinnedOnFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	writer := start(t, path, "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t (x)",
		"PRAGMA wal_checkpoint(TRUNCATE)")
	reader := start(t, path, "BEGIN", "SELECT count(*) FROM t")
	writer.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1200) " +
		"INSERT INTO t SELECT randomblob(4000) FROM n")
	f := Gather(context.Background(), "app", path)
	if !f.WAL.Pinned || !f.WAL.PinnedOnFile || f.WAL.PinnedBy.PID != reader.pid {
		t.Fatalf("pinned %v, on the file %v, by %d; want pid %d on READ0", f.WAL.Pinned, f.WAL.PinnedOnFile,
			f.WAL.PinnedBy.PID, reader.pid)
	}
	i := slices.IndexFunc(Diagnose(f), func(f Finding) bool { return f.ID == "pinned-reader" })
	if i < 0 {
		t.Fatalf("no finding: %+v", Diagnose(f))
	}
	if what := Diagnose(f)[i].What; !strings.Contains(what, "database file as it was before the WAL") {
		t.Errorf("told as %q", what)
	}
}

// Litestream is recognised under a name with its version.
func TestLitestreamByAnotherName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	writer := start(t, path, "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
	_ = writer
	startAs(t, copyOfPython(t, "litestream-0.3.13", path), "SELECT * FROM t")
	f := Gather(context.Background(), "app", path)
	if f.Litestream.Process == nil {
		t.Errorf("litestream-0.3.13 is not seen among %+v", f.Processes)
	}
	// It is recognised under any name by the package that it was built from.
	for program, want := range map[string]bool{"github.com/benbjohnson/litestream/cmd/litestream": true, "": false,
		"example.com/app": false} {
		if got := (Process{Command: "backup", Program: program}).isLitestream(); got != want {
			t.Errorf("built from %q: %v", program, got)
		}
	}
	if got := programOf(os.Getpid()); !strings.HasPrefix(got, "github.com/sqlwatch/sqlwatch/internal/doctor") {
		t.Errorf("this program was built from %q", got)
	}
}

// If a file system is not looked into, nothing else is reported: no journal mode, no file mode,
// no owner.
func TestNetworkAlone(t *testing.T) {
	t.Parallel()
	f := Facts{Name: "app", Path: "/mnt/app.db", Real: "/mnt/app.db", UID: 1000, State: StateUnexamined,
		Place: Place{Type: "fuse.sshfs", Point: "/mnt", Network: true}}
	all := Diagnose(f)
	if len(all) != 1 || all[0].ID != "network-filesystem" || !strings.Contains(all[0].What, "FUSE") {
		t.Errorf("found %+v", all)
	}
	if CanTurnWALOn(f) {
		t.Error("WAL mode would be turned on there")
	}
}

// A missing database is reported as missing, and no file is created in its place.
func TestExamineMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.db")
	got := Examine(context.Background(), Patient{Name: "none", Path: path, Fix: true})
	if len(got.Findings) != 1 || got.Findings[0].ID != "missing" || got.Fixed != "" {
		t.Errorf("found %+v", got)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the examination created a file")
	}
}
