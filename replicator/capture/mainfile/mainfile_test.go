package mainfile

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// TestSure_P8: Sure describes a file unless its modification time is that of a write just now. Old
// times and times from before the clock was set back are fine.
func TestSure_P8(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	out, err := exec.Command("sqlite3", path, "pragma journal_mode=wal; create table t(v)").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	p := New(files)
	if main, err := p.Sure(); err != nil || main.Size != 0 {
		t.Fatalf("before the boot id is known: %+v, %v; want a zero description", main, err)
	}
	p.ReadBoot(slog.New(slog.DiscardHandler))
	for name, test := range map[string]struct {
		age  time.Duration
		sure bool
	}{
		"old":                            {time.Hour, true},
		"of now":                         {-time.Millisecond, false}, // a few milliseconds old by the time it is checked
		"of before the clock was set":    {-time.Hour, true},
		"of long before it was set back": {-10 * 365 * 24 * time.Hour, true},
	} {
		at := time.Now().Add(-test.age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		main, err := p.Sure()
		if err != nil {
			t.Fatal(err)
		}
		if late := time.Since(at).Abs() >= Tick; (main.Size != 0) != test.sure && (test.sure || !late) {
			t.Errorf("%s: described %v, want %v", name, main.Size != 0, test.sure)
		}
	}
	if _, err := os.Stat(path + "-wal"); err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sure created a -wal: %v", err)
	}
}

// TestAged_P8_wholeSeconds: where a file system keeps whole seconds, two writes of one second leave the same times.
func TestAged_P8_wholeSeconds(t *testing.T) {
	t.Parallel()
	now, second := time.Now().UnixNano(), int64(time.Second)
	for name, test := range map[string]struct {
		modified, changed int64
		want              bool
	}{
		"nanoseconds, of a moment ago":         {now - 3*int64(Tick) | 1, now - 3*int64(Tick) | 1, true},
		"set to a whole second, a moment ago":  {(now/second - 60) * second, now - 3*int64(Tick) | 1, true},
		"whole seconds, long ago":              {(now/second - 3) * second, (now/second - 3) * second, true},
		"whole seconds, of the next one":       {(now/second + 1) * second, (now/second + 1) * second, false},
		"every second second, of the next one": {(now/second/2 + 1) * 2 * second, (now/second/2 + 1) * 2 * second, false},
	} {
		main := spool.MainFile{Modified: test.modified, Changed: test.changed, Size: 4096, Boot: "boot"}
		if got := Aged(main); got != test.want {
			t.Errorf("%s: a later write would show: %v, want %v", name, got, test.want)
		}
	}
}

// keeper is an application that stays connected: it writes many rows, backfills them and copies its
// file; then it executes each line of SQL that it is sent.
const keeper = `
import sqlite3, sys, shutil
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma page_size=512"); db.execute("pragma journal_mode=wal"); db.execute("pragma wal_autocheckpoint=0")
db.execute("create table t(id integer primary key, v blob)"); db.execute("begin")
for i in range(10000): db.execute("insert into t(v) values(randomblob(400))")
db.execute("commit")
db.execute("pragma wal_checkpoint(truncate)").fetchone()
shutil.copy(sys.argv[1], sys.argv[1] + ".old")
for line in sys.stdin:
    db.execute(line).fetchone(); print("did", flush=True)
`

// TestBackfilled_D4: a file that was overwritten after a checkpoint lacks what the checkpoint
// wrote. Before a checkpoint, the WAL proves nothing about the file.
func TestBackfilled_D4(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := exec.Command("python3", "-c", keeper, path)
	stdin, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); app.Wait() })
	answers := bufio.NewScanner(stdout)
	do := func(sql string) {
		t.Helper()
		if _, err := io.WriteString(stdin, sql+"\n"); err != nil || !answers.Scan() {
			t.Fatal(sql, err, answers.Err())
		}
	}
	do("update t set v=randomblob(400) where id % 2 = 0") // enough frames for two blocks of the wal-index
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	p := New(files)
	backfilled := func(what string, want bool) {
		t.Helper()
		x, err := files.WALIndex()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Backfilled(x); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v (%d of %d frames backfilled)", what, got, err, want, x.Backfilled, x.MaxFrame)
		}
	}
	if x, err := files.WALIndex(); err != nil || x.MaxFrame <= 4096 {
		t.Fatalf("%+v, %v; want more frames", x, err)
	}
	backfilled("nothing was", true)
	do("pragma wal_checkpoint(passive)")
	backfilled("all of it was", true)
	if out, err := exec.Command("cp", path, path+".new").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("cp", path+".old", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	backfilled("then the file was written over", false)
	if out, err := exec.Command("cp", path+".new", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	backfilled("with what it was", true)
	if out, err := exec.Command("truncate", "-s", "8192", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	backfilled("then it was cut", false)
}
