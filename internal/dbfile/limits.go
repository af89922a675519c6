package dbfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// perDatabase is how many descriptors a captured database needs: its files, three connections with theirs, a
// segment, an upload.
const perDatabase = 16

// spare reports whether the process may open one more database. Those that are open need descriptors again and
// again, for connections, segments and requests: a new one is refused before they run out for the others.
func spare(open int) bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || admits(0, open, limit.Cur) {
		return true // even if all of them were at work
	}
	used, err := os.ReadDir("/proc/self/fd")
	return err != nil || admits(len(used), 0, limit.Cur)
}

// admits reports whether a quarter of the limit is left beside the descriptors in use, those that the open
// databases need, and those of one more.
func admits(used, open int, limit uint64) bool {
	return uint64(used)+uint64(open+1)*perDatabase <= limit-limit/4
}
