package dbfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// ErrUnclear says that another process is just opening or closing the database: ask again.
var ErrUnclear = errors.New("somebody is just opening or closing the database")

// ForeignKind is a way of using a database that we cannot join.
type ForeignKind uint8

// The kinds of foreign use.
const (
	// EXCLUSIVE locking mode, or the VFS unix-excl: the wal-index is in the process's own memory
	ForeignExclusive ForeignKind = iota
	ForeignIndex                 // another process has other -wal and -shm files than those beside the file
	ForeignUnlocked              // another process has the database open without a lock
	ForeignMount                 // the file is a mount point: by another path it has other side files
	ForeignLinks                 // several names lead to the file, each with side files of its own
	ForeignWAL                   // the -wal beside the file is of another file
	ForeignOverlay               // the file is in use through an overlay file system, whose locks are others
)

// ForeignError says that the WAL and the wal-index beside a database may not be those that its users work with.
// While that is so, nothing in them is trusted, and no connection of ours may exist: it could lose the
// application's commits.
type ForeignError struct {
	Kind ForeignKind
	PID  int    // the process; 0: not known, or of another pid namespace
	Path string // of the file in the overlay; "": not known, or another kind
}

var foreignTexts = [...]struct{ what, cure string }{
	ForeignExclusive: {"another process%s keeps the database for itself (locking_mode=EXCLUSIVE or the VFS unix-excl), " +
		"and its wal-index in its own memory",
		"Have the application use locking_mode=NORMAL; until then only its end makes what it wrote visible."},
	ForeignIndex: {"another process%s works with other -wal and -shm files than those beside the database",
		"Where a container mounts the single file, mount its directory instead. Where -wal or -shm were removed under a " +
			"running application, end it in order, now: its last close saves what it has."},
	ForeignUnlocked: {"another process%s has the database open without any lock (nolock, unix-none, unix-dotfile, or it " +
		"closed a copy of its own files and lost them)",
		"Have the application use SQLite's default VFS, and restart it."},
	ForeignMount: {"the file is itself a mount point: whoever reaches it by another path works with other -wal and -shm " +
		"files%s",
		"Mount the directory that holds it instead of the single file."},
	ForeignLinks: {"the file has several names (hard links), each with -wal and -shm files of its own%s",
		"Remove all names but the one that the application uses."},
	ForeignWAL: {"the -wal beside the database is older than the file itself: it belongs to the file that was there " +
		"before%s",
		"If the database was put there to stay, remove its -wal and -shm before the application is started: it would " +
			"replay them over it. If the -wal is right, start the application."},
	ForeignOverlay: {"the file is in the upper directory of an overlay file system, as of a container%s: whoever " +
		"reaches it through the overlay has locks that do not show here",
		"Watch it by its path below the overlay's mount point, or have the container keep it on a volume, and watch it " +
			"there."},
}

// Error says what is wrong.
func (e *ForeignError) Error() string {
	who := ""
	if e.PID > 0 {
		who = fmt.Sprintf(" (pid %d)", e.PID)
	}
	if e.Path != "" {
		who = fmt.Sprintf(" (there it is %s)", e.Path)
	}
	return fmt.Sprintf(foreignTexts[e.Kind].what, who)
}

// Cure says what an operator can do about it.
func (e *ForeignError) Cure() string { return foreignTexts[e.Kind].cure }

// How long, and at how many looks, a user without the wal-index must have been seen before it is no longer taken
// for one that is just opening or closing the database.
const (
	foreignAfter = 500 * time.Millisecond
	foreignLooks = 3
	slowEvery    = time.Second // how often to check what the locks do not show
)

// company is what is known of the other processes that use the database.
type company struct {
	path, walPath string
	pid           int // our own

	mu     sync.Mutex
	since  time.Time // since when every look has seen a user without the wal-index
	looks  int
	slowAt time.Time
	found  *ForeignError // by the last check of what the locks do not show
}

// Others reports whether another process uses the wal-index that we see. Where one uses the database in another
// way, the error is a *ForeignError, or ErrUnclear where that may be temporary. It costs two system calls, and a
// few more each second. While connections of ours are open, or there is a WAL and no lock shows whose, it also
// looks at the open files of all processes from time to time, as often as censusRest says.
func (f *Files) Others() (attached bool, err error) {
	f.mu.RLock()
	database, shm, left, joined := f.database, f.shm, f.left, f.pinned
	f.mu.RUnlock()
	if database == nil {
		return false, fmt.Errorf("%s: %w", f.path, fs.ErrClosed)
	}
	if left { // a process that connects now does not use the pinned files
		return false, ErrUnclear
	}
	main, err := other(database, sharedFirst, sharedSize)
	if err != nil {
		return false, err
	}
	var dms Holder
	if shm != nil {
		if dms, err = other(shm, shmDMS, 2); err != nil { // DMS, and the byte of a process that stands back
			return false, err
		}
	}
	return f.company.judge(database.id, time.Now(), main, dms, joined)
}

// IndexUser returns a process that uses the wal-index that is held and does not stand back, even where that file
// has been removed.
func (f *Files) IndexUser() (Holder, error) {
	d, err := f.held(&f.shm, ErrNoWALIndex)
	if err != nil {
		return Holder{}, err
	}
	return other(d, shmDMS, 1)
}

func (c *company) judge(database inode, now time.Time, main, dms Holder, joined bool) (attached bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.slowAt) >= slowEvery {
		c.slowAt = now
		if c.found, err = c.lookAgain(database, dms.Held, joined); err != nil {
			return false, err
		}
	}
	if !main.Held || dms.Held {
		c.since, c.looks = time.Time{}, 0
		if c.found != nil {
			return false, c.found
		}
		// DMS alone: the process stands back or lost its lock on the main file, and is connected nevertheless.
		return dms.Held, nil
	}
	if c.looks++; c.looks == 1 {
		c.since = now
	}
	if c.looks < foreignLooks || now.Sub(c.since) < foreignAfter {
		return false, ErrUnclear
	}
	if c.found != nil {
		return false, c.found
	}
	kind := ForeignIndex
	if main.Exclusive {
		kind = ForeignExclusive
	}
	return false, &ForeignError{Kind: kind, PID: max(0, main.PID)}
}

// leftWAL reports whether there is a WAL with frames. Where no lock shows a user, that user is dead, or takes none.
func (c *company) leftWAL() bool {
	wal, err := nameOf(c.walPath)
	return err == nil && wal.size > WALHeaderSize
}

// lookAgain checks what the locks do not show: the file's names, and whether what was found before is still so.
// Where we have joined, or a WAL stands that no lock shows a user of, it looks for processes that take no locks.
// The caller holds mu.
func (c *company) lookAgain(database inode, attached, joined bool) (*ForeignError, error) {
	found := c.found
	now, err := nameOf(c.path)
	switch {
	case err == unix.ENOENT:
		return nil, nil // Refresh reports that
	case err != nil:
		return nil, &fs.PathError{Op: "statx", Path: c.path, Err: err}
	case now.mountPoint:
		return &ForeignError{Kind: ForeignMount}, nil
	case now.links > 1:
		return &ForeignError{Kind: ForeignLinks}, nil
	}
	if merged, err := filesystem.Overlay(c.path); err == nil && merged != "" {
		return &ForeignError{Kind: ForeignOverlay, Path: merged}, nil
	}
	switch {
	case found == nil && (joined || !attached && c.leftWAL()):
		return c.foreigner(database, censusRest)
	case found == nil:
		return nil, nil
	case found.Kind == ForeignUnlocked, found.Kind == ForeignIndex, found.Kind == ForeignOverlay:
		return c.foreigner(database, censusFresh)
	case found.Kind == ForeignWAL && !attached:
		return c.strangersWAL()
	}
	return nil, nil
}

// Joined is Refresh, for a process that has just opened its first connection, and tells whether all who use the
// database share the wal-index of that connection. If somebody removed the -wal and -shm of a running application since
// MayOpen, the connection has made new ones, and while it is open the application's last close is not the last
// of all: what is in its WAL, which has no name, would be lost. Errors: those of Refresh and of Others.
func Joined(f *Files) (Change, error) {
	change, err := f.Refresh()
	if err == nil && !change.Database {
		_, err = f.Others()
	}
	return change, err
}

// MayOpen returns nil where a connection of ours would share the WAL and the wal-index with everybody who uses the
// database, as far as the kernel and /proc show; else ErrUnclear or a *ForeignError. Call it before opening the
// first connection of this process. It costs milliseconds: it looks at the open files of all processes.
func (f *Files) MayOpen() error {
	attached, err := f.Others()
	if err != nil {
		return err
	}
	database, err := f.held(&f.database, ErrEmpty)
	if err != nil {
		return err
	}
	var found *ForeignError
	if !attached {
		found, err = f.company.strangersWAL()
	}
	if err == nil && found == nil {
		found, err = f.company.foreigner(database.id, censusFresh)
	}
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", f.path, err)
	}
	if found == nil {
		return nil
	}
	f.company.mu.Lock()
	defer f.company.mu.Unlock()
	f.company.found, f.company.slowAt = found, time.Now()
	return found
}

// renameTime is how far apart the times may be that one rename leaves in the file and in its directory.
const renameTime = 100 * time.Millisecond

// strangersWAL finds a WAL that was there before the main file; the caller has seen that nobody uses it. A WAL is
// created and written to by processes that have the main file open, so such a WAL belongs to another file. Where
// the file system keeps no birth times, it finds nothing.
func (c *company) strangersWAL() (*ForeignError, error) {
	main, err := nameOf(c.path)
	wal, walErr := nameOf(c.walPath)
	for path, err := range map[string]error{c.path: err, c.walPath: walErr} {
		if err == unix.ENOENT {
			return nil, nil
		}
		if err != nil {
			return nil, &fs.PathError{Op: "statx", Path: path, Err: err}
		}
	}
	if main.born.IsZero() || wal.born.IsZero() || wal.size <= WALHeaderSize { // without frames it belongs to no file
		return nil, nil
	}
	younger := wal.born.Before(main.born) && wal.modified.Before(main.born)
	// The last thing that happened to the main file was a rename, and nobody wrote to the WAL after it. chmod, chown
	// and the like change the same time of the file, but none of its directory.
	renamed := main.changed.After(main.modified) && wal.changed.Before(main.changed)
	if dir, err := nameOf(filepath.Dir(c.walPath)); err == nil && dir.modified.Add(renameTime).Before(main.changed) {
		renamed = false
	}
	if younger || renamed {
		return &ForeignError{Kind: ForeignWAL}, nil
	}
	return nil, nil
}

// other returns another process that holds a lock in a range of bytes. Plain F_GETLK leaves out the locks of this
// process.
func other(d *descriptor, offset, size int64) (h Holder, err error) {
	err = d.control(func(fd int) error {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: offset, Len: size}
		if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lk); err != nil {
			return err
		}
		if lk.Type != unix.F_UNLCK {
			h = Holder{Held: true, Exclusive: lk.Type == unix.F_WRLCK, PID: int(lk.Pid)}
		}
		return nil
	})
	if err != nil {
		return h, fmt.Errorf("query locks of %s: %w", d.Name(), err)
	}
	return h, nil
}
