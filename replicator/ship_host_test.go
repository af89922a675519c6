package replicator_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// writer is an unmodified application in another process. For each line n it commits n transactions
// and answers.
type writer struct {
	t     *testing.T
	path  string
	stdin io.WriteCloser
	lines *bufio.Scanner
	wait  func() error
}

const writerScript = `
import sqlite3, sys, random
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=normal")
db.execute("create table if not exists t(id integer primary key, k int, v blob)")
rnd = random.Random(5)
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        db.execute("begin immediate")
        db.execute("insert into t(k,v) values(?,?)", (rnd.randrange(1000), rnd.randbytes(rnd.randrange(900))))
        if rnd.random() < 0.2:
            db.execute("delete from t where k=?", (rnd.randrange(1000),))
        db.execute("commit")
    print("done", flush=True)
`

func startWriter(t *testing.T, path string) *writer {
	t.Helper()
	cmd := exec.Command("python3", "-u", "-c", writerScript, path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w := &writer{t: t, path: path, stdin: stdin, lines: bufio.NewScanner(stdout), wait: cmd.Wait}
	w.answer()
	return w
}

func (w *writer) answer() {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("application ended: %v", w.lines.Err())
	}
}

func (w *writer) commit(n int) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.stdin, n); err != nil {
		w.t.Fatal(err)
	}
	w.answer()
}

// end makes the application end in order.
func (w *writer) end() {
	w.t.Helper()
	w.stdin.Close()
	if err := w.wait(); err != nil {
		w.t.Fatal(err)
	}
}

// dump returns a summary of the content, and the result of an integrity check, from SQLite in
// another process.
func dump(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", path,
		"select count(*), total(k), total(length(v)), total(id*k) from t; pragma integrity_check").Output()
	if err != nil {
		t.Fatalf("dump %s: %v", path, err)
	}
	return string(out)
}

// host is sqlwatch for one database on one machine.
type host struct {
	passed  atomic.Int32 // drills that passed, as the log says
	t       *testing.T
	path    string
	state   string
	owner   string
	boot    string       // boot id of its machine; empty: of this machine
	skew    atomic.Int64 // of its clock, ahead of the real time
	options replicator.Options
	r       *replicator.Replicator
	files   atomic.Pointer[dbfile.Files]
	stop    func() error
}

func newHost(t *testing.T, path string, replicas ...replicator.ReplicaOptions) *host {
	h := &host{t: t, path: path, state: filepath.Join(t.TempDir(), "state"), owner: "host-a"}
	h.options.Replicas = replicas
	t.Cleanup(func() {
		if h.stop != nil {
			h.halt()
		}
	})
	return h
}

func (h *host) clock() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }

// openFiles opens the database's files, as the caller of the Replicator does.
func (h *host) openFiles() {
	h.t.Helper()
	files, err := dbfile.Open(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.files.Store(files)
}

// closeFiles ends the capture and closes the database's files.
func (h *host) closeFiles() {
	h.t.Helper()
	if err := errors.Join(h.r.Release(), h.files.Load().Close()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) start() {
	h.t.Helper()
	h.openFiles()
	o := h.options
	o.Name, o.StateDir, o.Owner, o.Boot, o.Clock = "app", h.state, h.owner, h.boot, h.clock
	o.Files = h.files.Load
	if o.FinalSync == 0 {
		o.FinalSync = 5 * time.Second
	}
	o.Logger = slog.New(slog.NewTextHandler(logOf{h.t, &h.passed}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	r, err := replicator.New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.r = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.r.Run(ctx) }()
	h.stop = func() error { cancel(); return <-done }
}

func (h *host) halt() {
	h.t.Helper()
	stop := h.stop
	h.stop = nil
	if err := errors.Join(stop(), h.files.Load().Close()); err != nil {
		h.t.Errorf("Run: %v", err)
	}
}

func (h *host) sync() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return h.r.SyncNow(ctx)
}

// synced is sync, but it must succeed, and may take long on a slow machine.
func (h *host) synced() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := h.r.SyncNow(ctx); err != nil {
		h.t.Fatal(err)
	}
}

// commits commits rows transactions n times, and syncs after each time.
func (h *host) commits(w *writer, n int, rows int) {
	h.t.Helper()
	for range n {
		w.commit(rows)
		h.synced()
	}
}

// begin starts sqlwatch and waits until the first sync has succeeded.
func (h *host) begin() {
	h.t.Helper()
	h.start()
	h.eventually("first sync", func() bool { return h.sync() == nil })
}

func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // the machine may be busy
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not within two minutes; status %+v", what, h.r.Replicas())
		}
		<-tick.C
	}
}

// refused waits until the replica is refused with that verdict and an error that names its owner.
func (h *host) refused(v lineage.Verdict, who string) {
	h.t.Helper()
	h.eventually("the replica is refused", func() bool {
		s := h.r.Replicas()[0]
		return s.Custody == v && strings.Contains(s.Err, who) && strings.Contains(s.Err, "--adopt")
	})
}

// wantIdle checks that while time passes the replica stays caught up without a request. A
// compaction window may end meanwhile, which may affect two of the three checks, but not all.
func (h *host) wantIdle(requests func() string) {
	h.t.Helper()
	var before, after string
	for range 3 {
		caught := h.r.Replicas()[0].CaughtUp
		before = requests()
		h.eventually("caught up moves on while idle",
			func() bool { return h.r.Replicas()[0].CaughtUp.Sub(caught) > 2*time.Second })
		if after = requests(); after == before {
			return
		}
	}
	h.t.Errorf("I11: idle requests: %s, then %s", before, after)
}

// wantRestored checks that the replica can be restored to what the application has.
func wantRestored(t *testing.T, st store.Store, path string) restore.Result {
	t.Helper()
	out := filepath.Join(t.TempDir(), "restored.db")
	result, err := restore.Run(t.Context(), st, restore.Options{Output: out, Check: restore.CheckFull})
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	if got, want := dump(t, out), dump(t, path); got != want {
		t.Fatalf("restored to txid %d: %q, the application has %q", result.TXID, got, want)
	}
	return result
}

type logOf struct {
	t      *testing.T
	passed *atomic.Int32 // drills that passed, as the log says
}

func (l logOf) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "drill passed") {
		l.passed.Add(1)
	}
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func database(t *testing.T) (string, *writer) {
	path := filepath.Join(t.TempDir(), "app.db")
	w := startWriter(t, path)
	w.commit(50)
	return path, w
}

const quick = 50 * time.Millisecond

func replica(name string, st store.Store) replicator.ReplicaOptions {
	return replicator.ReplicaOptions{Name: name, Store: st, SyncEvery: quick}
}

// unkeep deletes the local copies of uploaded files, which are kept for merging.
func (h *host) unkeep() {
	h.t.Helper()
	kept, err := filepath.Glob(filepath.Join(h.state, "replicas", "scratch", "kept-*"))
	if err != nil || len(kept) == 0 {
		h.t.Fatalf("kept: %v, %v", kept, err)
	}
	for _, name := range kept {
		if err := os.Remove(name); err != nil {
			h.t.Fatal(err)
		}
	}
}
