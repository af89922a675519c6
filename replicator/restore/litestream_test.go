package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// litestream returns the path of a Litestream binary of the given version line, from the
// environment variable or the PATH.
func litestream(t testing.TB, variable, version string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		var err error
		if path, err = exec.LookPath("litestream"); err != nil {
			t.Skipf("Litestream %s is not installed: put litestream into PATH or name it with $%s", version, variable)
		}
	}
	help, err := exec.Command(path, "restore", "-h").CombinedOutput()
	if is05 := strings.Contains(string(help), "-txid"); is05 != (version == "0.5") {
		t.Skipf("%s is not Litestream %s (%v)", path, version, err)
	}
	return path
}

// runSQL runs statements with the system's sqlite3 and returns the output.
func runSQL(t testing.TB, path, sql string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", path, sql).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s: %v\n%s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// realHistory returns a history whose states are those of a real database.
func realHistory(t testing.TB, st store.Store) *history {
	t.Helper()
	h := newHistory(t, st, 4096, 1)
	path := filepath.Join(t.TempDir(), "app.db")
	for i, sql := range []string{
		"PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE INDEX i ON t(v)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t SELECT i, randomblob(300) " +
			"FROM n",
		"UPDATE t SET v = randomblob(100) WHERE id % 7 = 0", "DELETE FROM t WHERE id > 200", "VACUUM",
		"INSERT INTO t VALUES (1000, 'last')",
	} {
		runSQL(t, path, sql)
		data, err := os.ReadFile(path) // the last connection's close has checkpointed the WAL
		if err != nil {
			t.Fatal(err)
		}
		h.commitState(data)
		if i == 3 {
			h.compact(1, 2, 4)
			h.snapshot()
		}
	}
	return h
}

func TestLitestream05RestoresOurs(t *testing.T) {
	bin := litestream(t, "LITESTREAM", "0.5")
	dir := t.TempDir()
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := realHistory(t, s)
	for _, txid := range []ltx.TXID{2, 3, 6} {
		out := filepath.Join(t.TempDir(), "theirs.db")
		msg, err := exec.Command(bin, "restore", "-o", out, "-txid", txid.String(), "file://"+dir).CombinedOutput()
		if err != nil {
			t.Fatalf("litestream restore -txid %s: %v\n%s", txid, err, msg)
		}
		data, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(data, h.states[txid]) {
			t.Errorf("txid %s: Litestream restored other bytes (%v)", txid, err)
		}
		h.want(catalog.Target{TXID: txid}, txid)
	}
	out := filepath.Join(t.TempDir(), "theirs.db")
	when := h.times[5].Add(time.Millisecond).Format(time.RFC3339Nano)
	if msg, err := exec.Command(bin, "restore", "-o", out, "-timestamp", when,
		"file://"+dir).CombinedOutput(); err != nil {
		t.Fatalf("litestream restore -timestamp %s: %v\n%s", when, err, msg)
	}
	if data, err := os.ReadFile(out); err != nil || !bytes.Equal(data, h.states[5]) {
		t.Errorf("time of txid 5: Litestream restored other bytes (%v)", err)
	}
}

// replicated runs Litestream on a database while it is written to, and returns the replica's
// directory and the database.
func replicated(t testing.TB, bin string) (dir, db string) {
	t.Helper()
	dir, db = t.TempDir(), filepath.Join(t.TempDir(), "app.db")
	runSQL(t, db, "PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
	writer := exec.Command("python3", "-c", `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
end = time.time() + 4
n = 0
while time.time() < end:
    n += 1
    c.execute("INSERT INTO t(v) VALUES (randomblob(2000))")
    if n % 50 == 0: c.execute("DELETE FROM t WHERE id % 3 = 0")
    time.sleep(0.002)
`, db)
	daemon := exec.Command(bin, "replicate", db, "file://"+dir)
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := errors.Join(daemon.Start(), writer.Start()); err != nil {
		t.Fatal(err)
	}
	if err := writer.Wait(); err != nil {
		t.Errorf("writer: %v", err)
	}
	if err := daemon.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Logf("litestream replicate: %v\n%s", err, log.String())
	}
	return dir, db
}

func testTheirReplica(t *testing.T, bin string) {
	dir, db := replicated(t, bin)
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(t.TempDir(), "theirs.db")
	if msg, err := exec.Command(bin, "restore", "-o", theirs, "file://"+dir).CombinedOutput(); err != nil {
		t.Fatalf("litestream restore: %v\n%s", err, msg)
	}
	ours := filepath.Join(t.TempDir(), "ours.db")
	result, err := restore.Run(context.Background(), s, restore.Options{Output: ours, Check: restore.CheckFull})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(ours)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes restored by us differ from %d by Litestream (%v)", len(got), len(want), err)
	}
	const sum = "SELECT count(*), sum(id), sum(length(v)) FROM t"
	if got, want := runSQL(t, ours, sum), runSQL(t, db, sum); got != want {
		t.Errorf("rows %s, the source has %s", got, want)
	}
	t.Logf("%d objects, %d pages, rows %s", len(result.Objects), result.Pages, runSQL(t, ours, sum))
}

func TestRestoreLitestream05(t *testing.T) { testTheirReplica(t, litestream(t, "LITESTREAM", "0.5")) }
func TestRestoreLitestream03(t *testing.T) { testTheirReplica(t, litestream(t, "LITESTREAM3", "0.3")) }

// v3Replica makes a replica in Litestream 0.3's layout: a snapshot, and the WALs of two indexes in
// segments.
func v3Replica(t testing.TB) (m *storetest.Memory, states [][]byte) {
	t.Helper()
	m = storetest.NewMemory()
	now := time.Date(2023, 5, 5, 0, 0, 0, 0, time.UTC)
	m.SetClock(func() time.Time { now = now.Add(time.Minute); return now })
	put := func(key string, data []byte) {
		t.Helper()
		var b bytes.Buffer
		w := lz4.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Put(context.Background(), "generations/0123456789abcdef/"+key, storetest.Bytes(b.Bytes()),
			store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "app.db")
	runSQL(t, path, "PRAGMA journal_mode=wal; CREATE TABLE t(v)")
	read := func(p string) []byte {
		t.Helper()
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	snapshot := read(path)
	put("snapshots/00000004.snapshot.lz4", snapshot)
	states = append(states, snapshot)
	for index := 4; index < 6; index++ {
		wal := walOf(t, path, fmt.Sprintf("INSERT INTO t VALUES (randomblob(9000)), (%d); DELETE FROM t WHERE typeof(v) = "+
			"'integer'", index))
		frames := (len(wal) - 32) / (24 + 4096)
		for from, i := 0, 1; i <= 3; i++ {
			to := 32 + frames*i/3*(24+4096)
			put(fmt.Sprintf("wal/%08x_%08x.wal.lz4", index, from), wal[from:to])
			from = to
		}
		states = append(states, read(path))
	}
	return m, states
}

// walOf runs statements and returns the WAL they made. Closing the database then checkpoints it.
func walOf(t testing.TB, path, sql string) []byte {
	t.Helper()
	kept := path + ".kept"
	shell := exec.Command("sqlite3", path)
	shell.Stdin = strings.NewReader("PRAGMA wal_autocheckpoint=0;\n" + sql + ";\n.shell cp " + path + "-wal " + kept +
		"\n")
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRestoreGenerations(t *testing.T) {
	m, states := v3Replica(t)
	data, result, err := restored(t, m, catalog.Target{})
	if err != nil || !bytes.Equal(data, states[2]) || len(result.Objects) != 7 {
		t.Fatalf("newest: %v, as it was: %v, objects %q", err, bytes.Equal(data, states[2]), result.Objects)
	}
	data, _, err = restored(t, m, catalog.Target{Timestamp: time.Date(2023, 5, 5, 0, 4, 30, 0, time.UTC)})
	if err != nil || !bytes.Equal(data, states[1]) {
		t.Errorf("at the end of the first index: %v, as it was: %v", err, bytes.Equal(data, states[1]))
	}
	for name, target := range map[string]catalog.Target{
		"before": {Timestamp: time.Date(2023, 5, 5, 0, 0, 30, 0, time.UTC)},
		"after":  {Timestamp: time.Date(2023, 5, 6, 0, 0, 0, 0, time.UTC)}} {
		var out *catalog.RangeError
		if _, _, err := restored(t, m, target); !errors.As(err, &out) {
			t.Errorf("%s: %v, want a *RangeError", name, err)
		}
	}
	if _, _, err := restored(t, m, catalog.Target{TXID: 3}); err == nil {
		t.Error("a txid: no error")
	}
	t.Run("R1_damage", func(t *testing.T) {
		stride := 3989 // ten times as many places if SQLWATCH_TEST_EVERY_BYTE is set
		if os.Getenv("SQLWATCH_TEST_EVERY_BYTE") != "" {
			stride = 397
		}
		for _, key := range m.Keys() {
			var original []byte
			m.Tamper(key, func(data []byte) []byte { original = bytes.Clone(data); return data })
			for i := 0; i < len(original); i += stride {
				m.Tamper(key, func([]byte) []byte { flipped := bytes.Clone(original); flipped[i] ^= 0x20; return flipped })
				if data, _, err := restored(t, m, catalog.Target{}); err == nil && !bytes.Equal(data, states[2]) {
					t.Fatalf("%s, byte %d flipped: success with other contents", key, i)
				}
				m.Tamper(key, func([]byte) []byte { return original[:i] })
				if data, _, err := restored(t, m, catalog.Target{}); err == nil && !bytes.Equal(data, states[2]) {
					t.Fatalf("%s, cut to %d: success with other contents", key, i)
				}
			}
			m.Tamper(key, func([]byte) []byte { return original })
		}
	})
	t.Run("R2_gap", func(t *testing.T) {
		keys := m.Keys()
		if err := m.Delete(context.Background(), keys[2]); err != nil { // a segment in the middle
			t.Fatal(err)
		}
		if _, _, err := restored(t, m, catalog.Target{}); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("%v, want the missing segment", err)
		}
	})
}

// TestRestoreGenerations_R22: a WAL beyond 4 GiB has offsets of nine hexadecimal digits. A name
// that Litestream does not use is an error, because it may belong to the history.
func TestRestoreGenerations_R22(t *testing.T) {
	const generation = "generations/0123456789abcdef/"
	m, states := v3Replica(t)
	rename := func(from, to string) {
		t.Helper()
		body, _, err := m.Get(t.Context(), from, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err == nil {
			_, err = m.Put(t.Context(), to, storetest.Bytes(data), store.PutOptions{})
		}
		if err == nil {
			err = m.Delete(t.Context(), from)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range m.Keys() {
		if name, ok := strings.CutPrefix(key, generation+"wal/00000005_"); ok {
			rename(key, generation+"wal/00000005_0"+name)
		}
	}
	data, _, err := restored(t, m, catalog.Target{})
	if err != nil || !bytes.Equal(data, states[2]) {
		t.Errorf("offsets of nine digits: %v, as it was: %v", err, bytes.Equal(data, states[2]))
	}
	for _, name := range []string{"wal/00000006_00000000.wal.zst", "wal/6_0.wal.lz4", "snapshots/00000006.snapshot"} {
		if _, err := m.Put(t.Context(), generation+name, storetest.Bytes([]byte("?")), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := restored(t, m, catalog.Target{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := m.Delete(t.Context(), generation+name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestore_R23_twoHistories: a replica holds LTX files and files of Litestream 0.3, because
// Litestream was upgraded or an upgrade was undone. Both histories can be restored, by time.
func TestRestore_R23_twoHistories(t *testing.T) {
	for name, year := range map[string]int{"taken back": 2022, "upgraded": 2024} {
		t.Run(name, func(t *testing.T) {
			m, states := v3Replica(t) // its times are in 2023
			h := newHistory(t, m, 4096, 1)
			h.clock = time.Date(year, 3, 1, 12, 0, 0, 0, time.UTC)
			for range 3 {
				h.commit()
			}
			read := func(target catalog.Target) []byte {
				t.Helper()
				out := filepath.Join(t.TempDir(), "out.db")
				if _, err := restore.Run(t.Context(), m, restore.Options{Output: out, Target: target,
					Check: restore.CheckNone}); err != nil {
					t.Fatalf("%+v: %v", target, err)
				}
				data, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				return data
			}
			newest := states[2]
			if year == 2024 {
				newest = h.states[3]
			}
			if !bytes.Equal(read(catalog.Target{}), newest) {
				t.Error("the newest state is not the newer history's")
			}
			if !bytes.Equal(read(catalog.Target{Timestamp: time.Date(2023, 5, 5, 0, 4, 30, 0, time.UTC)}), states[1]) {
				t.Error("wrong state for a moment of Litestream 0.3's history")
			}
			if !bytes.Equal(read(catalog.Target{Timestamp: h.times[2]}), h.states[2]) ||
				!bytes.Equal(read(catalog.Target{TXID: 2}), h.states[2]) {
				t.Error("wrong state for a moment or a txid of the LTX files")
			}
		})
	}
}

// TestRestore_R24_doubt: a moment long after one file of Litestream 0.3 and before the next one,
// which may be in the same generation, in another, or an LTX file. The restore yields the state
// before the moment and names both neighbours; with Exact it is an error.
func TestRestore_R24_doubt(t *testing.T) {
	m, states := v3Replica(t) // a snapshot at 0:01, six segments at 0:02 to 0:07
	h := newHistory(t, m, 4096, 1)
	h.clock = time.Date(2023, 5, 5, 1, 0, 0, 0, time.UTC)
	h.commit()
	at := func(minute, second int) time.Time { return time.Date(2023, 5, 5, 0, minute, second, 0, time.UTC) }
	for name, scene := range map[string]struct {
		asked     time.Time
		state     int
		neighbour string
	}{
		"at once":           {at(4, 2), 1, ""},
		"in a generation":   {at(4, 30), 1, "2023-05-05T00:05:00Z"},
		"before who is new": {at(30, 0), 2, h.times[1].UTC().Format(time.RFC3339Nano)},
	} {
		t.Run(name, func(t *testing.T) {
			target := catalog.Target{Timestamp: scene.asked}
			data, result, err := restored(t, m, target)
			if err != nil || !bytes.Equal(data, states[scene.state]) {
				t.Fatalf("%v, as it was: %v", err, bytes.Equal(data, states[scene.state]))
			}
			told := strings.Join(result.Warnings, " ")
			if (scene.neighbour != "") != (result.Doubt != nil) || !strings.Contains(told, scene.neighbour) {
				t.Errorf("doubt %v, warnings %q", result.Doubt, told)
			}
			for _, dry := range []bool{false, true} {
				_, err = restore.Run(t.Context(), m, restore.Options{Output: filepath.Join(t.TempDir(), "out.db"), Target: target,
					Exact: true, DryRun: dry, Check: restore.CheckNone})
				var doubt *catalog.Doubt
				if errors.As(err, &doubt) != (scene.neighbour != "") {
					t.Errorf("exact, dry run %v: %v", dry, err)
				}
			}
		})
	}
	for name, asked := range map[string]time.Time{"before all": at(0, 10), "after all": h.times[1].Add(time.Hour)} {
		_, _, err := restored(t, m, catalog.Target{Timestamp: asked})
		if err == nil || !strings.Contains(err.Error(), "00:01:00Z to") || !strings.Contains(err.Error(), "txid 1 (") {
			t.Errorf("%s: %v, want an error that names both histories", name, err)
		}
	}
}

// TestRestoreGenerations_R2_noSnapshot: a generation of Litestream 0.3 whose snapshots were removed is a gap, also
// where an older one is whole: its last state is not the newest.
func TestRestoreGenerations_R2_noSnapshot(t *testing.T) {
	m, states := v3Replica(t) // a snapshot at 0:01, six segments at 0:02 to 0:07
	const newer = "generations/fedcba9876543210/"
	if _, err := m.Put(t.Context(), newer+"wal/00000000_00000000.wal.lz4", storetest.Bytes([]byte("?")),
		store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	at := func(minute int) catalog.Target {
		return catalog.Target{Timestamp: time.Date(2023, 5, 5, 0, minute, 1, 0, time.UTC)}
	}
	for name, target := range map[string]catalog.Target{"newest": {}, "when it was stored": at(8), "behind": at(30)} {
		_, result, err := restored(t, m, target)
		if err == nil || errors.Is(err, catalog.ErrEmpty) || name != "behind" && !strings.Contains(err.Error(),
			"fedcba9876543210") {
			t.Errorf("%s: %v, %v", name, result.Timestamp, err)
		}
	}
	if data, _, err := restored(t, m, at(7)); err != nil || !bytes.Equal(data, states[2]) {
		t.Errorf("a moment before it: %v, as it was: %v", err, bytes.Equal(data, states[2]))
	}
	for _, key := range m.Keys() {
		if strings.Contains(key, "/snapshots/") {
			if err := m.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := restored(t, m, catalog.Target{}); err == nil || errors.Is(err, catalog.ErrEmpty) {
		t.Errorf("no snapshot at all: %v", err)
	}
}
