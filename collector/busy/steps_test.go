package busy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// oneProcess contends with itself: two connections of one process, between which the
// kernel refuses no lock.
const oneProcess = `
import sqlite3, sys
a = sqlite3.connect(sys.argv[1], isolation_level=None)
b = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
a.execute("begin immediate")
print("ready", flush=True)
sys.stdin.readline()
busy = 0
for i in range(500):
    try: b.execute("begin immediate")
    except sqlite3.OperationalError: busy += 1
a.execute("commit")
for i in range(500): b.execute("insert into t values (1)")
print(busy, flush=True)
sys.stdin.readline()
`

func TestStepsSeeContentionWithinOneProcess(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	p := testapp.Start(t, oneProcess, path)
	p.Line(t)
	watch(t, c, "app", path)
	s, err := OpenSteps(p.PID)
	if err != nil {
		t.Skip(err)
	}
	defer s.Close()
	p.Send(t, "")
	want, err := strconv.ParseUint(p.Line(t), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Count()
	if err != nil || got != want || want != 500 {
		t.Errorf("counted %d, %v; the application saw %d of 500", got, err, want)
	}
	if counts, _ := c.Counts("app"); counts.Total() != 0 {
		t.Errorf("the kernel saw %v, which the documentation says it cannot", counts)
	}
}

func TestStepsNeedASymbol(t *testing.T) {
	open(t) // skips where BPF is not allowed
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		sleep.Wait()
	}()
	if _, err := OpenSteps(sleep.Process.Pid); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("sleep has no SQLite: %v", err)
	}
	if _, err := OpenSteps(1 << 22); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}

// readImpliesExec is a process, as 32-bit programs with an executable stack are, in which all that it maps for
// reading is executable: its wal-index too.
const readImpliesExec = `
import ctypes, sqlite3, sys
ctypes.CDLL(None).personality(0x400000)
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("insert into t values (1)")
print("ready", flush=True)
sys.stdin.readline()
`

// TestMappedCode: a wal-index is never taken for code. Its close would release this process's locks on it.
func TestMappedCode(t *testing.T) {
	path := newDatabase(t)
	p := testapp.Start(t, readImpliesExec, path)
	p.Line(t)
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID)); err != nil || !executableIndex.Match(maps) {
		t.Fatalf("the kernel does not make it executable: %v", err)
	}
	files, err := mappedCode(p.PID)
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v", files, err)
	}
	for _, file := range files {
		if strings.Contains(file, path) {
			t.Errorf("%s is taken for code", file)
		}
	}
}

var executableIndex = regexp.MustCompile(`(?m)^\S+ ..xs .*-shm$`)
