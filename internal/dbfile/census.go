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

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
	"github.com/sqlwatch/sqlwatch/internal/openfile"
)

// census is what was found in the open files of all processes, for all databases that are open here at once: to
// look costs milliseconds, whatever their number.
type census struct {
	sync.Mutex
	at    time.Time        // when the look began
	took  time.Duration    // how long the look took
	known map[inode]string // the databases that were looked for, and where their WAL is
	open  map[inode][]opener
	found map[inode]*ForeignError // the verdicts of foreigner since then

	numbers map[uint64][]inode // known, by inode number
}

// age returns how old a census may be, given how long it took, so that it costs no more than a part of a core.
type age func(took time.Duration) time.Duration

// censusFresh is the age for a caller that is about to open a database: many that are opened at once share a
// census, for a tenth of a core. On a busy machine, where a census takes long, it is still too old after 250 ms.
func censusFresh(took time.Duration) time.Duration { return min(9*took, 250*time.Millisecond) }

// censusRest is the age for a caller that has a database open: a process that comes without taking a lock is found
// within some seconds, for half a percent of a core.
func censusRest(took time.Duration) time.Duration { return max(5*time.Second, 200*took) }

// censusWait is the age for a caller that is connected although nobody else is: a process that waits for it to
// leave often does so for five seconds only, also on a busy machine, where a census takes long.
func censusWait(took time.Duration) time.Duration {
	return min(max(time.Second, 200*took), 2*time.Second)
}

// censusAgain is censusWait for a caller that has found such a process.
func censusAgain(took time.Duration) time.Duration {
	return min(max(300*time.Millisecond, 9*took), time.Second)
}

var lastCensus census // of the process, as is the registry

// users are the processes that have a database open.
type users struct {
	at     time.Time // when the census began
	open   []opener
	found  *ForeignError // a foreign one among them
	judged bool          // found is known
}

// of returns a database's users, from a census that is not too old.
func (c *census) of(company *company, database inode, old age) (u users, err error) {
	c.Lock()
	defer c.Unlock()
	if c.known[database] != company.walPath || time.Since(c.at) > c.took+old(c.took) {
		if err := c.take(company.pid); err != nil {
			return u, err
		}
	}
	u = users{at: c.at, open: c.open[database]}
	u.found, u.judged = c.found[database]
	return u, nil
}

// Waiting returns the processes that have the database open for writing without a lock on it, and when they were
// seen. It finds connections that have not read yet, and those that are refused their first lock: the VFS unix-excl
// asks for an exclusive one, and while we share the file it shows nowhere else. It is for a caller that is connected
// although nobody else is. A census is reused for one to two seconds, and for less with again, which is for a caller
// that has already found a process.
func Waiting(f *Files, again bool) (pids []int, at time.Time, err error) {
	database, err := f.held(&f.database, ErrEmpty)
	if err != nil {
		return nil, at, err
	}
	old := censusWait
	if again {
		old = censusAgain
	}
	u, err := lastCensus.of(&f.company, database.id, old)
	for _, o := range u.open {
		if o.writes && !o.locked && !o.elsewhere && !o.inherited(f.company.pid) {
			pids = append(pids, o.pid)
		}
	}
	return pids, u.at, err
}

// foreigner returns a process that has the database open for writing and holds no lock, or that uses another WAL
// than the one we see. A process that has only the main file open is not foreign: it is a connection that has not
// read yet, or a copy under way. A process that may not be looked at is assumed to be in order: foreigner finds
// what it can.
func (c *company) foreigner(database inode, old age) (*ForeignError, error) {
	u, err := lastCensus.of(c, database, old)
	found := u.found
	if err != nil || u.judged {
		return found, err
	}
	// This accesses the database's own disk, for which other databases must not wait, so the census is not locked.
	for _, o := range u.open {
		if kind, foreign := o.judge(); foreign && !(kind == ForeignUnlocked && o.inherited(c.pid)) {
			found = &ForeignError{Kind: kind, PID: o.pid}
		}
	}
	lastCensus.Lock()
	defer lastCensus.Unlock()
	if lastCensus.at.Equal(u.at) {
		lastCensus.found[database] = found
	}
	return found, nil
}

// take looks through all processes but this one.
func (c *census) take(self int) error {
	c.known, c.open, c.found = make(map[inode]string), make(map[inode][]opener), make(map[inode]*ForeignError)
	c.numbers = make(map[uint64][]inode)
	registry.Lock()
	for id, path := range registry.open {
		c.known[id] = path + "-wal"
		c.numbers[id.Ino] = append(c.numbers[id.Ino], id)
	}
	registry.Unlock()
	c.at = time.Now()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != self {
			c.look(pid)
		}
	}
	c.took = time.Since(c.at)
	return nil
}

// look looks at one process's open files without touching their disks: most are not ours.
func (c *census) look(pid int) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return // gone, or another user's
	}
	open := make(map[inode]*opener)
	for _, fd := range fds {
		at, err := openfile.At(filepath.Join(dir, "fd", fd.Name()))
		if err != nil {
			continue
		}
		if open[at] == nil && (c.known[at] != "" || unix.Major(at.Dev) == 0 && c.numbers[at.Ino] != nil) {
			open[at] = &opener{pid: pid, dir: dir, all: fds}
		}
		if o := open[at]; o != nil {
			o.fds = append(o.fds, fd.Name())
			o.look(fd.Name())
		}
	}
	for at, o := range open {
		if o.walPath = c.known[at]; o.walPath != "" {
			c.open[at] = append(c.open[at], *o)
			continue
		}
		for _, id := range c.numbers[at.Ino] {
			o.walPath, o.elsewhere = c.known[id], true
			c.open[id] = append(c.open[id], *o)
		}
	}
}

// opener is a process that has a database open.
type opener struct {
	pid     int
	dir     string        // its directory in /proc
	all     []os.DirEntry // its descriptors
	walPath string        // where we see the WAL
	path    string        // of the main file, as that process sees it
	locked  bool
	writes  bool
	fds     []string // of the main file

	elsewhere bool // it has a file of the same number open, on a device that is no disk: through an overlay?
}

// look records a descriptor of the main file.
func (o *opener) look(fd string) {
	info, err := readFDInfo(filepath.Join(o.dir, "fdinfo", fd))
	if err != nil {
		o.locked = true // it was closed, or may not be looked at: assume a lock
		return
	}
	if target, err := os.Readlink(filepath.Join(o.dir, "fd", fd)); err == nil {
		o.path = target
	}
	o.locked, o.writes = o.locked || info.shared, o.writes || info.writes
}

// again looks for the lock once more.
func (o *opener) again() {
	for _, fd := range o.fds {
		o.look(fd)
	}
}

// judge reports whether the process uses the database in a foreign way, by the WAL that it has open beside the main
// file.
func (o *opener) judge() (kind ForeignKind, found bool) {
	if !o.writes {
		return 0, false
	}
	if o.elsewhere {
		return ForeignOverlay, o.overlaid()
	}
	for _, fd := range o.all {
		link := filepath.Join(o.dir, "fd", fd.Name())
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != o.path+"-wal" {
			continue
		}
		if !o.locked {
			o.again() // it may have opened the database just now, and taken its lock since
		}
		if !o.locked && !o.indexed() {
			return ForeignUnlocked, true
		}
		if !o.same(link) {
			return ForeignIndex, true
		}
	}
	return 0, false
}

// overlaid reports whether the process has the database open through an overlay file system. That shows a file of its
// upper directory with the same inode number and time of birth, and its locks are others.
func (o *opener) overlaid() bool {
	link := filepath.Join(o.dir, "fd", o.fds[0])
	ours, err := nameOf(strings.TrimSuffix(o.walPath, "-wal"))
	theirs, err2 := nameOf(link)
	if err != nil || err2 != nil || ours.born.IsZero() || !ours.born.Equal(theirs.born) {
		return false
	}
	at, err := filesystem.Of(link)
	return err == nil && at.Type == "overlay"
}

// indexed reports whether the process holds DMS, or the byte of a process that stands back, on the wal-index that we
// see: a connection of ours then shares it. Such a process has lost its lock on the main file, or stands back, as
// another sqlwatch does for processes that want the file for themselves.
func (o *opener) indexed() bool {
	ours, there, err := statPath(strings.TrimSuffix(o.walPath, "-wal") + "-shm")
	if err != nil || !there {
		return false
	}
	for _, fd := range o.all {
		theirs, err := openfile.At(filepath.Join(o.dir, "fd", fd.Name()))
		if err != nil || theirs != inodeOf(&ours) {
			continue
		}
		if info, err := readFDInfo(filepath.Join(o.dir, "fdinfo", fd.Name())); err == nil && info.index {
			return true
		}
	}
	return false
}

// inherited reports whether the process has its descriptors from a parent that holds the lock: descriptors are
// inherited, locks are not, until the child runs another program. That is so for children of this process, and for
// those of an application that forks.
func (o *opener) inherited(self int) bool {
	parent := openfile.Parent(o.pid)
	if parent <= 1 {
		return false
	}
	theirs := filepath.Join("/proc", strconv.Itoa(parent))
	locked := parent == self
	for _, fd := range o.fds {
		was, err := openfile.At(filepath.Join(theirs, "fd", fd))
		is, err2 := openfile.At(filepath.Join(o.dir, "fd", fd))
		if err2 != nil {
			continue // the child has closed it in the meantime
		}
		if err != nil || was != is {
			return false
		}
		info, err := readFDInfo(filepath.Join(theirs, "fdinfo", fd))
		locked = locked || err == nil && info.shared
	}
	return locked
}

// same reports whether a process's open WAL is the one we see. It looks twice: a WAL
// may be recreated between two calls.
func (o *opener) same(link string) bool {
	for range 2 {
		theirs, err := openfile.At(link)
		ours, there, err2 := statPath(o.walPath)
		if err != nil || err2 != nil || there && theirs == inodeOf(&ours) {
			return true
		}
	}
	return false
}

// fdInfo is what /proc/PID/fdinfo says of a descriptor: whether it may write, and whether it has a lock of a main
// file or of a wal-index.
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
