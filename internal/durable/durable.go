// Package durable makes files that are there after a power cut, whole or not
// at all. It is the only place of the project that creates or renames a file.
//
// A file is written under a temporary name in the directory of its final one,
// fsynced, renamed, and then the directory is fsynced: without the first fsync
// a power cut leaves an empty file, without the second it brings the old name
// back. Modes are set by fchmod, so that the umask has no say in them.
//
// An error from fsync is final. The kernel reports a lost write once and then
// calls the page clean, so a second fsync that succeeds proves nothing: the
// temporary file is thrown away and the caller writes a new one.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// TempPrefix begins every temporary name, so that SweepTemp knows them.
const TempPrefix = ".sqlwatch-tmp-"

// File is a file in the making. It has no name that anybody looks for until
// Commit or CommitNew gives it one. It is not for concurrent use.
type File struct {
	file *os.File
	path string // the name Commit gives
	err  error  // the first failed write, or os.ErrClosed after the end
}

// Create begins a file that Commit will put at path with the mode perm,
// whatever the umask. The caller ends it with Commit, CommitNew or Abort.
func Create(path string, perm fs.FileMode) (*File, error) {
	file, err := os.CreateTemp(filepath.Dir(path), TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create temporary file for %s: %w", path, unnamed(err))
	}
	f := &File{file: file, path: path}
	if err := file.Chmod(perm); err != nil {
		return nil, errors.Join(fmt.Errorf("set mode of temporary file for %s: %w", path, unnamed(err)), f.Abort())
	}
	return f, nil
}

// Write appends p at the file's offset.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	return n, f.keep(err)
}

// WriteAt writes p at offset off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.file.WriteAt(p, off)
	return n, f.keep(err)
}

// ReadAt reads what was written so far; its errors do not spoil the file.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// Truncate sets the file's size.
func (f *File) Truncate(size int64) error { return f.keep(f.file.Truncate(size)) }

// keep remembers the first failed write: a file with a hole where data should
// be must not be committed, even by a caller who overlooked the error.
func (f *File) keep(err error) error {
	err = unnamed(err)
	if err != nil && f.err == nil {
		f.err = err
	}
	return err
}

// Commit puts the file at its path, replacing what is there. When it returns
// nil the file survives a power cut. After an error the old file is still
// there, except when only the directory's fsync failed: then the new one is in
// place and may be lost again by a power cut. In no case is there half a file,
// and in no case may Commit be tried again: write a new file.
func (f *File) Commit() error {
	return f.finish(func(temp string) error { return os.Rename(temp, f.path) })
}

// CommitNew puts the file at its path if nothing is there, otherwise it
// returns an error for which errors.Is(err, fs.ErrExist) holds.
func (f *File) CommitNew() error {
	return f.finish(func(temp string) error { return renameNew(temp, f.path) })
}

func (f *File) finish(rename func(temp string) error) (err error) {
	if f.err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", f.path, f.err), f.Abort())
	}
	f.err = os.ErrClosed
	temp := f.file.Name()
	err = f.file.Sync()
	if closeErr := f.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = rename(temp)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", f.path, unnamed(err)), removeTemp(temp))
	}
	return syncDir(filepath.Dir(f.path))
}

// Abort throws the file away. After Commit or a first Abort it does nothing,
// so it can be deferred.
func (f *File) Abort() error {
	if errors.Is(f.err, os.ErrClosed) {
		return nil
	}
	f.err = os.ErrClosed
	return errors.Join(f.file.Close(), removeTemp(f.file.Name()))
}

// unnamed leaves out the temporary name, which is random: a trouble that lasts
// must read the same each time, or each time is logged as another.
func unnamed(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}

// removeTemp removes a temporary file; a sweeper may have been faster.
func removeTemp(temp string) error {
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove temporary file: %w", unnamed(err))
	}
	return nil
}

// renameNew renames without replacing. File systems that cannot do that in one
// step (NFS, some FUSE) do it by a hard link; a crash before the unlink leaves
// a temporary name for SweepTemp.
func renameNew(temp, path string) error {
	err := renameNoReplace(temp, path)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err := os.Link(temp, path); err != nil {
			return err
		}
		return removeTemp(temp)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: path, Err: err}
	}
	return nil
}

// WriteFile replaces the file at path by one with these contents and this
// mode, durably and in one step.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Abort())
	}
	return f.Commit()
}

// MkdirAll makes the directory path and the parents it lacks, each with the
// mode perm whatever the umask, and makes each durable. Directories that exist
// keep their mode.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	parent := filepath.Dir(path)
	if err := MkdirAll(parent, perm); err != nil {
		return err
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(path, perm); err != nil {
		return fmt.Errorf("set mode of new directory: %w", err)
	}
	return syncDir(parent)
}

// Remove unlinks path and makes that durable. A path that does not exist is an
// error for which errors.Is(err, fs.ErrNotExist) holds.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// SweepTemp removes the temporary files that a crash left in dir, not below
// it. The caller holds the lock of whoever writes there: the temporary files of
// a living writer look the same. A directory that does not exist is clean.
func SweepTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep temporary files: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), TempPrefix) && entry.Type().IsRegular() {
			errs = append(errs, removeTemp(filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes the names in dir durable. Each call opens the directory again:
// after an error the same descriptor would prove nothing.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync it: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
