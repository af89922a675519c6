package replicator_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// bill counts the bytes sent to and received from a store, and the requests that an S3 store would
// have served.
type bill struct {
	up, down             int64 // bytes
	writes, reads, lists float64
}

// metered is a store that keeps a bill.
type metered struct {
	store.Store
	mu   sync.Mutex
	bill bill
}

func (m *metered) add(b bill) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bill = bill{m.bill.up + b.up, m.bill.down + b.down, m.bill.writes + b.writes, m.bill.reads + b.reads,
		m.bill.lists + b.lists}
}

func (m *metered) now() bill {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bill
}

func (m *metered) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	object, err := m.Store.Put(ctx, key, body, o)
	b := bill{up: object.Size, writes: 1}
	if parts := (object.Size + s3.DefaultPartSize - 1) / s3.DefaultPartSize; parts > 1 {
		b.writes = float64(parts + 2) // with those that begin and complete the multipart upload
	}
	m.add(b)
	return object, err
}

func (m *metered) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	m.add(bill{reads: 1})
	body, object, err := m.Store.Get(ctx, key, offset, length)
	if body != nil {
		body = &meteredBody{body, m}
	}
	return body, object, err
}

func (m *metered) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		const page = 1000
		n := 0
		defer func() { m.add(bill{lists: float64(n/page + 1)}) }()
		for object, err := range m.Store.List(ctx, prefix, after) {
			n++
			if !yield(object, err) {
				return
			}
		}
	}
}

type meteredBody struct {
	io.ReadCloser
	m *metered
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.add(bill{down: int64(n)})
	return n, err
}

// bulkScript fills a database with rows of nearly a page each, of which a quarter is random. Then
// it updates as many rows in one commit as each line of its input says.
const bulkScript = `
import sqlite3, sys, random, os
path, rows = sys.argv[1], int(sys.argv[2])
def row(): return os.urandom(875) * 4
db = sqlite3.connect(path, isolation_level=None, timeout=20)
db.execute("pragma journal_mode=off"); db.execute("pragma synchronous=off") # a WAL of that size is not the question
db.execute("create table bulk(id integer primary key, v blob)")
db.execute("begin")
db.executemany("insert into bulk(v) values(?)", ((row(),) for _ in range(rows)))
db.execute("commit")
db.execute("pragma journal_mode=wal")
rnd = random.Random(7)
print("ready", flush=True)
for line in sys.stdin:
    db.execute("begin immediate")
    for i in range(int(line)):
        db.execute("update bulk set v=? where id=?", (row(), rnd.randrange(rows) + 1))
    db.execute("commit")
    print("done", flush=True)
`

// TestMonth prints what a month of a large database costs if a hundredth of it changes each day:
// with full copies only when needed, and with daily ones. It takes minutes or hours, and runs only
// if SQLWATCH_MONTH_MB gives the size of the database. It needs twice that size on disk, plus what
// is stored.
func TestMonth(t *testing.T) {
	megabytes, _ := strconv.Atoi(os.Getenv("SQLWATCH_MONTH_MB"))
	if megabytes == 0 {
		t.Skip("SQLWATCH_MONTH_MB is not set")
	}
	for _, mode := range []struct {
		name string
		full time.Duration
	}{{"when needed", 30 * 24 * time.Hour}, {"daily", 24 * time.Hour}} {
		t.Run(mode.name, func(t *testing.T) { month(t, megabytes, mode.full) })
	}
}

// month replicates a database for a month.
func month(t *testing.T, megabytes int, full time.Duration) {
	path, rows := filepath.Join(t.TempDir(), "app.db"), megabytes<<20/4096
	commit := startBulk(t, path, rows)
	inner, err := file.New(filepath.Join(t.TempDir(), "replica"))
	if err != nil {
		t.Fatal(err)
	}
	st := &metered{Store: inner}
	o := replica("file.a", st)
	o.SnapshotEvery, o.FullEvery = 24*time.Hour, full
	o.Retention = replicator.RetentionOptions{Keep: 30 * 24 * time.Hour, Grace: time.Hour}
	h := newHost(t, path, o)
	h.start()
	began := time.Now()
	patiently(t, "the first copy", h.sync)
	first := st.now()
	t.Logf("the first copy: %d MB in %v", first.up/1e6, time.Since(began).Round(time.Second))
	const aDay = 72
	for n := range 30 * aDay {
		commit(max(1, rows/100/aDay))
		patiently(t, "a sync", h.sync)
		h.skew.Add(int64([]time.Duration{10 * time.Second, 20 * time.Minute, 40*time.Minute - 10*time.Second}[n%3]))
		if full <= 24*time.Hour && n%aDay == aDay-1 { // on a busy machine the test's clock would run ahead of the copies
			patiently(t, "the day's full copy", func() error {
				if at := h.r.Replicas()[0].LastSnapshot; h.clock().Sub(at) > 25*time.Hour {
					<-time.After(50 * time.Millisecond)
					return fmt.Errorf("the last one is from %v", at)
				}
				return nil
			})
		}
		if n%(5*aDay) == 0 {
			t.Logf("day %d after %v: %+v", n/aDay, time.Since(began).Round(time.Second), st.now())
		}
	}
	patiently(t, "maintenance ends", func() error {
		before := st.now()
		<-time.After(5 * time.Second) // nothing reports when the last lane has ended
		if st.now() != before {
			return errors.New("the store is still in use")
		}
		return nil
	})
	h.halt() // otherwise it would make the next full copy while the restore is timed
	all := st.now()
	t.Logf("%d MB, full copies %v apart, in %v: after the first copy %d MB up, %d MB down", megabytes, full,
		time.Since(began).Round(time.Second), (all.up-first.up)/1e6, (all.down-first.down)/1e6)
	stored := sumStored(t, inner)
	for _, provider := range []string{"Amazon S3", "Backblaze B2"} {
		p, _ := requests.PricesOf(provider)
		t.Logf("%s: storage %.2f $ a month, requests %.2f $ (%.0f that write, %.0f that read, %.0f lists)", provider,
			p.Stored*float64(stored)/1e9, (p.Write*all.writes+p.Read*all.reads+p.List*all.lists)/1e6, all.writes, all.reads,
			all.lists)
	}
	againstCopy(t, inner, path)
}

// startBulk starts an application with that many rows. The returned function changes a number of
// them in one commit.
func startBulk(t *testing.T, path string, rows int) (commit func(int)) {
	cmd := exec.Command("python3", "-u", "-c", bulkScript, path, strconv.Itoa(rows))
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	w := &writer{t: t, path: path, stdin: stdin, lines: bufio.NewScanner(stdout)}
	began := time.Now()
	w.answer()
	t.Logf("made in %v", time.Since(began).Round(time.Second))
	return w.commit
}

// patiently retries for as long as a large database may take.
func patiently(t *testing.T, what string, try func() error) {
	t.Helper()
	err := try()
	for deadline := time.Now().Add(30 * time.Minute); err != nil && time.Now().Before(deadline); err = try() {
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// sumStored logs what a store holds, and returns its size in bytes.
func sumStored(t *testing.T, st store.Store) (stored int64) {
	files := map[int]int{}
	for object, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		stored += object.Size
		if level, _, _, err := store.ParseLTXKey(object.Key); err == nil {
			files[level]++
		}
	}
	t.Logf("%d MB stored, files by level %v", stored/1e6, files)
	return stored
}

// againstCopy logs how long a restore takes, compared with copying the database. It does one after
// the other, so that the two files do not exist at the same time.
func againstCopy(t *testing.T, st store.Store, path string) {
	plan, err := catalog.MakePlan(t.Context(), st, catalog.Target{})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	began := time.Now()
	if _, err := restore.Run(t.Context(), st, restore.Options{Output: out}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	const sample = "with recursive n(i) as (select 1 union all select i+97 from n " +
		"where i+97 <= (select max(id) from bulk)) select group_concat(hex(substr(v, 1, 8))) from n join bulk on id = i"
	if ask(t, out, sample) != ask(t, path, sample) {
		t.Error("restored rows differ from the application's")
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	text, err := exec.Command("sh", "-c", "cp \"$1\" \"$2\" && sync \"$2\"", "-", path, out).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	t.Logf("a restore reads %d files, %d MB, and takes %v; cp and sync %v", len(plan.Files), plan.Bytes/1e6,
		took.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
}

// ask runs a query with the system's SQLite and returns the output.
func ask(t *testing.T, db, query string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", db, query).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", db, err, out)
	}
	return string(out)
}
