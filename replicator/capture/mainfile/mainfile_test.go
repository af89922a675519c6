package mainfile

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// A file is described for sure when its times are not those of a write now: old ones,
// and those of before the clock was set back.
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
		t.Fatalf("before it is known which boot this is: %+v, %v", main, err)
	}
	p.ReadBoot(slog.New(slog.DiscardHandler))
	for name, test := range map[string]struct {
		age  time.Duration
		sure bool
	}{
		"old":                            {time.Hour, true},
		"of now":                         {-time.Millisecond, false}, // by then it is a few milliseconds old
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
		t.Errorf("a look left a -wal: %v", err)
	}
}
