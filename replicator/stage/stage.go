// Package stage puts a database together beside its final place: nothing is at that
// place before all of it is right. It says what is in the way there, who uses it, and
// gives the finished file its name, owner and mode; what it replaces is set aside.
package stage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Stage is the file in which a database is put together, beside its final place.
// Its name is random, so that nobody can have put a file of theirs there, and its lock
// goes with the process: what a killed restore left behind is removed by the next one,
// and two at a time are not possible.
type Stage struct {
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
func (s *Stage) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.File.WriteAt(p, off)
	if now := s.written.Add(int64(n)); now/flushEvery != (now-int64(n))/flushEvery && s.flushing.CompareAndSwap(false,
		true) {
		go s.flush()
	}
	return n, err
}

// flush sets the disk to work. It waits while the disk's queue is full, which no
// writer should. It is a hint: whatever comes of it, fsync has the last word.
func (s *Stage) flush() {
	defer s.flushing.Store(false)
	if file, err := s.SyscallConn(); err == nil {
		_ = file.Control(func(fd uintptr) { _ = startWriting(int(fd)) })
	}
}

// stageName is what the names of stages for an output begin with.
func stageName(output string) string { return "." + filepath.Base(output) + ".sqlwatch-restore" }

// Open makes the stage for an output file. leave is how many bytes of disk must stay free.
func Open(output string, leave int64) (*Stage, error) {
	path := filepath.Join(filepath.Dir(output), stageName(output)+"-"+rand.Text())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("restore beside %s: %w", output, err)
	}
	s := &Stage{File: f, output: output, leave: leave}
	err = errors.Join(f.Chmod(0o600), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		s.Discard()
		return nil, fmt.Errorf("restore to %s: %w", output, err)
	}
	return s, nil
}

// sweep removes the stages that killed restores of ours left, and refuses beside a
// living one. Other users' files are no business of ours.
func (s *Stage) sweep() error {
	dir := filepath.Dir(s.output)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.Type().IsRegular() || path == s.Name() {
			continue
		}
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			sweepTemp(path)
		}
		if !strings.HasPrefix(e.Name(), stageName(s.output)) {
			continue
		}
		if err := sweepStage(path); err != nil {
			return err
		}
	}
	return nil
}

// sweepTemp removes what a restore that was killed while it left its note did not
// finish. That of a living one looks the same, and is younger.
func sweepTemp(path string) {
	const age = time.Hour
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < age {
		return
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == os.Geteuid() {
		os.Remove(path)
	}
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

// Reserve empties the stage and takes size bytes of disk, so that a disk that
// is too small is told before the download and not after.
func (s *Stage) Reserve(size int64) error {
	if err := s.Truncate(0); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	if err := s.Room(size); err != nil {
		return err
	}
	err := allocate(int(s.Fd()), size)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return s.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", size, s.output, err)
	}
	return nil
}

// Room returns an error where size bytes more would take what is to stay free.
func (s *Stage) Room(size int64) error {
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

// Discard removes the stage, still locked. After Publish it only closes it.
func (s *Stage) Discard() {
	ours, err := s.Stat()
	if there, lerr := os.Lstat(s.Name()); err == nil && lerr == nil && os.SameFile(ours, there) {
		os.Remove(s.Name())
	}
	s.Close()
}
