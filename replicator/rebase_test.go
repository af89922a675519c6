package replicator

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
)

// TestRebase_P12_capturedMeanwhile: a replica turns out to be ahead of capture. Meanwhile capture
// continues, with TXIDs that belong to other states in the replica. The next chain begins behind
// both. A replica that asks for a base that is already passed causes no further chain.
func TestRebase_P12_capturedMeanwhile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	run := func(sql string) {
		t.Helper()
		if out, err := exec.Command("sqlite3", path, "pragma busy_timeout=20000; "+sql).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("pragma journal_mode=wal; create table t(v); insert into t values(1)")
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	r, err := New(Options{Name: "app", StateDir: t.TempDir(), Files: func() *dbfile.Files { return files }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if err := r.source.open(t.Context(), r.origin); err != nil {
		t.Fatal(err)
	}
	captured := func() {
		t.Helper()
		if _, err := r.source.settled(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	captured()
	base := r.backlog.Spool().Last() + 1 // the TXID that the replica reaches
	for range 3 {
		run("insert into t values(2)")
		captured()
	}
	last := r.backlog.Spool().Last()
	if last <= base {
		t.Fatalf("captured up to %d, not beyond %d: the test would prove nothing", last, base)
	}
	if err := r.source.rebase(t.Context(), base, time.Now()); err != nil {
		t.Fatal(err)
	}
	captured()
	begun := r.backlog.Begins()
	if begun <= custody.LeapOver(last) || !r.backlog.Spool().List()[0].Snapshot() {
		t.Errorf("the new chain begins at %d, want a snapshot behind %d", begun, custody.LeapOver(last))
	}
	if err := r.source.rebase(t.Context(), base, time.Now()); err != nil {
		t.Fatal(err)
	}
	if again := r.backlog.Begins(); again != begun {
		t.Errorf("a base that is passed caused another chain: it begins at %d, was %d", again, begun)
	}
}
