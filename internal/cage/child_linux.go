package cage

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isolate makes this process the first to go when memory runs out, of low priority where
// it is to be, without network and without new privileges. What only makes it a better neighbour may fail.
func isolate(last bool) error {
	if f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1000")
		f.Close()
	}
	if last {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	}
	_ = unix.Unshare(unix.CLONE_NEWNET) // only root may
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// limits are what this process may use of each resource. What the runtime has reserved
// without using it counts as well.
func limits(memory int64, cpu uint64) (map[int]uint64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	pages, _, _ := strings.Cut(string(text), " ")
	reserved, err := strconv.ParseInt(pages, 10, 64)
	if err != nil {
		return nil, err
	}
	reserved *= int64(os.Getpagesize())
	return map[int]uint64{
		unix.RLIMIT_CORE: 0,
		unix.RLIMIT_CPU:  cpu,
		unix.RLIMIT_AS:   uint64(min(reserved, math.MaxInt64-memory) + memory),
	}, nil
}
