package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// app is an unmodified application: a Python process with the system's SQLite.
// It reads one line of Python at a time and answers each with a line.
type app struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// appScript defines what the lines may use: db, commit(n, rows), flat(seconds, pause), and
// deferred(seconds, think, pause), whose transactions read, think and then write on a connection
// without a busy timeout, as most libraries do. Without other processes deferred never meets a
// lock.
const appScript = `
import sqlite3, sys, time, os, random
path = sys.argv[1]
rnd = random.Random(int(sys.argv[2]))
def connect():
    global db
    db = sqlite3.connect(path, isolation_level=None, timeout=20)
    db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=normal")
    return db
def schema():
    db.execute("create table if not exists t(id integer primary key, k int, v blob)")
    db.execute("create index if not exists ti on t(k)")
def commit(n=1, rows=1, size=200):
    for _ in range(n):
        db.execute("begin immediate")
        for _ in range(rows):
            db.execute("insert into t(k,v) values(?,?)", (rnd.randrange(1000), rnd.randbytes(rnd.randrange(size))))
        if rnd.random() < 0.3:
            db.execute("delete from t where k=?", (rnd.randrange(1000),))
        db.execute("commit")
    return n
def flat(seconds, pause, rows=1, size=200):
    end = time.time() + seconds; n = 0; worst = 0
    while time.time() < end:
        if pause: time.sleep(pause)
        t = time.time(); n += commit(1, rows, size); worst = max(worst, time.time() - t)
    return n, worst
def deferred(seconds, think, pause):
    c = sqlite3.connect(path, isolation_level=None, timeout=0)
    c.execute("pragma synchronous=normal")
    end = time.time() + seconds; n = 0; errors = []; worst = 0
    while time.time() < end:
        a = time.time()
        try:
            c.execute("begin"); c.execute("select count(*) from (select 1 from t limit 10)").fetchone()
            if think: time.sleep(think)
            c.execute("insert into t(k,v) values(?,?)", (n, rnd.randbytes(3000))); c.execute("commit"); n += 1
        except sqlite3.OperationalError as e:
            errors.append(str(e)); c.in_transaction and c.execute("rollback")
        worst = max(worst, time.time() - a)
        if pause: time.sleep(pause)
    c.close()
    return "%d commits, %d errors %s, longest %.3f s" % (n, len(errors), errors[:1], worst)
connect()
print("ready", flush=True)
for line in sys.stdin:
    try:
        try: r = eval(line)
        except SyntaxError: exec(line); r = "ok"
        print("=", r, flush=True)
    except Exception as e:
        print("!", type(e).__name__, e, flush=True)
`

func startApp(t *testing.T, path string) *app {
	t.Helper()
	python := "/usr/bin/python3" // not the shim of a version manager, which takes a second to start
	if _, err := os.Stat(python); err != nil {
		python = "python3"
	}
	return startProcess(t, exec.Command(python, "-u", "-S", "-c", appScript, path, "7"))
}

// startProcess starts a program that prints one line when it is ready, and one for each line it is
// sent.
func startProcess(t *testing.T, cmd *exec.Cmd) *app {
	t.Helper()
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
	a := &app{t: t, cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(a.kill)
	a.answer()
	return a
}

func (a *app) kill() {
	if a.cmd.ProcessState == nil {
		a.cmd.Process.Kill()
		a.cmd.Wait()
	}
}

// quit ends the process as applications usually end, by closing the database.
func (a *app) quit() {
	a.t.Helper()
	a.do("db.close()")
	a.stdin.Close()
	if err := a.cmd.Wait(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) send(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.stdin, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) answer() string {
	a.t.Helper()
	if !a.lines.Scan() {
		a.t.Fatalf("application ended: %v", a.lines.Err())
	}
	line := a.lines.Text()
	if strings.HasPrefix(line, "!") {
		a.t.Fatalf("application failed: %s", line)
	}
	return strings.TrimPrefix(line, "= ")
}

func (a *app) do(line string) string {
	a.t.Helper()
	a.send(line)
	return a.answer()
}

// during sends the line and calls step every millisecond until the application has answered.
func (a *app) during(line string, step func()) string {
	a.t.Helper()
	a.send(line)
	done := make(chan string, 1)
	go func() { done <- a.answer() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case s := <-done:
			return s
		case <-tick.C:
			step()
		}
	}
}

// flat returns the line that makes the application write for that many seconds at full speed.
func flat(seconds float64) string { return fmt.Sprintf("flat(%.2f, %v)", seconds, flatPause) }

// scene is one database, its application and its capture.
type scene struct {
	t       *testing.T
	ctx     context.Context
	path    string
	options Options
	files   *dbfile.Files
	capture *Capture
	copies  *copyOf
}

func newScene(t *testing.T) *scene {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	s := &scene{t: t, ctx: ctx, path: filepath.Join(dir, "app.db"), copies: newCopy(t, filepath.Join(dir, "copy.db"))}
	s.options = Options{Name: "app", StateDir: filepath.Join(dir, "state")}
	return s
}

// open starts the capture.
func (s *scene) open() {
	s.t.Helper()
	files, err := dbfile.Open(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.files, s.options.Files = files, files
	s.capture = New(s.options)
	if err := s.capture.Open(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.close() })
}

func (s *scene) close() {
	s.t.Helper()
	if s.capture == nil {
		return
	}
	if err := errors.Join(s.capture.Close(), s.files.Close()); err != nil {
		s.t.Error(err)
	}
	s.capture = nil
}

// crash stops the capture as kill -9 does: nothing is flushed or settled.
func (s *scene) crash() {
	s.t.Helper()
	c := s.capture
	if err := errors.Join(c.hold.close(), c.state.Abandon(), s.files.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.capture = nil
}

func (s *scene) step(force bool) Progress {
	s.t.Helper()
	r, err := s.capture.Step(s.ctx, force)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// settle captures everything that was committed. No process may write meanwhile.
func (s *scene) settle() {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		got := s.step(true)
		x, err := s.files.WALIndex()
		if got.Complete && !s.capture.hold.isOpen() {
			return // no process has the database open: everything is in the main file
		}
		if got.Complete && err == nil && s.capture.state.Position().Current(x) && s.capture.continuity.lost == "" {
			return
		}
		time.Sleep(min(got.Next, 10*time.Millisecond))
	}
	s.t.Fatal("capture does not reach the end of the WAL of a quiet database")
}

// checkEqual applies what was captured to the copy, and fails the test unless it equals the source,
// byte for byte.
func (s *scene) checkEqual() {
	s.t.Helper()
	s.settle()
	s.copies.apply(s.capture.Spool().List())
	want := filepath.Join(filepath.Dir(s.path), "source.db")
	// The system's SQLite is the independent reader: it checkpoints a copy of the source with its
	// WAL. Nothing else is running at this point.
	output(s.t, "sh", "-c",
		`rm -f "$1-shm"; cp "$0" "$1" && { [ ! -e "$0-wal" ] || cp "$0-wal" "$1-wal"; } && sqlite3 "$1" "pragma `+
			`wal_checkpoint(truncate)"`, s.path, want)
	if out, err := exec.Command("cmp", want, s.copies.path).CombinedOutput(); err != nil {
		s.t.Fatalf("copy differs from source: %s", out)
	}
	if got := strings.TrimSpace(string(output(s.t, "sqlite3", s.copies.path, "pragma integrity_check"))); got != "ok" {
		s.t.Fatalf("integrity_check of the copy: %s", got)
	}
}

// output runs a program and returns what it prints. Tests read watched files through a program
// because closing a descriptor of such a file in this process would drop its POSIX locks.
func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s %v: %v: %s", name, args, err, exit.Stderr)
		}
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return out
}

// copyOf is a database built from segments. After each segment its checksum is compared with the
// segment's.
type copyOf struct {
	t    *testing.T
	path string
	file *os.File
	sums map[uint32]ltx.Checksum
	last ltx.TXID
}

func newCopy(t *testing.T, path string) *copyOf {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &copyOf{t: t, path: path, file: file, sums: make(map[uint32]ltx.Checksum)}
}

func (c *copyOf) apply(segments []spool.Segment) {
	c.t.Helper()
	for _, s := range segments {
		if s.MaxTXID <= c.last {
			continue
		}
		if s.MaxTXID != c.last+1 || (s.MinTXID != s.MaxTXID && s.MinTXID != 1) {
			c.t.Fatalf("segment %s-%s after %s", s.MinTXID, s.MaxTXID, c.last)
		}
		c.applyOne(s)
		c.last = s.MaxTXID
	}
}

func (c *copyOf) applyOne(s spool.Segment) {
	c.t.Helper()
	file, err := os.Open(s.Path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	if s.MinTXID == 1 {
		clear(c.sums)
	}
	dec := ltx.NewDecoder(bufio.NewReader(file))
	if err := dec.DecodeHeader(); err != nil {
		c.t.Fatal(err)
	}
	data := make([]byte, s.PageSize)
	for {
		var h ltx.PageHeader
		err := dec.DecodePage(&h, data)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.file.WriteAt(data, int64(h.Pgno-1)*int64(s.PageSize)); err != nil {
			c.t.Fatal(err)
		}
		c.sums[h.Pgno] = ltx.ChecksumPage(h.Pgno, data)
	}
	if err := dec.Close(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.file.Truncate(int64(s.Commit) * int64(s.PageSize)); err != nil {
		c.t.Fatal(err)
	}
	sum := ltx.ChecksumFlag
	for page, x := range c.sums {
		if page > s.Commit {
			delete(c.sums, page)
			continue
		}
		sum = ltx.ChecksumFlag | (sum ^ x)
	}
	if sum != s.Checksum {
		c.t.Fatalf("after segment %s (%s, reason %q): checksum %s, want %s", s.MaxTXID, s.Path, s.Reason, sum, s.Checksum)
	}
}

// wantLost checks that exactly these discontinuities were counted.
func (s *scene) wantLost(want map[Reason]uint64) {
	s.t.Helper()
	for reason, n := range s.capture.Discontinuities() {
		if n != want[Reason(reason)] {
			s.t.Errorf("discontinuities for %s: %d, want %d", reason, n, want[Reason(reason)])
		}
	}
}

func (s *scene) truncate() sqlite.Result {
	s.t.Helper()
	r, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{BusyTimeout: 10 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func commits(t *testing.T, answer string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.Trim(strings.Split(answer, ",")[0], "( "))
	if err != nil {
		t.Fatalf("application answered %q", answer)
	}
	return n
}
