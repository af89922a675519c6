package busy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
	"golang.org/x/sys/unix"
)

// threads contends within one process, as a threaded server does, and counts its
// own SQLITE_BUSY.
const threads = `
import sqlite3, sys, threading, time
path = sys.argv[1]
def connect(): return sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
own = [connect() for _ in range(3)]
for c in own: c.execute("select count(*) from t").fetchone()
print("ready", flush=True)
sys.stdin.readline()
busy = [0, 0, 0]
def work(i):
    end = time.time() + 1
    while time.time() < end:
        try:
            own[i].execute("begin immediate")
            own[i].execute("insert into t values (1)")
            time.sleep(0.0005)
            own[i].execute("commit")
        except sqlite3.OperationalError:
            busy[i] += 1
            time.sleep(0.0002)
all = [threading.Thread(target=work, args=(i,)) for i in range(3)]
for t in all: t.start()
for t in all: t.join()
print(sum(busy), flush=True)
sys.stdin.readline()
`

// TestProcessesCountWhatThreadsSaw checks what the opt-in probe promises: its count is,
// within 2 %, what a threaded application counts itself, while the kernel's locks show
// nothing of it. The count stays when the process has ended.
func TestProcessesCountWhatThreadsSaw(t *testing.T) {
	c := open(t) // skips where BPF is not allowed
	path := newDatabase(t)
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		t.Fatal(err)
	}
	p := testapp.Start(t, threads, path)
	p.Line(t)
	watch(t, c, "app", path)
	if s, err := OpenSteps(p.PID); err != nil {
		t.Skip(err) // a Python without libsqlite3.so
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	follower := NewProcesses([]string{"app"}, slog.New(slog.DiscardHandler))
	follower.Watch("app", uint64(file.Dev), file.Ino)
	follower.Watch("another", uint64(file.Dev), file.Ino) // was not chosen
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- follower.Run(ctx) }()
	t.Cleanup(end)
	for deadline := time.Now().Add(time.Minute); !follower.follows("app", p.PID); {
		if time.Now().After(deadline) {
			t.Fatal("the process was not found")
		}
		<-time.After(10 * time.Millisecond)
	}

	p.Send(t, "")
	want, err := strconv.ParseUint(p.Line(t), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	got, chosen := follower.Counts("app")
	t.Logf("the application saw %d, its steps %d", want, got)
	if want < 50 || !chosen || got < want-want/50 || got > want+want/50 {
		t.Errorf("counted %d (chosen: %v), the application %d: more than 2 %% apart", got, chosen, want)
	}
	if counts, _ := c.Counts("app"); counts.Total() != 0 {
		t.Errorf("the kernel saw %v of it, which the documentation says it cannot", counts)
	}
	if _, chosen := follower.Counts("another"); chosen {
		t.Error("a database that was not chosen is counted")
	}

	p.Kill()
	follower.find()
	if follower.follows("app", p.PID) {
		t.Error("a process that is gone is still followed")
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if after, _ := follower.Counts("app"); after != got {
		t.Errorf("%d after the process ended, %d before", after, got)
	}
}

// follows reports whether a process is counted.
func (p *Processes) follows(db string, pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dbs[db].pids[uint64(pid)] != nil
}

// If a pipe has replaced the file of a program or library, opening it does not block.
func TestExecutableIsNoPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "libsqlite3.so")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, _, err := executable(path); ended <- err }()
	select {
	case err := <-ended:
		if !errors.Is(err, errNotRegular) {
			t.Errorf("a pipe in place of a library: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("opening a pipe blocks")
	}
	if self, err := os.Executable(); err != nil {
		t.Fatal(err)
	} else if _, f, err := executable(self); err != nil {
		t.Errorf("our own program: %v", err)
	} else {
		f.Close()
	}
}

// A scrape does not wait while a probe is being attached to a process.
func TestAttachingHoldsUpNoScrape_H9(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	holder := exec.Command("/usr/bin/python3", "-c", "import sys\nf = open(sys.argv[1], 'w')\n"+
		"print('open', flush=True); sys.stdin.read()", path)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = holder.Wait() })
	if _, err := stdout.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	p := NewProcesses([]string{"app"}, slog.New(slog.DiscardHandler))
	p.Watch("app", st.Dev, st.Ino)
	hanging, release := make(chan int, 1), make(chan struct{})
	p.open = func(pid int) (*Steps, error) {
		hanging <- pid
		<-release
		return nil, errNotRegular
	}
	found := make(chan struct{})
	go func() { p.find(); close(found) }()
	if pid := <-hanging; pid != holder.Process.Pid {
		t.Errorf("attaching to %d, want %d", pid, holder.Process.Pid)
	}
	counted := make(chan bool, 1)
	go func() { _, chosen := p.Counts("app"); counted <- chosen }()
	select {
	case chosen := <-counted:
		if !chosen {
			t.Error("app is not counted")
		}
	case <-time.After(time.Minute):
		t.Error("a scrape waits while a probe is being attached")
	}
	close(release)
	<-found
}
