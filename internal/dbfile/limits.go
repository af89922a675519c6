package dbfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// perDatabase is how many descriptors a captured database has at work: its files, three
// connections with theirs, a segment, an upload.
const perDatabase = 16

// spare reports whether the process may open one more database. Those that are open need
// descriptors again and again, for connections, segments and requests: a newcomer is
// refused while that is still in order, not when the old ones begin to fail.
func spare(open int) bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || admits(0, open, limit.Cur) {
		return true // even if all of them were at work
	}
	used, err := os.ReadDir("/proc/self/fd")
	return err != nil || admits(len(used), 0, limit.Cur)
}

// admits reports whether a quarter of the limit is left beside what is used, what so
// many databases need and what one more does.
func admits(used, open int, limit uint64) bool {
	return uint64(used)+uint64(open+1)*perDatabase <= limit-limit/4
}
