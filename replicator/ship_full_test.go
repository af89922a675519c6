package replicator_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestShip_differential: while little changes, the files of days are merged and no full copy is
// made; from before the retention period only the files remain that a restore of the oldest kept
// moment needs. When more than half has changed, a full copy is made.
func TestShip_differential(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	run := func(sql string) {
		t.Helper()
		if out, err := exec.Command("sqlite3", path, "pragma busy_timeout=20000; "+sql).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run(`create table bulk(id integer primary key, v blob);
		with recursive n(i) as (select 1 union all select i+1 from n where i<500)
		insert into bulk(v) select randomblob(3000) from n`)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.SnapshotEvery, o.FullEvery = 24*time.Hour, 60*24*time.Hour
	o.Retention = replicator.RetentionOptions{Keep: 48 * time.Hour, Grace: time.Minute}
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.begin()
	type point struct {
		txid ltx.TXID
		sum  string
		at   time.Time
	}
	var points []point
	hour := func() {
		t.Helper()
		w.commit(1)
		h.synced()
		points = append(points, point{h.r.Replicas()[0].TXID, dump(t, path), h.clock()})
		h.skew.Add(int64(time.Hour))
	}
	for range 7 * 24 {
		hour()
	}
	h.eventually("days are merged, and old files are deleted", func() bool {
		hour()
		return count(st.Keys(), "0004/") >= 6 && count(st.Keys(), "0000/") < 100
	})
	if n := count(st.Keys(), "0009/"); n != 1 {
		t.Errorf("%d full copies although little changed", n)
	}
	if s := h.r.Replicas()[0]; h.clock().Sub(s.LastSnapshot) > 50*time.Hour {
		t.Errorf("the last check for a snapshot was %v ago", h.clock().Sub(s.LastSnapshot))
	}
	wantRestored(t, st, path)
	kept := 0
	for _, p := range points {
		if h.clock().Sub(p.at) > 47*time.Hour {
			continue
		}
		out := filepath.Join(t.TempDir(), "app.db")
		if _, err := restore.Run(t.Context(), st,
			restore.Options{Output: out, Target: catalog.Target{TXID: p.txid}}); err != nil {
			t.Fatalf("txid %d of %v ago: %v", p.txid, h.clock().Sub(p.at), err)
		}
		if got := dump(t, out); got != p.sum {
			t.Errorf("txid %d: %s, want %s", p.txid, got, p.sum)
		}
		kept++
	}
	if kept < 20 {
		t.Errorf("only %d moments were restored", kept)
	}
	theirRestore(t, st, points[len(points)-1].txid, points[len(points)-1].sum)
	theirRestore(t, st, points[len(points)-30].txid, points[len(points)-30].sum)
	if lists := listed(st); len(lists) < 6 {
		t.Errorf("lists of page checksums: %q", lists)
	}
	plan, err := catalog.MakePlan(t.Context(), st, catalog.Target{})
	if err != nil || len(plan.Files) > 90 {
		t.Errorf("the newest state is in %d files, %v", len(plan.Files), err)
	}
	run("update bulk set v = randomblob(3000) where id % 10 < 8")
	h.eventually("a full copy", func() bool { hour(); return count(st.Keys(), "0009/") > 1 })
	wantRestored(t, st, path)
}

// theirRestore restores a state from a copy of the replica with Litestream 0.5, if that is
// installed.
func theirRestore(t *testing.T, st store.Store, txid ltx.TXID, want string) {
	t.Helper()
	program := os.Getenv("LITESTREAM")
	if program == "" {
		var err error
		if program, err = exec.LookPath("litestream"); err != nil {
			t.Log("Litestream is not installed: put litestream 0.5 into PATH, or name it with $LITESTREAM")
			return
		}
	}
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "theirs.db")
	copied, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for object, err := range st.List(t.Context(), "0", "") {
		if err != nil {
			t.Fatal(err)
		}
		body := store.Body{Size: object.Size, Open: func() (io.ReadCloser, error) {
			r, _, err := st.Get(t.Context(), object.Key, 0, -1)
			return r, err
		}}
		if _, err := copied.Put(t.Context(), object.Key, body, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := exec.Command(program, "restore", "-o", out, "-txid", txid.String(), "file://"+dir).
		CombinedOutput(); err != nil {
		t.Fatalf("litestream restore: %v: %s", err, text)
	}
	if got := dump(t, out); got != want {
		t.Errorf("litestream restores txid %d as %s, want %s", txid, got, want)
	}
}

// bitrot corrupts the last byte of the first snapshot that is stored.
type bitrot struct {
	*storetest.Memory
	done atomic.Bool
}

func (b *bitrot) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	object, err := b.Memory.Put(ctx, key, body, o)
	if err == nil && strings.HasPrefix(key, "0009/") && !b.done.Swap(true) {
		b.Tamper(key, func(data []byte) []byte { data[len(data)-1] ^= 1; return data })
	}
	return object, err
}

// TestSnapshot_S16_readBack: a snapshot that reads back differently from what was sent is deleted
// and stored again.
func TestSnapshot_S16_readBack(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := &bitrot{Memory: storetest.NewMemory()}
	h := newHost(t, path, replica("memory.a", st))
	w.commit(3)
	h.begin()
	h.synced()
	if err := h.r.VerifyNow(t.Context()); err != nil {
		t.Error(err)
	}
	if !st.done.Load() || count(st.Keys(), "0009/") != 1 {
		t.Errorf("corrupt: %v; keys %q", st.done.Load(), st.Keys())
	}
	wantRestored(t, st, path)
}
