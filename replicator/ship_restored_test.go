package replicator_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// restoredTo restores a state into a new file, with a note of its lineage.
func restoredTo(t *testing.T, st store.Store, out string, txid ltx.TXID) {
	t.Helper()
	if _, err := restore.Run(t.Context(), st, restore.Options{Output: out, Target: catalog.Target{TXID: txid},
		Note: true}); err != nil {
		t.Fatal(err)
	}
}

// TestShip_R15_restoredOver: the newest state, or an older one, is restored over the database while
// sqlwatch runs, and the application continues with it. The replica gets what follows and keeps
// every earlier state.
func TestShip_R15_restoredOver(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		t.Run(map[bool]string{false: "newest", true: "older"}[older], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, out := filepath.Join(dir, "app.db"), filepath.Join(dir, "restored.db")
			seed := startWriter(t, path)
			seed.commit(50)
			st := storetest.NewMemory().Enforce(t)
			h := newHost(t, path, replica("memory.a", st))
			h.begin()
			states := map[ltx.TXID]string{}
			note := func() ltx.TXID {
				t.Helper()
				h.synced()
				txid := h.r.Replicas()[0].TXID
				states[txid] = dump(t, path)
				return txid
			}
			chosen := note()
			seed.commit(10)
			if last := note(); !older {
				chosen = last
			}
			seed.stdin.Close() // the application ends in order
			for seed.lines.Scan() {
			}
			restoredTo(t, st, out, chosen)
			if text, err := exec.Command("sh", "-c", `rm -f "$1-wal" "$1-shm"; mv "$2" "$1" && mv "$2-sqlwatch" "$1-sqlwatch"`,
				"sh", path, out).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			h.eventually("the restored file is noticed", func() bool { return h.sync() != nil })
			h.closeFiles()
			h.openFiles()
			w := startWriter(t, path)
			w.commit(7)
			h.eventually("what follows is stored", func() bool { return h.sync() == nil })
			result := wantRestored(t, st, path)
			for txid, want := range states {
				again := filepath.Join(t.TempDir(), "then.db")
				restoredTo(t, st, again, txid)
				if got := dump(t, again); got != want || txid >= result.TXID {
					t.Errorf("txid %d of %d: %q, want %q", txid, result.TXID, got, want)
				}
			}
		})
	}
}

// TestShip_R16: the restored file is the original byte for byte, whatever its page size, encoding,
// vacuum mode and header fields.
func TestShip_R16(t *testing.T) {
	t.Parallel()
	for i, pragmas := range []string{
		"pragma page_size=512; pragma encoding='UTF-16le'; pragma user_version=-7",
		"pragma page_size=65536; pragma encoding='UTF-16be'; pragma application_id=1196444487",
		"pragma page_size=4096; pragma auto_vacuum=full; pragma user_version=2147483647",
		"pragma page_size=1024; pragma auto_vacuum=incremental; pragma application_id=-1",
		"pragma page_size=16384; pragma secure_delete=on",
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			run := func(sql string) {
				t.Helper()
				if out, err := exec.Command("sqlite3", path, "pragma busy_timeout=20000; "+sql).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			run(pragmas + `; pragma journal_mode=wal; create table u(a text, b blob);
				with recursive n(i) as (select 1 union all select i+1 from n where i<400)
				insert into u select 'ünï' || i, randomblob(i * 3) from n`)
			st := storetest.NewMemory().Enforce(t)
			h := newHost(t, path, replica("memory.a", st))
			h.begin()
			run("delete from u where rowid % 3 = 0; insert into u values('é', zeroblob(70000)); pragma incremental_vacuum(5)")
			h.synced()
			h.halt()
			run("pragma wal_checkpoint(truncate)")
			out := filepath.Join(t.TempDir(), "restored.db")
			restoredTo(t, st, out, 0)
			got, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(path) // this process has no connection to it any more
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes restored, %d are there, equal %v; %v", len(got), len(want), bytes.Equal(got, want), err)
			}
		})
	}
}
