package busy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
	"golang.org/x/sys/unix"
)

// open opens a Collector, or skips the test if the machine does not allow one: the tests
// must pass as an ordinary user too.
func open(t testing.TB) *Collector {
	t.Helper()
	return openWith(t, Options{Holds: true})
}

func openWith(t testing.TB, o Options) *Collector {
	t.Helper()
	c, err := Open(o)
	if errors.Is(err, ErrPrivileges) {
		t.Skip(err)
	}
	if _, missing := os.Stat("/sys/kernel/btf/vmlinux"); missing != nil {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func watch(t testing.TB, c *Collector, db, path string) {
	t.Helper()
	var main, shm unix.Stat_t
	if err := unix.Stat(path, &main); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(path+"-shm", &shm); err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(db, uint64(main.Dev), main.Ino, shm.Ino); err != nil {
		t.Fatal(err)
	}
}

// contender commits in a loop without busy_timeout, holding the write lock for
// some time, and reports how many commits and how many SQLITE_BUSY it saw.
const contender = `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[3]))
c.execute("pragma synchronous=normal")
c.execute("select count(*) from t").fetchone()
print("ready", flush=True)
sys.stdin.readline()
busy = commits = 0
end = time.time() + float(sys.argv[2])
while time.time() < end:
    try:
        c.execute("begin immediate")
        c.execute("insert into t values (1)")
        time.sleep(0.0005)
        c.execute("commit")
        commits += 1
    except sqlite3.OperationalError as e:
        if "locked" not in str(e): raise
        busy += 1
        time.sleep(0.0002)
print(commits, busy, flush=True)
sys.stdin.readline()
`

func newDatabase(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	out, err := exec.Command("sqlite3", path, "pragma journal_mode=wal; create table t(x)").CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	return path
}

// contend runs three contenders and returns how many commits and SQLITE_BUSY they saw.
func contend(t testing.TB, c *Collector, path, seconds, timeout string) (commits, busy uint64) {
	t.Helper()
	var all []*testapp.Process
	for range 3 {
		p := testapp.Start(t, contender, path, seconds, timeout)
		if got := p.Line(t); got != "ready" {
			t.Fatalf("contender said %q", got)
		}
		all = append(all, p)
	}
	watch(t, c, "app", path)
	for _, p := range all {
		p.Send(t, "")
	}
	for _, p := range all {
		var n, b uint64
		if _, err := fmt.Sscan(p.Line(t), &n, &b); err != nil {
			t.Fatal(err)
		}
		commits, busy = commits+n, busy+b
	}
	return commits, busy
}

// TestCountsEqualWhatApplicationsSaw checks what the package promises: its count is, within
// 2 %, what three unmodified applications count themselves.
func TestCountsEqualWhatApplicationsSaw(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	commits, want := contend(t, c, path, "3", "0")
	counts, err := c.Counts("app")
	if err != nil {
		t.Fatal(err)
	}
	got := counts.Total()
	t.Logf("applications: %d commits, %d busy; kernel: %v", commits, want, counts)
	if want < 100 {
		t.Fatalf("only %d busy: the test proves nothing", want)
	}
	if math.Abs(float64(got)-float64(want)) > 0.02*float64(want) {
		t.Errorf("kernel counted %d, the applications %d: more than 2 %% apart", got, want)
	}
	if counts[collector.LockWrite] < got*9/10 {
		t.Errorf("contention for the write lock was counted elsewhere: %v", counts)
	}

	holds, err := c.WriteHolds("app")
	if err != nil {
		t.Fatal(err)
	}
	// One hold of eight is timed, chosen at random: the count's standard deviation is √(7 n).
	if off := math.Abs(float64(holds.Count) - float64(commits)); off > 20+6*math.Sqrt(7*float64(commits)) {
		t.Errorf("%d holds of the write lock, %d commits", holds.Count, commits)
	}
	if mean := holds.Sum / time.Duration(holds.Count); mean < 500*time.Microsecond || mean > 100*time.Millisecond {
		t.Errorf("mean hold %v; each slept 500 µs in it", mean)
	}
	if short := holds.Buckets[time.Duration(holdBound(7))]; short > holds.Count/10 { // below 262 µs
		t.Errorf("%d of %d holds were short", short, holds.Count)
	}

	last, ok := c.Last("app")
	if !ok || last.PID == 0 || !strings.HasPrefix(last.Command, "python") || last.Age > time.Minute {
		t.Errorf("last refusal: %+v, %v", last, ok)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := c.Counts("app")
	if !errors.Is(err, ErrClosed) || after != counts {
		t.Errorf("after Close: %v, %v; want the counts as they were, and ErrClosed", after, err)
	}
}

func TestRetriesOfABusyTimeoutAreCounted(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	commits, seen := contend(t, c, path, "1", "5")
	counts, err := c.Counts("app")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("applications: %d commits, %d busy; kernel: %v", commits, seen, counts)
	if counts.Total() <= seen {
		t.Errorf("%d attempts counted, %d seen by the applications: each retry is an attempt", counts.Total(), seen)
	}
}

func TestWhatIsNoBusyIsNotCounted(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	idle := testapp.Start(t, `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("insert into t values (1)")
c.execute("begin"); c.execute("select * from t").fetchall()
print("ready", flush=True); sys.stdin.readline()
`, path)
	idle.Line(t)
	watch(t, c, "app", path)
	// The reader stops the checkpoint, and another connection stays open after the close. For
	// both a lock is refused, but neither returns SQLITE_BUSY.
	out, err := exec.Command("sqlite3", path, "insert into t values (2); pragma wal_checkpoint(truncate)").CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	attempts, err := c.Attempts("app")
	if err != nil {
		t.Fatal(err)
	}
	if attempts["read exclusive"] == 0 && attempts["database exclusive"] == 0 {
		t.Errorf("no refused attempt was seen at all: %v", attempts)
	}
	if counts, _ := c.Counts("app"); counts.Total() != 0 {
		t.Errorf("counted as BUSY: %v of %v", counts, attempts)
	}
	if last, some := c.Last("app"); some {
		t.Errorf("nobody got SQLITE_BUSY, but Last returns %+v", last)
	}
}

func TestHoldsAreOptional(t *testing.T) {
	c := openWith(t, Options{})
	if _, err := c.WriteHolds("app"); !errors.Is(err, ErrNoHolds) {
		t.Errorf("got %v, want ErrNoHolds", err)
	}
}

func TestOtherDatabasesAreNotCounted(t *testing.T) {
	c := openWith(t, Options{}) // the program that does not measure holds
	watched, other := newDatabase(t), newDatabase(t)
	holder := testapp.Start(t, `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("begin immediate")
print("ready", flush=True); sys.stdin.readline()
`, watched)
	holder.Line(t)
	watch(t, c, "watched", watched)
	refuse := func(path string) {
		t.Helper()
		if err := exec.Command("sqlite3", path, "begin immediate").Run(); err == nil && path == watched {
			t.Fatal("the lock was not refused")
		}
	}
	refuse(other)
	if counts, _ := c.Counts("watched"); counts.Total() != 0 {
		t.Errorf("another database's events: %v", counts)
	}
	refuse(watched)
	counts, _ := c.Counts("watched")
	if counts[collector.LockWrite] != 1 {
		t.Fatalf("got %v, want one refusal", counts)
	}

	// The files are replaced: the count stays, and the old files are no longer watched.
	if err := c.Watch("watched", 1, 2, 0); err != nil {
		t.Fatal(err)
	}
	refuse(watched)
	if after, _ := c.Counts("watched"); after != counts {
		t.Errorf("after the files were replaced: %v, want %v", after, counts)
	}
	watch(t, c, "watched", watched)
	refuse(watched)
	if after, _ := c.Counts("watched"); after[collector.LockWrite] != 2 {
		t.Errorf("watched again: %v, want two refusals", after)
	}
	// Its inodes now belong to another database: those of removed files are soon used again.
	watch(t, c, "other", watched)
	refuse(watched)
	if after, _ := c.Counts("watched"); after[collector.LockWrite] != 2 {
		t.Errorf("after another database got its inodes: %v, want two refusals still", after)
	}
	if after, _ := c.Counts("other"); after[collector.LockWrite] != 1 {
		t.Errorf("the database that has the inodes now: %v, want one refusal", after)
	}
	if err := c.Forget("watched"); err != nil {
		t.Fatal(err)
	}
	if after, _ := c.Counts("watched"); after.Total() != 0 {
		t.Errorf("forgotten: %v", after)
	}
}

func TestFindLayout(t *testing.T) {
	long, word, char := &btf.Int{Name: "long", Size: 8}, &btf.Int{Name: "int", Size: 4}, &btf.Int{Name: "char", Size: 1}
	member := func(name string, t btf.Type, at btf.Bits) btf.Member {
		return btf.Member{Name: name, Type: t, Offset: at * 8}
	}
	inode := &btf.Struct{Name: "inode", Size: 64, Members: []btf.Member{member("i_sb", &btf.Pointer{Target: long}, 40),
		member("i_ino", long, 56)}}
	super := &btf.Struct{Name: "super_block", Size: 32,
		Members: []btf.Member{member("s_dev", &btf.Typedef{Name: "dev_t", Type: word}, 16)}}
	core := &btf.Struct{Name: "file_lock_core", Size: 32, Members: []btf.Member{member("flc_pid", word, 20),
		member("flc_type", char, 28)}}
	lock69 := &btf.Struct{Name: "file_lock", Size: 64, Members: []btf.Member{member("c", core, 8),
		member("fl_start", long, 40), member("fl_end", long, 48)}}
	lock68 := &btf.Struct{Name: "file_lock", Size: 64, Members: []btf.Member{member("fl_pid", word, 12),
		member("fl_type", char, 16), member("fl_start", long, 40), member("fl_end", long, 48)}}
	wide := &btf.Struct{Name: "file_lock", Size: 64, Members: []btf.Member{member("c", long, 8),
		member("fl_start", long, 40), member("fl_end", long, 48)}}

	common := layout{
		inode: field{56, asm.DWord}, superblock: field{40, asm.DWord}, device: field{16, asm.Word},
		start: field{40, asm.DWord}, end: field{48, asm.DWord},
	}
	before, after := common, common
	after.pid, after.kind = field{28, asm.Word}, field{36, asm.Byte}
	before.pid, before.kind = field{12, asm.Word}, field{16, asm.Byte}
	tests := []struct {
		name  string
		types []btf.Type
		want  layout
		err   error
	}{
		{"since Linux 6.9", []btf.Type{inode, super, lock69}, after, nil},
		{"before", []btf.Type{inode, super, lock68}, before, nil},
		{"no file_lock", []btf.Type{inode, super}, layout{}, ErrKernel},
		{"unknown file_lock", []btf.Type{inode, super, wide}, layout{}, ErrKernel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findLayout(kernelWith(t, tt.types))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func kernelWith(t *testing.T, types []btf.Type) *btf.Spec {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestOpenWithoutPrivileges runs itself again as the user nobody.
func TestOpenWithoutPrivileges(t *testing.T) {
	if os.Getenv("BUSY_TEST_CHILD") != "" {
		if _, err := Open(Options{}); !errors.Is(err, ErrPrivileges) {
			t.Errorf("as uid %d: %v", os.Getuid(), err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become a user without privileges")
	}
	open(t)
	binary := filepath.Join(t.TempDir(), "busy.test")
	copyFile(t, binary, os.Args[0])
	for dir := filepath.Dir(binary); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(binary, "-test.run=^TestOpenWithoutPrivileges$", "-test.v")
	child.Env = append(os.Environ(), "BUSY_TEST_CHILD=1")
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	child.Dir = "/"
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// Locks that were refused to ourselves are counted by collector.Busy. If this package
// counted them too, the sum would have them twice.
func TestOwnRefusalsAreNotCounted(t *testing.T) {
	c := open(t)
	path := newDatabase(t)
	holder := testapp.Start(t, `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("begin immediate")
print("ready", flush=True); sys.stdin.readline()
`, path)
	holder.Line(t)
	watch(t, c, "app", path)
	shm, err := os.OpenFile(path+"-shm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shm.Close()
	write := unix.Flock_t{Type: unix.F_WRLCK, Start: firstShmByte, Len: 1}
	if err := unix.FcntlFlock(shm.Fd(), unix.F_SETLK, &write); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("the lock was not refused: %v", err)
	}
	if attempts, _ := c.Attempts("app"); len(attempts) != 0 {
		t.Errorf("our own refused locks are counted: %v", attempts)
	}
	if _, some := c.Last("app"); some {
		t.Error("we are the last one refused")
	}
	if err := exec.Command("sqlite3", path, "begin immediate").Run(); err == nil {
		t.Fatal("the lock was not refused")
	}
	if counts, _ := c.Counts("app"); counts[collector.LockWrite] != 1 {
		t.Errorf("got %v, want the other process's one", counts)
	}
}
