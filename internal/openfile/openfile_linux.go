package openfile

import "golang.org/x/sys/unix"

// At returns which file a link of /proc/PID/fd stands for. It opens nothing.
func At(link string) (Inode, error) {
	var st unix.Statx_t
	// The kernel has the inode in memory, and so its number: to ask the disk again, as stat(2)
	// does of a network's, is what may never return.
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
	for err == unix.EINTR {
		err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
	}
	if err != nil {
		return Inode{}, err
	}
	return Inode{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}, nil
}
