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

// lookWithin bounds a look at a database's files: one that takes longer does not return.
const lookWithin = 15 * time.Second

// errSilent is found of a place whose disk does not answer.
var errSilent = errors.New("its disk does not answer")

// gatherSoon is Gather, unless the disk does not answer.
func gatherSoon(ctx context.Context, name, path string) (f Facts, answered bool) {
	return answering(func(next func()) Facts { return gather(ctx, name, path, next) })
}

// answering returns what comes of many looks, each of which begins with a call of next, unless one
// of them does not return: then it goes on, in a process that its owner gives up. On a busy machine
// all of them may take long; that is no silence.
func answering(look func(next func()) Facts) (f Facts, answered bool) {
	var begun atomic.Pointer[time.Time] // the look that is under way
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

// Silent is the report about a database whose disk does not answer: nothing of it can be
// looked at.
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

// above names the file system over a path, by the path alone: a look would not return either.
func above(path string, mounts []*procfs.MountInfo) string {
	longest, kind := "", ""
	for _, m := range mounts {
		point, err := strconv.Unquote(`"` + m.MountPoint + `"`) // blanks are \040
		if err != nil {
			continue
		}
		inside := strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/") || path == point
		if inside && len(point) >= len(longest) { // of two at one place, the last is on top
			longest, kind = point, m.FSType
		}
	}
	if longest == "" {
		return ""
	}
	return fmt.Sprintf("; %s is mounted on %s", kind, longest)
}
