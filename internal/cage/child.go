package cage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// How a child ends that has no verdict.
const (
	exitUsage    = 64
	exitOrphaned = 65
	exitMemory   = 66
)

// child is the process in the cage: it confines itself, checks, and says what SQLite said.
func child(args []string) int {
	// Priority and name spaces are a thread's: SQLite runs in this one.
	runtime.LockOSThread()
	memory, err := strconv.ParseInt(args[2], 10, 64)
	cpu, err2 := strconv.ParseUint(args[3], 10, 63)
	if err = errors.Join(err, err2); err == nil {
		err = confine(memory, cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever comes of it, nobody waits any more
		os.Exit(exitOrphaned)
	}()
	v := verdict{OK: true}
	if err := check(context.Background(), args[0] == "full", args[1]); errors.Is(err, sqlite.ErrNoMemory) {
		return exitMemory
	} else if err != nil {
		v = verdict{Corrupt: errors.Is(err, sqlite.ErrCorrupt), Text: fmt.Sprintf("%.8000s", err.Error())}
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return exitOrphaned
	}
	return 0
}

// confine bounds this process. What only makes it a better neighbour may fail.
func confine(memory int64, cpu uint64) error {
	if f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1000") // first in line
		f.Close()
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	_ = unix.Unshare(unix.CLONE_NEWNET) // only root may
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confine a check: %w", err)
	}
	// What the runtime has reserved without using it counts as well.
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return fmt.Errorf("confine a check: %w", err)
	}
	pages, _, _ := strings.Cut(string(text), " ")
	reserved, err := strconv.ParseInt(pages, 10, 64)
	if err != nil {
		return fmt.Errorf("confine a check: %w", err)
	}
	reserved *= int64(os.Getpagesize())
	for resource, most := range map[int]uint64{
		unix.RLIMIT_CORE: 0,
		unix.RLIMIT_CPU:  cpu,
		unix.RLIMIT_AS:   uint64(min(reserved, math.MaxInt64-memory) + memory),
	} {
		if err := lower(resource, most); err != nil {
			return fmt.Errorf("confine a check: %w", err)
		}
	}
	return nil
}

// lower sets both limits of a resource, unless they are lower already. A process that
// comes to its hard limit of processor time is killed.
func lower(resource int, most uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	now.Max = min(now.Max, most)
	now.Cur = min(now.Cur, now.Max)
	return unix.Setrlimit(resource, &now)
}
