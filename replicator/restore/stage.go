package restore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

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
	Locked bool     // somebody has a connection to it, whoever that is
}

// Error says what is in the way and what to do.
func (e *OccupiedError) Error() string {
	switch {
	case len(e.Users) > 0:
		return fmt.Sprintf("%s exists and process %v has it open: stop it, then restore with --force to replace the database",
			e.Path, e.Users)
	case e.Locked:
		return fmt.Sprintf("%s exists and somebody has a connection to it, perhaps in a container: stop it, then restore "+
			"with --force to replace the database", e.Path)
	case e.Exists:
		return fmt.Sprintf("%s exists: restore to another path, or use --force to replace it", e.Path)
	}
	return fmt.Sprintf("%s belongs to a database that is gone, and SQLite would replay it into the restored one: remove "+
		"it, or use --force to have it set aside", e.Side[0])
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

// stage is the file in which a database is put together, beside its final place.
// Its name is random, so that nobody can have put a file of theirs there, and its lock
// goes with the process: what a killed restore left behind is removed by the next one,
// and two at a time are not possible.
type stage struct {
	*os.File
	output   string
	leave    int64 // bytes of disk that must stay free
	written  atomic.Int64
	flushing atomic.Bool
}

// flushEvery is after how many bytes the disk is set to work: what it has
// written when the last page comes need not be waited for.
const flushEvery = 16 << 20

// WriteAt is os.File's. It may be called concurrently.
func (s *stage) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.File.WriteAt(p, off)
	if now := s.written.Add(int64(n)); now/flushEvery != (now-int64(n))/flushEvery && s.flushing.CompareAndSwap(false,
		true) {
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

// stageName is what the names of stages for an output begin with.
func stageName(output string) string { return "." + filepath.Base(output) + ".sqlwatch-restore" }

// openStage makes the stage for an output file.
func openStage(output string) (*stage, error) {
	path := filepath.Join(filepath.Dir(output), stageName(output)+"-"+rand.Text())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("restore beside %s: %w", output, err)
	}
	s := &stage{File: f, output: output}
	err = errors.Join(f.Chmod(0o600), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		s.discard()
		return nil, fmt.Errorf("restore to %s: %w", output, err)
	}
	return s, nil
}

// sweep removes the stages that killed restores of ours left, and refuses beside a
// living one. Other users' files are no business of ours.
func (s *stage) sweep() error {
	dir := filepath.Dir(s.output)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), stageName(s.output)) || path == s.Name() || !e.Type().IsRegular() {
			continue
		}
		if err := sweepStage(path); err != nil {
			return err
		}
	}
	return nil
}

func sweepStage(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // gone, or not ours to look at
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() || !info.Mode().IsRegular() {
		return nil
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errors.New("another restore to the same file is running: wait for it")
	case err != nil:
		return err
	}
	there, err := os.Lstat(path)
	if err != nil || !os.SameFile(info, there) {
		return nil
	}
	return os.Remove(path)
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
	if err := s.room(size); err != nil {
		return err
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

// room returns an error where size bytes more would take what is to stay free.
func (s *stage) room(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.Fd()), &fs); err != nil {
		return fmt.Errorf("free space beside %s: %w", s.output, err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < size+s.leave {
		return fmt.Errorf("%d bytes are needed, the file system of %s has %d left, of which %d stay free: %w", size, s.output,
			free, s.leave, syscall.ENOSPC)
	}
	return nil
}

// publish gives the finished file its name. What it replaces, side files first because
// SQLite would replay them into the new database, is set aside under another name that
// SQLite understands. It returns those names.
func (s *stage) publish() (aside []string, err error) {
	beside := s.output + ".replaced-" + time.Now().UTC().Format("20060102T150405.000Z")
	for _, suffix := range sideFiles {
		err := durable.Move(s.output+suffix, beside+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return aside, fmt.Errorf("set the replaced database's %s aside: %w", s.output+suffix, err)
		}
		aside = append(aside, beside+suffix)
	}
	err = os.Link(s.output, beside) // so that something is always there
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		err = durable.Move(s.output, beside)
	}
	if err == nil {
		aside = append(aside, beside)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return aside, fmt.Errorf("set the replaced database aside: %w", err)
	}
	return aside, durable.Replace(s.Name(), s.output)
}

// inherit gives the stage the owner and mode of the database that it replaces, or else
// the owner of the directory, as far as we may. Where others may put files into the
// directory, what they put there says nothing.
func (s *stage) inherit() error {
	dir, err := os.Stat(filepath.Dir(s.output))
	if err != nil {
		return err
	}
	like, mode := dir, fs.FileMode(0o600)
	shared := dir.Mode()&0o002 != 0
	if old, err := os.Lstat(s.output); err == nil && old.Mode().IsRegular() {
		if sys, ok := old.Sys().(*syscall.Stat_t); ok && (!shared || int(sys.Uid) == os.Geteuid()) {
			like, mode, shared = old, old.Mode().Perm(), false
		}
	}
	sys, ok := like.Sys().(*syscall.Stat_t)
	if !ok || shared {
		return nil
	}
	if like == dir && os.Geteuid() != 0 {
		return nil
	}
	if err := s.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
		return fmt.Errorf("give it to uid %d, gid %d, as what it replaces: %w", sys.Uid, sys.Gid, err)
	}
	return s.Chmod(mode)
}

// discard removes the stage, still locked. After publish it only closes it.
func (s *stage) discard() {
	ours, err := s.Stat()
	if there, lerr := os.Lstat(s.Name()); err == nil && lerr == nil && os.SameFile(ours, there) {
		os.Remove(s.Name())
	}
	s.Close()
}
