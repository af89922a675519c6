package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheckVersion_X2(t *testing.T) {
	t.Parallel()
	if err := CheckVersion(); err != nil {
		t.Errorf("the library we link: %v", err)
	}
	if VersionNumber() < minVersion || !strings.HasPrefix(Version(), "3.") {
		t.Errorf("version %s, %d", Version(), VersionNumber())
	}
	for number, old := range map[int]bool{3_040_001: true, 3_051_002: true, 3_051_003: false, 3_054_001: false} {
		if err := checkVersion(number); errors.Is(err, ErrOldLibrary) != old {
			t.Errorf("%d: %v", number, err)
		}
	}
}

// copyDatabase creates a database file of some size that nobody uses.
func copyDatabase(t *testing.T, statements string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "restored 100%.db")
	shell(t, path, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v);"+
		"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<2000) INSERT INTO t SELECT x, 'value ' || x "+
		"FROM n;"+statements)
	return path
}

func TestChecks(t *testing.T) {
	t.Parallel()
	path := copyDatabase(t, "")
	before := listing(t, path)
	if err := errors.Join(QuickCheck(t.Context(), path), IntegrityCheck(t.Context(), path)); err != nil {
		t.Error(err)
	}
	if after := listing(t, path); after != before {
		t.Errorf("the check left traces: from\n%sto\n%s", before, after)
	}
	if open := descriptors(t, path); len(open) > 0 {
		t.Errorf("descriptors left open: %v", open)
	}
	if err := QuickCheck(t.Context(), path+".missing"); !errors.Is(err, ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestChecks_D37_damage(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile(copyDatabase(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		damage    func(b []byte) []byte
		quick     bool // whether quick_check finds it too
		integrity bool
	}{
		{"none", func(b []byte) []byte { return b }, false, false},
		{"a page of zeros", func(b []byte) []byte { clear(b[4*4096 : 5*4096]); return b }, true, true},
		{"half a file", func(b []byte) []byte { return b[:len(b)/2] }, true, true},
		{"no header", func(b []byte) []byte { clear(b[:100]); return b }, true, true},
		{"another value in the table than in its index", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "value 1500", "value 9999", 1))
		}, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "corrupt.db")
			if err := os.WriteFile(path, test.damage([]byte(string(good))), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := QuickCheck(t.Context(), path); errors.Is(err, ErrCorrupt) != test.quick {
				t.Errorf("quick: %v", err)
			}
			if err := IntegrityCheck(t.Context(), path); errors.Is(err, ErrCorrupt) != test.integrity {
				t.Errorf("integrity: %v", err)
			}
		})
	}
}

// A crafted index expression makes the check run long, until the deadline ends it. CHECK
// constraints are not evaluated at all: SQLite skips them in a read-only database.
func TestChecks_D36_endless(t *testing.T) {
	t.Parallel()
	path := copyDatabase(t, "CREATE TABLE bomb(v); CREATE INDEX slow ON bomb(length(hex(zeroblob(v))));"+
		"INSERT INTO bomb SELECT 1000000 FROM t LIMIT 100;")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := IntegrityCheck(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	checked := copyDatabase(t, "CREATE TABLE c(v CHECK(v<10)); PRAGMA ignore_check_constraints=ON; INSERT INTO c VALUES "+
		"(50);")
	if err := IntegrityCheck(t.Context(), checked); err != nil {
		t.Errorf("a CHECK constraint was run: %v", err)
	}
}

// A crafted index expression would make a hundred megabytes out of a few bytes; the limit on
// lengths prevents that.
func TestChecks_D36_huge(t *testing.T) {
	t.Parallel()
	path := copyDatabase(t, "CREATE TABLE bomb(v); INSERT INTO bomb VALUES (1);"+
		"CREATE INDEX huge ON bomb(length(zeroblob(v)), instr(zeroblob(v), x'01')); UPDATE bomb SET v = 100000000;")
	if err := IntegrityCheck(t.Context(), path); err == nil || !strings.Contains(err.Error(), "too big") {
		t.Errorf("got %v", err)
	}
	honest := copyDatabase(t, "CREATE TABLE large(v); INSERT INTO large VALUES (randomblob(70000000)); CREATE INDEX "+
		"by_length ON large(length(v));")
	if err := IntegrityCheck(t.Context(), honest); err != nil {
		t.Errorf("a value of 70 MB in a file of 70 MB: %v", err)
	}
}

func TestSetJournalModeWAL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	shell(t, path, "CREATE TABLE t(v)")
	for range 2 {
		if err := SetJournalModeWAL(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if got := shell(t, path, "PRAGMA journal_mode"); got != "wal" {
		t.Errorf("journal mode %s", got)
	}
	if err := SetJournalModeWAL(t.Context(), path+".missing"); !errors.Is(err, ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	busy := filepath.Join(t.TempDir(), "busy.db")
	shell(t, busy, "CREATE TABLE t(v)")
	startPython(t, session, busy, "0").run(t, "BEGIN IMMEDIATE")
	if err := SetJournalModeWAL(t.Context(), busy); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a writer: %v", err)
	}
}

// descriptors lists our open descriptors of a file.
func descriptors(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, entry := range entries {
		// A descriptor may be gone by now: the directory's own is.
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && target == path {
			open = append(open, entry.Name())
		}
	}
	return open
}
