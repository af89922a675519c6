package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// The files that SQLite would take for the restored database's own.
var sideFiles = []string{"-wal", "-shm", "-journal"}

// OccupiedError says that something is where a restored database should go.
type OccupiedError struct {
	Path   string
	Side   []string // of Path's side files those that are there
	Exists bool     // Path itself is there
	Users  []int    // processes that have it open
}

// Error says what is in the way and what to do.
func (e *OccupiedError) Error() string {
	switch {
	case len(e.Users) > 0:
		return fmt.Sprintf("%s exists and process %v has it open: stop it, then restore with --force to replace the database", e.Path, e.Users)
	case e.Exists:
		return fmt.Sprintf("%s exists: restore to another path, or use --force to replace it", e.Path)
	}
	return fmt.Sprintf("%s belongs to a database that is gone, and SQLite would replay it into the restored one: remove it, or use --force to have it removed", e.Side[0])
}

// Is makes errors.Is(err, fs.ErrExist) true.
func (e *OccupiedError) Is(target error) bool { return target == fs.ErrExist }

// occupied describes what is at path, nil when nothing is.
func occupied(path string) (*OccupiedError, error) {
	o := &OccupiedError{Path: path}
	info, err := os.Lstat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is a %s, not a database that can be replaced", path, kind(info.Mode()))
	case err == nil:
		o.Exists, o.Users = true, usersOf(info)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	for _, suffix := range sideFiles {
		if _, err := os.Lstat(path + suffix); err == nil {
			o.Side = append(o.Side, path+suffix)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !o.Exists && len(o.Side) == 0 {
		return nil, nil
	}
	return o, nil
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "special file"
}

// usersOf returns the other processes that have a file open, as far as we may
// see. The file is not opened for it: that would cost a process its locks.
func usersOf(file fs.FileInfo) (pids []int) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, fd := range fds {
		info, err := os.Stat(fd)
		if err != nil || !os.SameFile(info, file) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(fd))))
		if err == nil && pid != os.Getpid() && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resolveOutput returns the path that a restore to output replaces: a symbolic
// link stays, and what it points to is meant, as SQLite itself would see it.
func resolveOutput(output string) (string, error) {
	if output == "" {
		return "", errors.New("no output file: use -o FILE")
	}
	path, err := filepath.Abs(output)
	if err != nil {
		return "", err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", fmt.Errorf("%s is a symbolic link that leads nowhere: %w", output, err)
		}
		return path, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("the directory of %s: %w: make it first", output, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// stage is the file in which a database is put together, beside its final
// place. Its name is fixed and its lock goes with the process: what a killed
// restore leaves behind is taken over by the next one, and two at a time are
// not possible.
type stage struct {
	*os.File
	output   string
	written  atomic.Int64
	flushing atomic.Bool
}

// flushEvery is after how many bytes the disk is set to work: what it has
// written when the last page comes need not be waited for.
const flushEvery = 16 << 20

// WriteAt is os.File's. It may be called concurrently.
func (s *stage) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.File.WriteAt(p, off)
	if now := s.written.Add(int64(n)); now/flushEvery != (now-int64(n))/flushEvery && s.flushing.CompareAndSwap(false, true) {
		go s.flush()
	}
	return n, err
}

// flush sets the disk to work. It waits while the disk's queue is full, which no
// writer should. It is a hint: whatever comes of it, fsync has the last word.
func (s *stage) flush() {
	defer s.flushing.Store(false)
	if file, err := s.SyscallConn(); err == nil {
		_ = file.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
	}
}

// openStage makes or takes over the stage for an output file.
func openStage(output string) (*stage, error) {
	path := filepath.Join(filepath.Dir(output), "."+filepath.Base(output)+".sqlwatch-restore")
	for range 8 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("restore beside %s: %w", output, err)
		}
		err = lockStage(f)
		if err == nil {
			return &stage{File: f, output: output}, nil
		}
		f.Close()
		if !errors.Is(err, errStageMoved) {
			return nil, fmt.Errorf("restore to %s: %w", output, err)
		}
	}
	return nil, fmt.Errorf("restore to %s: other restores to it come and go", output)
}

// errStageMoved says that another restore finished with the file between our
// open and our lock: it may be the restored database now.
var errStageMoved = errors.New("the file was moved")

func lockStage(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("another restore to the same file is running: wait for it")
	}
	if err != nil {
		return err
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.Name())
	if err != nil || !os.SameFile(ours, there) {
		return errStageMoved
	}
	if !ours.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	return f.Chmod(0o600)
}

// reserve empties the stage and takes size bytes of disk, so that a disk that
// is too small is told before the download and not after.
func (s *stage) reserve(size int64) error {
	if err := s.Truncate(0); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.Fd()), &fs); err != nil {
		return fmt.Errorf("free space beside %s: %w", s.output, err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < size {
		return fmt.Errorf("the database needs %d bytes, the file system of %s has %d left: %w", size, s.output, free, syscall.ENOSPC)
	}
	err := unix.Fallocate(int(s.Fd()), 0, 0, size)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return s.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", size, s.output, err)
	}
	return nil
}

// publish gives the finished file its name. Side files of the database that it
// replaces go first: SQLite would replay them into the new one.
func (s *stage) publish() error {
	for _, suffix := range sideFiles {
		if err := durable.Remove(s.output + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the replaced database's %s: %w", s.output+suffix, err)
		}
	}
	return durable.Replace(s.Name(), s.output)
}

// discard removes the stage, still locked. After publish it only closes it.
func (s *stage) discard() {
	ours, err := s.Stat()
	if there, lerr := os.Lstat(s.Name()); err == nil && lerr == nil && os.SameFile(ours, there) {
		os.Remove(s.Name())
	}
	s.Close()
}
