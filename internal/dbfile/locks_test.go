package dbfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// heldLocks are exclusive POSIX locks of this process, taken through a
// descriptor of their own as an SQLite connection takes them.
type heldLocks struct {
	t       *testing.T
	fd      uintptr
	offsets []int64
}

func holdLocks(t *testing.T, path string, offsets ...int64) heldLocks {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	h := heldLocks{t, uintptr(fd), offsets}
	h.set(unix.F_WRLCK)
	return h
}

func (h heldLocks) set(typ int16) {
	h.t.Helper()
	for _, off := range h.offsets {
		if err := unix.FcntlFlock(h.fd, unix.F_SETLK, &unix.Flock_t{Type: typ, Start: off, Len: 1}); err != nil {
			h.t.Fatal(err)
		}
	}
}

// left counts the locks that the kernel still has. /proc/locks would not do: it is read 4 KiB at
// a time, and a line can appear twice or not at all while others lock and unlock.
func (h heldLocks) left() int {
	h.t.Helper()
	n := 0
	for _, off := range h.offsets {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: 1}
		if err := unix.FcntlFlock(h.fd, unix.F_OFD_GETLK, &lk); err != nil {
			h.t.Fatal(err)
		}
		if lk.Type == unix.F_WRLCK && int(lk.Pid) == os.Getpid() {
			n++
		}
	}
	return n
}

// TestLocksSurvive does everything that this package does, beside locks that this process holds
// on the same inodes, as its SQL connections will. One close of the wrong descriptor would
// release them.
func TestLocksSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, hard, soft := filepath.Join(dir, "app.db"), filepath.Join(dir, "hard.db"), filepath.Join(dir, "soft.db")
	writeFile(t, path, sampleHeader())
	writeFile(t, path+"-wal", nil)
	writeFile(t, path+"-shm", encodeWALIndex(sampleWALIndex()))
	if err := errors.Join(os.Link(path, hard), os.Symlink(path, soft)); err != nil {
		t.Fatal(err)
	}
	main := holdLocks(t, path, sharedFirst, reservedByte)
	shm := holdLocks(t, path+"-shm", shmWrite, shmRead0+1, shmDMS)
	check := func(what string) {
		t.Helper()
		if m, s := main.left(), shm.left(); m != 2 || s != 3 {
			t.Fatalf("%s: left are %d of 2 locks of the main file, %d of 3 of the wal-index", what, m, s)
		}
	}
	check("before")
	f := mustOpen(t, path)
	check("Open")
	for _, other := range []string{path, hard, soft} {
		if _, err := Open(other); !errors.Is(err, ErrAlreadyOpen) {
			t.Fatalf("got %v, want ErrAlreadyOpen", err)
		}
	}
	check("refused Open")
	for _, side := range []string{path + "-wal", path + "-shm"} { // as "sqlwatch run app.db*" names them
		if _, err := Open(side); !errors.Is(err, ErrNotDatabase) {
			t.Fatalf("%s: got %v, want ErrNotDatabase", side, err)
		}
		check("Open of " + side)
	}
	refresh(t, f, Change{})
	check("Refresh")
	if err := errors.Join(os.Remove(path+"-wal"), os.WriteFile(path+"-wal", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	refresh(t, f, Change{WAL: true})
	check("Refresh with another WAL")
	_, err1 := f.Header()
	_, err2 := f.WALIndex()
	_, err3 := f.Stat()
	_, err4 := LockHolders(f)
	_, err5 := filesystem.Of(f.Path())
	_, err6 := f.Database().ReadAt(make([]byte, 10), 0)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, f.SyncDatabase()); err != nil {
		t.Fatal(err)
	}
	check("reading")
	l, err := f.Locks()
	if err != nil {
		t.Fatal(err)
	}
	check("Locks")
	own := Holder{Held: true, Exclusive: true, PID: os.Getpid()}
	want := Locks{Write: own, DMS: own, Shared: own}
	want.Read[1] = own
	if l != want {
		t.Errorf("got %+v\nwant %+v", l, want)
	}

	// The rest of this test proves something, because one careless read does release them.
	if _, err := os.ReadFile(path + "-shm"); err != nil {
		t.Fatal(err)
	}
	if n := shm.left(); n != 0 {
		t.Errorf("a close of another descriptor left %d locks: this test proves nothing", n)
	}
}

// TestLocksOfApplication reads the locks that real connections of another process hold.
func TestLocksOfApplication(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 4096)
	a.do("fill(c, 3)")
	f := mustOpen(t, path)
	locks := func() Locks {
		t.Helper()
		l, err := f.Locks()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	shared, exclusive := Holder{Held: true, PID: a.PID}, Holder{Held: true, Exclusive: true, PID: a.PID}
	if got, want := locks(), (Locks{DMS: shared, Shared: shared}); got != want {
		t.Errorf("idle: got %+v\nwant %+v", got, want)
	}

	a.do(`c.execute("begin immediate"); c.execute("insert into t(v) values(1)")`)
	got := locks()
	if got.Write != exclusive {
		t.Errorf("writer: got %+v, want %+v", got.Write, exclusive)
	}
	a.do(`c.execute("commit")`)

	a.do(`c.execute("begin"); c.execute("select count(*) from t").fetchone()`)
	got = locks()
	x, err := f.WALIndex()
	if err != nil {
		t.Fatal(err)
	}
	held := -1
	for i, h := range got.Read {
		if h.Held {
			held = i
			if h != shared {
				t.Errorf("reader: got %+v, want %+v", h, shared)
			}
		}
	}
	if held < 1 || x.ReadMarks[held] != x.MaxFrame || got.Write.Held {
		t.Errorf("reader: lock of mark %d in %+v, head %d, write %+v", held, x.ReadMarks, x.MaxFrame, got.Write)
	}

	want := []string{"dms", "read" + string(rune('0'+held)), "shared"}
	var holders []LockHolder
	var names []string
	// The kernel's list can miss a line while others lock and unlock.
	for deadline := time.Now().Add(time.Minute); !slices.Equal(names, want) && time.Now().Before(deadline); {
		if holders, err = LockHolders(f); err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, h := range holders {
			names = append(names, h.Lock)
		}
		slices.Sort(names)
	}
	if !slices.Equal(names, want) {
		t.Errorf("got holders of %v, want %v", names, want)
	}
	for _, h := range holders {
		if h.PID != a.PID || !strings.HasPrefix(h.Command, "python3") || h.Exclusive || h.Age <= 0 || h.Age.Hours() > 1 {
			t.Errorf("got %+v, want the application %d, started just now", h, a.PID)
		}
	}
}

// TestQueryLocks takes locks from two processes on the nine lock bytes of a wal-index, in many
// patterns, and expects the right holder for each byte.
func TestQueryLocks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	writeFile(t, path, sampleHeader())
	writeFile(t, path+"-shm", nil)
	f := mustOpen(t, path)
	fd, err := unix.Open(path+"-shm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a := startApp(t, path)
	a.do(`s = open(path + "-shm", "r+b")`)
	a.do(`lock = lambda kind, off: fcntl.lockf(s, kind, 1, off)`)
	const bytesN = shmDMS - shmWrite + 1
	for _, pattern := range []string{".........", "ooooooooo", "aaaaaaaaa", "oaoaoaoao", "oo.aa.oo.", ".a.......",
		"o.......a", "rr.rroo.r", "A..AAo..A", "sr.ssra.s"} {
		a.do("lock(fcntl.LOCK_UN, %d); [lock(fcntl.LOCK_UN, %d + i) for i in range(%d)]", shmWrite, shmWrite, bytesN)
		var want [bytesN]Holder
		set := func(i int, typ int16) {
			if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: typ, Start: shmWrite + int64(i),
				Len: 1}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range bytesN {
			set(i, unix.F_UNLCK)
		}
		for i, c := range pattern {
			switch c {
			case 'o', 'r': // our own, exclusive and shared
				typ := int16(unix.F_WRLCK)
				if c == 'r' {
					typ = unix.F_RDLCK
				}
				set(i, typ)
				want[i] = Holder{Held: true, Exclusive: c == 'o', PID: os.Getpid()}
			case 'a', 'A': // the application's, shared and exclusive
				kind := "SH"
				if c == 'A' {
					kind = "EX"
				}
				a.do("lock(fcntl.LOCK_%s | fcntl.LOCK_NB, %d)", kind, shmWrite+i)
				want[i] = Holder{Held: true, Exclusive: c == 'A', PID: a.PID}
			case 's': // both share the lock; the application took it later
				set(i, unix.F_RDLCK)
				a.do("lock(fcntl.LOCK_SH | fcntl.LOCK_NB, %d)", shmWrite+i)
				want[i] = Holder{Held: true, PID: a.PID}
			}
		}
		l, err := f.Locks()
		got := [bytesN]Holder{l.Write, l.Checkpoint, l.Recover, l.Read[0], l.Read[1], l.Read[2], l.Read[3], l.Read[4], l.DMS}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v\nwant %+v", pattern, got, err, want)
		}
		if both, err := f.CheckpointHoldsWrite(); err != nil || both != (want[0].Held && want[1].Held) {
			t.Errorf("%s: CheckpointHoldsWrite: %v, %v", pattern, both, err)
		}
		few, err := f.WALLocks()
		if l.DMS, l.Shared = (Holder{}), (Holder{}); err != nil || few != l {
			t.Errorf("%s: WALLocks: got %+v, %v\nwant %+v", pattern, few, err, l)
		}
	}
}

// TestOFDLocks: holders that use OFD locks have no pid.
func TestOFDLocks(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 4096)
	f := mustOpen(t, path)
	a.do(`o = os.open(path + "-shm", os.O_RDWR); fcntl.fcntl(o, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, %d, 1, 0))`,
		shmWrite)
	l, err := f.Locks()
	if want := (Holder{Held: true, Exclusive: true, PID: -1}); err != nil || l.Write != want {
		t.Errorf("got %+v, %v, want %+v", l.Write, err, want)
	}
	holders, err := LockHolders(f)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(holders, func(h LockHolder) bool {
		return h.Lock == "write" && h.Exclusive &&
			h.PID == a.PID
	}) {
		t.Errorf("got %+v, want the application %d on write", holders, a.PID)
	}
}

func TestParseProcLocks(t *testing.T) {
	const text = `1: POSIX  ADVISORY  READ  714 fe:0a:4718593 120 120
2: -> POSIX  ADVISORY  WRITE 715 fe:0a:4718593 120 120
3: OFDLCK ADVISORY  WRITE -1 08:102:99 1073741826 1073742335
4: FLOCK  ADVISORY  WRITE 716 fe:00:5 0 EOF
5: POSIX  ADVISORY  WRITE 0 00:2f:18446744073709551615 0 EOF
6: LEASE  ACTIVE    READ  717 fe:00:5 0 EOF
7: POSIX  ADVISORY  WRITE x fe:00:5 0 EOF
8: POSIX
`
	got, err := parseProcLocks(strings.NewReader(text))
	want := []procLock{
		{714, false, unix.Mkdev(0xfe, 0xa), 4718593, 120, 120},
		{-1, true, unix.Mkdev(8, 0x102), 99, 1073741826, 1073742335},
		{0, true, unix.Mkdev(0, 0x2f), 1<<64 - 1, 0, 1<<63 - 1},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzParseProcLocks(f *testing.F) {
	f.Add("1: POSIX  ADVISORY  READ  714 fe:0a:4718593 120 120\n")
	f.Add("1: OFDLCK ADVISORY  WRITE -1 ::: 1 EOF")
	f.Fuzz(func(t *testing.T, text string) {
		locks, err := parseProcLocks(strings.NewReader(text))
		if n := strings.Count(text, "\n") + 1; err == nil && len(locks) > n {
			t.Errorf("got %d locks of %d lines", len(locks), n)
		}
	})
}
