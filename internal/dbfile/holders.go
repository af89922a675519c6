package dbfile

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// LockHolder is one process holding one lock of a database.
type LockHolder struct {
	Lock      string // write, checkpoint, recover, read0 to read4, dms, shared, reserved, pending
	PID       int    // as in Holder, but -1 only where the process with an OFD lock is not visible
	Command   string // the process's name, "" where it is not visible
	Exclusive bool
	Age       time.Duration // since the process started, 0 where it is not visible
}

// LockHolders lists all processes that hold a lock of the database, from /proc/locks. That file costs milliseconds
// and a lock of the whole kernel: call it on demand, never in a loop. The kernel hands the file out 4 KiB at a
// time, so on a machine with many locks a holder can be missed. Through an overlay file system's upper directory
// locks are invisible.
func LockHolders(f *Files) ([]LockHolder, error) {
	f.mu.RLock()
	database, shm := f.database, f.shm
	f.mu.RUnlock()
	if database == nil {
		return nil, fmt.Errorf("%s: %w", f.path, fs.ErrClosed)
	}
	locks, err := readProcLocks("/proc/locks")
	if err != nil {
		return nil, err
	}
	devs := lockDevices(database)
	var holders []LockHolder
	for _, l := range locks {
		if !devs[l.dev] {
			continue
		}
		var names []lockName
		switch {
		case l.ino == database.id.Ino:
			names = databaseLockNames
		case shm != nil && l.ino == shm.id.Ino:
			names = shmLockNames
		}
		if len(names) > 0 && l.pid == -1 {
			l.pid = findOFD(l)
		}
		for _, n := range names {
			h := LockHolder{Lock: n.name, PID: l.pid, Exclusive: l.exclusive}
			// Listed twice: others locked and unlocked between two reads of the file.
			if l.first <= n.last && n.first <= l.last && !slices.Contains(holders, h) {
				holders = append(holders, h)
			}
		}
	}
	describe(holders)
	return holders, nil
}

type lockName struct {
	name        string
	first, last int64
}

var (
	databaseLockNames = []lockName{
		{"pending", pendingByte, pendingByte},
		{"reserved", reservedByte, reservedByte},
		{"shared", sharedFirst, sharedFirst + sharedSize - 1},
	}
	shmLockNames = []lockName{
		{"write", shmWrite, shmWrite},
		{"checkpoint", shmCkpt, shmCkpt},
		{"recover", shmRecover, shmRecover},
		{"read0", shmRead0, shmRead0},
		{"read1", shmRead0 + 1, shmRead0 + 1},
		{"read2", shmRead0 + 2, shmRead0 + 2},
		{"read3", shmRead0 + 3, shmRead0 + 3},
		{"read4", shmRead0 + 4, shmRead0 + 4},
		{"dms", shmDMS, shmDMS},
	}
)

// describe fills in command and age of the holders that are visible here; for a process that has ended meanwhile
// they stay empty.
func describe(holders []LockHolder) {
	for i := range holders {
		h := &holders[i]
		if h.PID <= 0 {
			continue
		}
		p, err := procfs.NewProc(h.PID)
		if err != nil {
			continue
		}
		if comm, err := p.Comm(); err == nil {
			h.Command = comm
		}
		stat, err := p.Stat()
		if err != nil {
			continue
		}
		if start, err := stat.StartTime(); err == nil {
			h.Age = max(0, time.Since(time.UnixMilli(int64(start*1000))))
		}
	}
}

// findOFD returns a process that has an OFD lock's open file among its
// descriptors, -1 where none is visible. It looks at every descriptor of the
// machine.
func findOFD(want procLock) int {
	paths, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return -1
	}
	for _, path := range paths {
		info, err := os.ReadFile(path)
		if err != nil {
			continue // gone, or another user's
		}
		for line := range strings.Lines(string(info)) {
			lock, ok := strings.CutPrefix(line, "lock:")
			if !ok {
				continue
			}
			if l, ok := parseProcLock(strings.Fields(lock)); ok && l == want {
				pid, err := strconv.Atoi(strings.Split(path, "/")[2])
				if err != nil {
					return -1
				}
				return pid
			}
		}
	}
	return -1
}

// lockDevices returns the devices under which the kernel may list a file's locks: the one that stat reports, and
// that of its mount, because on btrfs stat reports another one for each subvolume.
func lockDevices(d *descriptor) map[uint64]bool {
	devs := map[uint64]bool{d.id.Dev: true}
	if dev, err := filesystem.Device("/proc/self/fd/" + strconv.Itoa(descriptorNumber(d))); err == nil {
		devs[dev] = true
	}
	return devs
}

func descriptorNumber(d *descriptor) (n int) {
	if err := d.control(func(fd int) error { n = fd; return nil }); err != nil {
		return -1
	}
	return n
}

// procLock is one line of /proc/locks.
type procLock struct {
	pid         int // -1: an OFD lock
	exclusive   bool
	dev, ino    uint64
	first, last int64
}

func readProcLocks(path string) ([]procLock, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	locks, err := parseProcLocks(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return locks, nil
}

// parseProcLocks reads lines such as
//
//	1: POSIX  ADVISORY  WRITE 714 fe:00:4718593 120 120
//	2: OFDLCK ADVISORY  READ -1 fe:00:4718593 128 EOF
//
// leaving out waiters ("->"), flocks, leases and lines it does not know.
func parseProcLocks(r io.Reader) ([]procLock, error) {
	var locks []procLock
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if l, ok := parseProcLock(strings.Fields(lines.Text())); ok {
			locks = append(locks, l)
		}
	}
	return locks, lines.Err()
}

func parseProcLock(w []string) (procLock, bool) {
	if len(w) != 8 || (w[1] != "POSIX" && w[1] != "OFDLCK") || (w[3] != "READ" && w[3] != "WRITE") {
		return procLock{}, false
	}
	id := strings.Split(w[5], ":")
	if len(id) != 3 {
		return procLock{}, false
	}
	if w[7] == "EOF" {
		w[7] = strconv.FormatInt(1<<63-1, 10)
	}
	pid, err1 := strconv.Atoi(w[4])
	major, err2 := strconv.ParseUint(id[0], 16, 32)
	minor, err3 := strconv.ParseUint(id[1], 16, 32)
	ino, err4 := strconv.ParseUint(id[2], 10, 64)
	first, err5 := strconv.ParseInt(w[6], 10, 64)
	last, err6 := strconv.ParseInt(w[7], 10, 64)
	for _, err := range []error{err1, err2, err3, err4, err5, err6} {
		if err != nil {
			return procLock{}, false
		}
	}
	return procLock{
		pid:       pid,
		exclusive: w[3] == "WRITE",
		dev:       unix.Mkdev(uint32(major), uint32(minor)),
		ino:       ino,
		first:     first,
		last:      last,
	}, true
}
