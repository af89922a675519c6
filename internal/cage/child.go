package cage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

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
		err = confine(memory, cpu, args[4] == "true")
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

// confine bounds this process.
func confine(memory int64, cpu uint64, last bool) error {
	if err := isolate(last); err != nil {
		return fmt.Errorf("confine a check: %w", err)
	}
	limits, err := limits(memory, cpu)
	if err != nil {
		return fmt.Errorf("confine a check: %w", err)
	}
	for resource, most := range limits {
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
