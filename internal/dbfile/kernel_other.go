//go:build !linux

package dbfile

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// On other systems a Claim takes a lock of the process. Databases are not watched there, so a pin may open the
// file.
const (
	setLock  = unix.F_SETLK
	getLocks = unix.F_GETLK
	openPin  = unix.O_RDONLY | unix.O_NONBLOCK
)

func syncData(fd int) error { return unix.Fsync(fd) }

func dropCached(int) error { return errors.ErrUnsupported }

func nameOf(path string) (named, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		return named{}, err
	}
	return named{inode: st.Ino, size: uint64(st.Size), links: uint64(st.Nlink), modified: time.Unix(st.Mtim.Unix()),
		changed: time.Unix(st.Ctim.Unix())}, nil
}
