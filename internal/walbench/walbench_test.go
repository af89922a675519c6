package walbench

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell runs SQL in the system's sqlite3.
func shell(t *testing.T, path, sql string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", path, sql).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestWorkload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "scratch.db")
	shell(t, path,
		`CREATE TABLE "odd ""name"(x); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; INSERT INTO "odd ""name"(rowid, x) `+
			`VALUES (200000, 1);`)
	table, err := Prepare(context.Background(), path)
	if err != nil || table != `"odd ""name"` {
		t.Fatalf("table %s, %v", table, err)
	}
	for _, wal := range []bool{true, false} {
		before := shell(t, path, `SELECT count(*) FROM "sqlwatch bench"`)
		r, err := Run(context.Background(), path, table, Workload{WAL: wal, Synchronous: "OFF", Readers: 2,
			Duration: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if r.Reads == 0 || r.Writes == 0 || r.Elapsed < time.Second/2 || r.LongestWrite == 0 {
			t.Errorf("WAL %v: %+v", wal, r)
		}
		if after := shell(t, path, `SELECT count(*) FROM "sqlwatch bench"`); after == before {
			t.Errorf("WAL %v: %d writes counted, the table still holds %s rows", wal, r.Writes, after)
		}
		if got, want := shell(t, path, "PRAGMA journal_mode"), map[bool]string{
			true: "wal", false: "delete"}[wal]; got != want {
			t.Errorf("journal mode %s, want %s", got, want)
		}
	}
	if _, err := Run(context.Background(), path, "nothing", Workload{Synchronous: "OFF", Readers: 1,
		Duration: time.Millisecond}); err == nil {
		t.Error("a table that is not there is no error")
	}
}
