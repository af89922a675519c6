package dbfile

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Identity names the file at a path as this very file: by its inode and the instant at
// which that was made, which a copy does not have, nor a file of another machine. It
// opens nothing. It is "" where there is no file, or the file system keeps no birth times.
func Identity(path string) string {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st) })
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec)
}
