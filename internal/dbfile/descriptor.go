package dbfile

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/openfile"
)

// inode names a file whatever its paths are called.
type inode = openfile.Inode

func inodeOf(st *unix.Stat_t) inode { return inode{Dev: uint64(st.Dev), Ino: st.Ino} }

// statPath returns what stat(2) says of the file at path, links followed, and
// false where there is none.
func statPath(path string) (st unix.Stat_t, ok bool, err error) {
	err = unix.Stat(path, &st)
	for err == unix.EINTR { // as retry, without an allocation at every look
		err = unix.Stat(path, &st)
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return unix.Stat_t{}, false, nil
	}
	if err != nil {
		return unix.Stat_t{}, false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, true, nil
}

// pin is an O_PATH descriptor: it holds an inode without opening it. Opening a
// FIFO or a device acts on it, and closing an opened database drops this
// process's locks; with a pin neither happens until the inode is known.
type pin struct {
	fd   int
	path string
	id   inode
}

// pinFile pins the regular file at path. Errors: fs.ErrNotExist,
// ErrNotRegular and what open(2) says.
func pinFile(path string) (pin, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, openPin|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return pin{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return pin{}, &fs.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return pin{}, fmt.Errorf("open %s: %w", path, ErrNotRegular)
	}
	return pin{fd, path, inodeOf(&st)}, nil
}

func (p pin) close() { unix.Close(p.fd) }

// open opens exactly the pinned inode for reading, whatever its path has come
// to mean in the meantime.
func (p pin) open() (*descriptor, error) {
	var fd int
	err := retry(func() (err error) {
		// O_NONBLOCK: a lease held on the file must not make us wait.
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", p.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return &descriptor{File: os.NewFile(uintptr(fd), p.path), id: p.id}, nil
}

// descriptor is an open file and its inode. The inode cannot be given to
// another file while the descriptor is open, so equal inodes are equal files.
type descriptor struct {
	*os.File
	id inode
}

// fstat returns what fstat(2) says of the file.
func (d *descriptor) fstat() (st unix.Stat_t, err error) {
	err = d.control(func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil {
		err = &fs.PathError{Op: "fstat", Path: d.Name(), Err: err}
	}
	return st, err
}

// control calls f with the raw descriptor, which stays open in the meantime.
func (d *descriptor) control(f func(fd int) error) error {
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = retry(func() error { return f(int(fd)) }) }); err != nil {
		return fs.ErrClosed // the only way it fails, but with an error that errors.Is does not match
	}
	return ferr
}

// sync makes the file's content durable.
func (d *descriptor) sync() error {
	if err := d.control(syncData); err != nil {
		return fmt.Errorf("fdatasync %s: %w", d.Name(), err)
	}
	return nil
}

// forget drops the file's clean pages from the page cache.
func (d *descriptor) forget() error {
	err := d.control(dropCached)
	if err != nil {
		return fmt.Errorf("drop cached pages of %s: %w", d.Name(), err)
	}
	return nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
