package dbfile

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// census is what was found among the open files of all processes, for all databases
// that are open here: to look costs milliseconds, whatever their number.
type census struct {
	sync.Mutex
	at    time.Time        // when it was begun
	took  time.Duration    // to take it
	known map[inode]string // the databases that were looked for, and where their WAL is
	found map[inode]*ForeignError
}

// age says how old a census may be, by what it took: it costs no more than a part of a core.
type age func(took time.Duration) time.Duration

// censusFresh is for who is about to open a database: many that are opened at once share one,
// for a tenth of a core. Where it takes long, because the machine is busy, it is not believed for
// longer all the same.
func censusFresh(took time.Duration) time.Duration { return min(9*took, 250*time.Millisecond) }

// censusRest is for who has a database open: whoever comes now without a lock is met within
// some seconds, for half a percent of a core.
func censusRest(took time.Duration) time.Duration { return max(5*time.Second, 200*took) }

var lastCensus census // of the process, as is the registry

// foreigner returns who writes to the database and is held by no lock, or has another
// WAL than the one we see. A process that has the main file open alone is none: a
// connection that has not read yet, or a copy under way. What may not be looked at is
// taken for good: this finds what it can.
func (c *company) foreigner(database inode, old age) (*ForeignError, error) {
	all := &lastCensus
	all.Lock()
	defer all.Unlock()
	if all.known[database] != c.walPath || time.Since(all.at) > all.took+old(all.took) {
		if err := all.take(c.pid); err != nil {
			return nil, err
		}
	}
	return all.found[database], nil
}

// take looks through all processes but this one.
func (c *census) take(self int) error {
	c.known, c.found = make(map[inode]string), make(map[inode]*ForeignError)
	registry.Lock()
	for id, path := range registry.open {
		c.known[id] = path + "-wal"
	}
	registry.Unlock()
	c.at = time.Now()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != self {
			c.look(pid, self)
		}
	}
	c.took = time.Since(c.at)
	return nil
}

// look looks at one process's open files.
func (c *census) look(pid, self int) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return // gone, or another user's
	}
	open := make(map[inode]*opener)
	for _, fd := range fds {
		st, ok, err := statPath(filepath.Join(dir, "fd", fd.Name()))
		id := inodeOf(&st)
		if _, known := c.known[id]; !known || !ok || err != nil {
			continue
		}
		if open[id] == nil {
			open[id] = &opener{walPath: c.known[id]}
		}
		open[id].add(dir, fd.Name())
	}
	for id, o := range open {
		if kind, found := o.judge(dir, fds); found && !(kind == ForeignUnlocked && o.inherited(dir, self)) {
			c.found[id] = &ForeignError{Kind: kind, PID: pid}
		}
	}
}

// opener is a process that has a database open.
type opener struct {
	walPath string // where we see the WAL
	path    string // of the main file, as that process sees it
	locked  bool
	writes  bool
	fds     []string // of the main file
}

// add takes in a descriptor of the main file.
func (o *opener) add(dir, fd string) {
	o.fds = append(o.fds, fd)
	info, err := readFDInfo(filepath.Join(dir, "fdinfo", fd))
	if err != nil {
		o.locked = true // it is gone, or not to be looked at
		return
	}
	if target, err := os.Readlink(filepath.Join(dir, "fd", fd)); err == nil {
		o.path = target
	}
	o.locked, o.writes = o.locked || info.shared, o.writes || info.writes
}

// again looks for the lock once more.
func (o *opener) again(dir string) {
	fds := o.fds
	o.fds = nil
	for _, fd := range fds {
		o.add(dir, fd)
	}
}

// judge looks for the WAL that belongs to the main file.
func (o *opener) judge(dir string, fds []os.DirEntry) (kind ForeignKind, found bool) {
	if !o.writes {
		return 0, false
	}
	for _, fd := range fds {
		link := filepath.Join(dir, "fd", fd.Name())
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != o.path+"-wal" {
			continue
		}
		if !o.locked {
			o.again(dir) // it may have opened the database just now, and taken its lock since
		}
		if !o.locked && !o.indexed(dir, fds) {
			return ForeignUnlocked, true
		}
		if !o.same(link) {
			return ForeignIndex, true
		}
	}
	return 0, false
}

// indexed reports whether the process uses the wal-index that we see, and says so: then a
// connection of ours shares it. It has lost its lock on the main file, or stands back, as
// another sqlwatch does for those who want the file for themselves.
func (o *opener) indexed(dir string, fds []os.DirEntry) bool {
	ours, there, err := statPath(strings.TrimSuffix(o.walPath, "-wal") + "-shm")
	if err != nil || !there {
		return false
	}
	for _, fd := range fds {
		theirs, open, err := statPath(filepath.Join(dir, "fd", fd.Name()))
		if err != nil || !open || inodeOf(&theirs) != inodeOf(&ours) {
			continue
		}
		if info, err := readFDInfo(filepath.Join(dir, "fdinfo", fd.Name())); err == nil && info.index {
			return true
		}
	}
	return false
}

// inherited reports whether the descriptors are a parent's, who has the lock: locks are
// not inherited, descriptors are, until the child runs another program. So it is with the
// children of this process, and with those of an application that forks.
func (o *opener) inherited(dir string, self int) bool {
	parent := parentOf(dir)
	if parent <= 1 {
		return false
	}
	theirs := filepath.Join("/proc", strconv.Itoa(parent))
	locked := parent == self
	for _, fd := range o.fds {
		was, open, err := statPath(filepath.Join(theirs, "fd", fd))
		is, still, err2 := statPath(filepath.Join(dir, "fd", fd))
		if err2 != nil || !still {
			continue // the child has closed it in the meantime
		}
		if err != nil || !open || inodeOf(&was) != inodeOf(&is) {
			return false
		}
		info, err := readFDInfo(filepath.Join(theirs, "fdinfo", fd))
		locked = locked || err == nil && info.shared
	}
	return locked
}

// parentOf returns the pid of a process's parent, 0 where it is not told.
func parentOf(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	fields := strings.Fields(after) // state, ppid
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// same reports whether a process's open WAL is the one we see. It looks twice: a WAL
// may be recreated between two calls.
func (o *opener) same(link string) bool {
	for range 2 {
		theirs, open, err := statPath(link)
		ours, there, err2 := statPath(o.walPath)
		if err != nil || err2 != nil || !open || there && inodeOf(&theirs) == inodeOf(&ours) {
			return true
		}
	}
	return false
}

// fdInfo is what /proc/PID/fdinfo tells of a descriptor: whether it may write, and the
// locks that count of a main file, or of a wal-index.
type fdInfo struct{ writes, shared, index bool }

func readFDInfo(path string) (i fdInfo, err error) {
	file, err := os.Open(path)
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ":"); name {
		case "flags":
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			i.writes = err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		case "lock":
			l, ok := parseProcLock(strings.Fields(value))
			i.shared = i.shared || ok && l.first <= sharedFirst+sharedSize && pendingByte <= l.last
			i.index = i.index || ok && l.first <= shmStander && shmDMS <= l.last
		}
	}
	return i, lines.Err()
}
