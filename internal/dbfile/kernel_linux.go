package dbfile

import (
	"time"

	"golang.org/x/sys/unix"
)

// Calls that not every kernel has.
const (
	setLock  = unix.F_OFD_SETLK // a lock of the descriptor
	getLocks = unix.F_OFD_GETLK // shows the locks of this process as well
	openPin  = unix.O_PATH      // without opening the file
)

func syncData(fd int) error { return unix.Fdatasync(fd) }

func dropCached(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }

// nameOf looks at the file that a path leads to.
func nameOf(path string) (named, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if err != nil {
		return named{}, err
	}
	at := func(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	n := named{inode: st.Ino, size: st.Size, links: uint64(st.Nlink), modified: at(st.Mtime), changed: at(st.Ctime),
		mountPoint: st.Attributes&st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0}
	if st.Mask&unix.STATX_BTIME != 0 {
		n.born = at(st.Btime)
	}
	return n, nil
}
