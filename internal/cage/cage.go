// Package cage has SQLite check a database in a process of its own, which nobody misses:
// with bounds on memory, processor time and duration, without the keys of this process,
// and first in line when memory runs out. A database out of a store may be crafted: the
// expressions of its indexes run while it is checked.
package cage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/again"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// arg0 is what the child is called, in ps too.
const arg0 = "sqlwatch-check"

// ErrLimit says that a check was ended because it took more than any sane database of
// its size does. The database is neither sound nor corrupt then: nobody knows.
var ErrLimit = errors.New("the check was ended")

// entered says that this program can be its own child.
var entered atomic.Bool

// Enter is what a program begins with whose checks are to run in children: in a child it
// does not return. Where a program, such as another package's test, has not called it,
// Check runs in this process.
func Enter() {
	if len(os.Args) == 6 && os.Args[0] == arg0 {
		os.Exit(child(os.Args[1:]))
	}
	entered.Store(true)
}

// Check is what to check, and what that may take.
type Check struct {
	Path string
	Full bool // integrity_check, else quick_check
	Last bool // of low priority: nobody waits for it, and others want the processors

	// The bounds; 0 is enough for any sane database of the file's size.
	Memory   int64         // bytes, beyond what a process has that does nothing
	CPU      time.Duration // of processor time, in whole seconds
	Duration time.Duration
}

// The bounds of a check: a processor that does 4 MiB and a disk that does 1 MiB in a second.
const (
	leastMemory   = 512 << 20
	leastCPU      = 2 * time.Minute
	leastDuration = 10 * time.Minute
)

func (c *Check) complete() error {
	info, err := os.Stat(c.Path)
	if err != nil {
		return err
	}
	size := time.Duration(info.Size() >> 20)
	if c.Memory == 0 {
		c.Memory = leastMemory + info.Size()>>10 // a bit for each page of 128 bytes
	}
	if c.CPU == 0 {
		c.CPU = leastCPU + size*time.Second/4
	}
	if c.Duration == 0 {
		c.Duration = leastDuration + size*time.Second
	}
	return nil
}

// Run checks the file, which nobody else uses. nil is returned only where SQLite said
// that it is sound; errors.Is(err, sqlite.ErrCorrupt) where it said that it is not, and
// ErrLimit where it came to no end within the bounds.
func (c Check) Run(ctx context.Context) error {
	if !entered.Load() {
		return check(ctx, c.Full, c.Path)
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return err
	}
	if err := c.complete(); err != nil {
		return err
	}
	program, err := again.Self()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, c.Duration)
	defer cancel()
	cmd := exec.CommandContext(bounded, program)
	cmd.Args = []string{arg0, kind(c.Full), path, strconv.FormatInt(c.Memory, 10),
		strconv.FormatInt(int64(c.CPU/time.Second), 10), strconv.FormatBool(c.Last)}
	// Nothing of ours, and so no keys. The last is for our tests: what the race detector is told.
	cmd.Env = []string{"GOTRACEBACK=none", "GOMAXPROCS=2", "GORACE=" + os.Getenv("GORACE")}
	cmd.Dir = "/"
	var out, complaint cut
	cmd.Stdout, cmd.Stderr = &out, &complaint
	// Its end tells the child that nobody waits for it any more.
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Path, err)
	}
	defer alive.Close()
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return out.verdict(c.Path)
	}
	if bounded.Err() != nil {
		return fmt.Errorf("check %s: %w: it lasted longer than %s", c.Path, ErrLimit, c.Duration)
	}
	return c.explain(cmd.ProcessState, err, complaint.String())
}

// explain says why a child brought no verdict.
func (c Check) explain(state *os.ProcessState, err error, complaint string) error {
	if state == nil {
		return fmt.Errorf("check %s in a process of its own: %w", c.Path, err)
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	used := state.UserTime() + state.SystemTime()
	switch {
	case status.Signaled() && used+time.Second > c.CPU:
		return fmt.Errorf("check %s: %w: it took more than %s of processor time, which no sane database of its size does",
			c.Path, ErrLimit, c.CPU)
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return fmt.Errorf("check %s: %w: something killed it, as the system does where memory runs out", c.Path, ErrLimit)
	case status.ExitStatus() == exitMemory:
		return fmt.Errorf("check %s: %w: it wanted more than %d MiB of memory, which no sane database of its size does",
			c.Path, ErrLimit, c.Memory>>20)
	}
	return fmt.Errorf("check %s: %w: its process ended with %s: %.200s", c.Path, ErrLimit, state, complaint)
}

// verdict is what a child says, and how it is told.
type verdict struct {
	OK      bool   `json:"ok"`
	Corrupt bool   `json:"corrupt,omitempty"`
	Text    string `json:"text,omitempty"`
}

// Error implements error.
func (v verdict) Error() string { return v.Text }

// Is makes errors.Is(err, sqlite.ErrCorrupt) true where it was in the child.
func (v verdict) Is(target error) bool { return v.Corrupt && target == sqlite.ErrCorrupt }

// cut keeps the beginning of what is written: a child may not fill our memory either.
type cut struct{ bytes.Buffer }

// Write implements io.Writer.
func (c *cut) Write(p []byte) (int, error) {
	const most = 16 << 10
	c.Buffer.Write(p[:min(len(p), most-c.Len())])
	return len(p), nil
}

func (c *cut) verdict(path string) error {
	var v verdict
	if err := json.NewDecoder(&c.Buffer).Decode(&v); err != nil {
		return fmt.Errorf("check %s: its process ended without a verdict: %w", path, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if v.OK {
		return nil
	}
	return v
}

func kind(full bool) string {
	if full {
		return "full"
	}
	return "quick"
}

func check(ctx context.Context, full bool, path string) error {
	if full {
		return sqlite.IntegrityCheck(ctx, path)
	}
	return sqlite.QuickCheck(ctx, path)
}
