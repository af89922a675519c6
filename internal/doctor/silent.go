package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"

	"github.com/sqlwatch/sqlwatch/internal/health"
)

// lookWithin bounds one look at a database's files: a look that takes longer is taken to hang.
const lookWithin = 15 * time.Second

// errSilent is the error of a path whose disk does not answer.
var errSilent = errors.New("its disk does not answer")

// gatherSoon is Gather with a time limit, in case the disk does not answer.
func gatherSoon(ctx context.Context, name, path string) (f Facts, answered bool) {
	return answering(func(next func()) Facts { return gather(ctx, name, path, next) })
}

// answering runs do, which consists of many looks and calls next at the begin of each, and returns its
// result, unless one look hangs. A hanging look continues in the background, in a process that is given
// up. All looks together may take long on a busy machine; that is not an error.
func answering(look func(next func()) Facts) (f Facts, answered bool) {
	var begun atomic.Pointer[time.Time] // begin of the look that is under way
	next := func() { begun.Store(new(time.Now())) }
	next()
	found := make(chan Facts, 1)
	go func() { found <- look(next) }()
	for {
		left := time.Until(begun.Load().Add(lookWithin))
		if left <= 0 {
			return Facts{}, false
		}
		select {
		case f = <-found:
			return f, true
		case <-time.After(left):
		}
	}
}

// Silent returns the report about a database whose disk does not answer: nothing about it can be examined.
func Silent(name, path string) Examined {
	disk := ""
	if mounts, err := procfs.GetMounts(); err == nil {
		disk = above(path, mounts)
	}
	return Examined{Name: name, Path: path, Replicas: []string{}, Conditions: []health.Condition{},
		Findings: one("disk-silent", Critical, "reading "+path+" does not return"+disk,
			"the disk, or the network behind it, does not answer; the application waits for it too",
			"dmesg; see what hangs with: cat /proc/mounts")}
}

// above returns the file system of a path by the path alone, because a stat would hang too.
func above(path string, mounts []*procfs.MountInfo) string {
	longest, kind := "", ""
	for _, m := range mounts {
		point, err := strconv.Unquote(`"` + m.MountPoint + `"`) // blanks are \040
		if err != nil {
			continue
		}
		inside := strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/") || path == point
		if inside && len(point) >= len(longest) { // of two at the same mount point, the last one is on top
			longest, kind = point, m.FSType
		}
	}
	if longest == "" {
		return ""
	}
	return fmt.Sprintf("; %s is mounted on %s", kind, longest)
}
