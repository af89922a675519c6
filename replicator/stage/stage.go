// Package stage puts a database together beside its final place: nothing is at that
// place before all of it is right. It says what is in the way there, who uses it, and
// gives the finished file its name, owner and mode; what it replaces is set aside.
package stage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Stage is the file in which a database is put together, beside its final place.
// Its name is random, so that nobody can have put a file of theirs there, and its lock
// goes with the process: what a killed restore left behind is taken over by the next one,
// or removed, and two at a time are not possible.
type Stage struct {
	*os.File
	output   string
	leave    int64 // bytes of disk that must stay free
	content  Content
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

// Open makes the stage for an output file, or takes over one that was kept. leave is how
// many bytes of disk must stay free.
func Open(output string, leave int64) (*Stage, error) {
	kept, err := sweep(output, leave)
	if kept != nil || err != nil {
		return kept, err
	}
	path := filepath.Join(filepath.Dir(output), stageName(output)+"-"+rand.Text())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("restore beside %s: %w", output, err)
	}
	s := &Stage{File: f, output: output, leave: leave}
	err = errors.Join(f.Chmod(0o600), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err == nil {
		err = s.alone()
	}
	if err != nil {
		s.Discard()
		return nil, fmt.Errorf("restore to %s: %w", output, err)
	}
	return s, nil
}

// sweep returns a stage that a restore of ours to output left and that says what is in
// it, locked, and removes the others. Beside a living one it is an error. Other users'
// files are no business of ours.
func sweep(output string, leave int64) (kept *Stage, err error) {
	defer func() {
		if err != nil && kept != nil {
			err = errors.Join(err, kept.Keep())
			kept = nil
		}
	}()
	for path, err := range leftovers(output) {
		if err != nil {
			return kept, err
		}
		f, err := seize(path)
		if err != nil {
			return kept, err
		}
		if f == nil {
			continue
		}
		if kept == nil {
			if kept = adopt(f, output, leave); kept != nil {
				continue
			}
		}
		if err := errors.Join(remove(path), f.Close()); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// alone is an error where another restore to the same output has begun in the meantime.
func (s *Stage) alone() error {
	for path, err := range leftovers(s.output) {
		if err != nil {
			return err
		}
		if path == s.Name() {
			continue
		}
		f, err := seize(path)
		if err != nil {
			return err
		}
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// leftovers yields the stages beside output, whoever has them. What else of ours is old
// there is removed.
func leftovers(output string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir := filepath.Dir(output)
		entries, err := os.ReadDir(dir)
		if err != nil {
			yield("", err)
			return
		}
		names := map[string]bool{}
		for _, e := range entries {
			names[e.Name()] = true
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if !e.Type().IsRegular() {
				continue
			}
			if strings.HasPrefix(e.Name(), durable.TempPrefix) {
				sweepTemp(path)
			}
			if !strings.HasPrefix(e.Name(), stageName(output)) {
				continue
			}
			if of, isNote := strings.CutSuffix(e.Name(), noteSuffix); isNote {
				if !names[of] { // its stage was given its name, or is gone
					removeOurs(path)
				}
				continue
			}
			if !yield(path, nil) {
				return
			}
		}
	}
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

// removeOurs removes a small file that only we write.
func removeOurs(path string) {
	info, err := os.Lstat(path)
	if err == nil && private(info) {
		os.Remove(path)
	}
}

// seize opens and locks a stage that somebody left, nil where it is gone or not ours. It
// is an error where a process has it.
func seize(path string) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil // gone, or not ours to look at
	}
	ours := false
	defer func() {
		if !ours {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() || !info.Mode().IsRegular() {
		return nil, nil
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.New("another restore to the same file is running: wait for it")
	case err != nil:
		return nil, err
	}
	there, err := os.Lstat(path)
	if err != nil || !os.SameFile(info, there) {
		return nil, nil // it was given its name, or removed
	}
	ours = true
	return f, nil
}

// remove removes a stage and its note.
func remove(path string) error {
	err := os.Remove(path)
	if nerr := os.Remove(path + noteSuffix); !errors.Is(nerr, fs.ErrNotExist) {
		err = errors.Join(err, nerr)
	}
	return err
}

// Reserve takes size bytes of disk, so that a disk that
// is too small is told before the download and not after. It empties the stage unless
// what is in it is wanted.
func (s *Stage) Reserve(size int64, wanted bool) error {
	there := int64(0)
	if wanted {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.Fd()), &st); err != nil {
			return err
		}
		there = min(st.Blocks*512, size)
		if err := s.Truncate(min(st.Size, size)); err != nil {
			return err
		}
	} else if err := s.Truncate(0); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	if err := s.Room(size - there); err != nil {
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
		kept := ""
		if s.leave > 0 {
			kept = fmt.Sprintf(", of which %s must stay free", bytesOf(s.leave))
		}
		return fmt.Errorf("the restore needs %s in %s, and %s are available%s: %w", bytesOf(size), filepath.Dir(s.output),
			bytesOf(free), kept, syscall.ENOSPC)
	}
	return nil
}

// bytesOf writes an amount in the units of every other output.
func bytesOf(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// Discard removes the stage, still locked. After Publish it only closes it.
func (s *Stage) Discard() {
	os.Remove(s.Name() + noteSuffix)
	ours, err := s.Stat()
	if there, lerr := os.Lstat(s.Name()); err == nil && lerr == nil && os.SameFile(ours, there) {
		os.Remove(s.Name())
	}
	s.Close()
}
