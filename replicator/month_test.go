package replicator_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
)

// metered counts what goes to a store and comes from it.
type metered struct {
	store.Store
	up, down, requests atomic.Int64
}

func (m *metered) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	m.requests.Add(1)
	object, err := m.Store.Put(ctx, key, body, o)
	if err == nil {
		m.up.Add(object.Size)
	}
	return object, err
}

func (m *metered) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	m.requests.Add(1)
	body, object, err := m.Store.Get(ctx, key, offset, length)
	if body != nil {
		body = &meteredBody{body, &m.down}
	}
	return body, object, err
}

type meteredBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

const bulkScript = `
import sqlite3, sys, random, os
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=off")
db.execute("create table if not exists bulk(id integer primary key, v blob)")
rows = int(sys.argv[2])
db.execute("begin")
for i in range(rows): db.execute("insert into bulk(v) values(?)", (os.urandom(3500),))
db.execute("commit")
rnd = random.Random(7)
print("ready", flush=True)
for line in sys.stdin:
    db.execute("begin immediate")
    for i in range(int(line)):
        db.execute("update bulk set v=? where id=?", (os.urandom(3500), rnd.randrange(rows) + 1))
    db.execute("commit")
    print("done", flush=True)
`

// TestMonth prints what a month of a large database costs, of which a hundredth changes
// in a day: with daily full copies, and with full copies when they are needed. It takes
// minutes, and runs where SQLWATCH_MONTH_MB says how large the database is to be.
func TestMonth(t *testing.T) {
	megabytes, _ := strconv.Atoi(os.Getenv("SQLWATCH_MONTH_MB"))
	if megabytes == 0 {
		t.Skip("SQLWATCH_MONTH_MB is not set")
	}
	for _, mode := range []struct {
		name string
		full time.Duration
	}{{"daily full copies", 24 * time.Hour}, {"when needed", 30 * 24 * time.Hour}} {
		t.Run(mode.name, func(t *testing.T) { month(t, megabytes, mode.full) })
	}
}

func month(t *testing.T, megabytes int, full time.Duration) {
	path, rows := filepath.Join(t.TempDir(), "app.db"), megabytes<<20/4096
	cmd := exec.Command("python3", "-u", "-c", bulkScript, path, strconv.Itoa(rows))
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(stdout)
	lines.Scan()

	dir := filepath.Join(t.TempDir(), "replica")
	inner, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	st := &metered{Store: inner}
	o := replica("file.a", st)
	o.SnapshotEvery, o.FullEvery = 24*time.Hour, full
	o.Retention = replicator.RetentionOptions{Keep: 30 * 24 * time.Hour, Grace: time.Hour}
	h := newHost(t, path, o)
	h.begin()
	if err := h.sync(); err != nil {
		t.Fatal(err)
	}
	first := st.up.Load()
	const aDay = 72
	for n := range 30 * aDay {
		fmt.Fprintln(stdin, max(1, rows/100/aDay))
		lines.Scan()
		if err := h.sync(); err != nil {
			t.Fatal(err)
		}
		h.skew.Add(int64([]time.Duration{10 * time.Second, 20 * time.Minute, 40*time.Minute - 10*time.Second}[n%3]))
	}
	h.eventually("maintenance rests", func() bool {
		before := st.requests.Load()
		<-time.After(2 * time.Second) // nothing tells when the last lane has ended
		return st.requests.Load() == before
	})
	var stored int64
	files := map[int]int{}
	for object, err := range inner.List(t.Context(), "0", "") {
		if err != nil {
			t.Fatal(err)
		}
		stored += object.Size
		if level, _, _, err := store.ParseLTXKey(object.Key); err == nil {
			files[level]++
		}
	}
	up, down, requests := st.up.Load()-first, st.down.Load(), st.requests.Load()
	plan, err := catalog.MakePlan(t.Context(), inner, catalog.Target{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := restore.Run(t.Context(), inner,
		restore.Options{Output: filepath.Join(t.TempDir(), "out.db")}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	began = time.Now()
	if out, err := exec.Command("sh", "-c", "cp \"$1\" \"$1.copy\" && sync \"$1.copy\"", "-",
		path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d MB, full copies %v apart: MB after the first copy: %d up, %d down, %d stored in all; %d requests; files "+
		"by "+
		"level %v; restore: %d files, %d MB, %v (cp: %v)", megabytes, full, up>>20, down>>20, stored>>20, requests, files,
		len(plan.Files), plan.Bytes>>20, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}
