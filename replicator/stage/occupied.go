package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/sqlwatch/sqlwatch/internal/openfile"
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

// Occupied describes what is at path, nil when nothing is.
func Occupied(path string) (*OccupiedError, error) {
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
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	wanted := openfile.Inode{Dev: uint64(st.Dev), Ino: st.Ino}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, fd := range fds {
		if at, err := openfile.At(fd); err != nil || at != wanted {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(fd))))
		if err == nil && pid != os.Getpid() && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Resolve returns the path that a restore to output replaces: a symbolic
// link stays, and what it points to is meant, as SQLite itself would see it.
func Resolve(output string) (string, error) {
	if output == "" {
		return "", errors.New("no output file: use -o FILE")
	}
	path, err := filepath.Abs(output)
	if err != nil {
		return "", err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", fmt.Errorf("%s is a symbolic link that leads nowhere: %w: name with -o the file that it is to lead to",
				output, err)
		}
		return path, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("the directory of %s: %w: make it first", output, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}
