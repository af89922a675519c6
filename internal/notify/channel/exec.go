package channel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// newExec starts a program for each message and writes the message to its standard
// input as JSON. No shell is between, and none of the daemon's credentials is in its
// environment.
func newExec(t Target) (Send, error) {
	if len(t.Command) == 0 || !filepath.IsAbs(t.Command[0]) {
		return nil, errors.New("command must be a list that begins with the program's absolute path")
	}
	return func(ctx context.Context, m Message) (time.Duration, error) {
		input, err := json.Marshal(m)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", err, ErrRefused)
		}
		bounded, cancel := context.WithTimeout(ctx, t.Timeout)
		defer cancel()
		return 0, run(bounded, t.Command, append(input, '\n'))
	}, nil
}

// run runs a program to its end, or to ctx's, and then kills what is left of its
// process group. It succeeds where the program exits with 0.
func run(ctx context.Context, command []string, input []byte) error {
	if !commandsRun {
		return fmt.Errorf("run a command: %w: it needs Linux", errors.ErrUnsupported)
	}
	said := &tail{limit: 4096}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), said, said
	cmd.Dir, cmd.Env = "/", environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // what it left behind may keep the pipes open
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Without reaping it: until Wait, its number is nobody else's.
		awaitExit(cmd.Process.Pid)
	}()
	late := false
	select {
	case <-ended:
	case <-ctx.Done():
		late = true
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-ended
	err := cmd.Wait()
	switch {
	case late && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("the command did not end in time and was killed")
	case late:
		return ctx.Err()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("the command: %w%s", err, said)
	}
	return nil
}

// environment is what a program may know of the daemon's.
func environment() (kept []string) {
	for _, name := range []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"} {
		if value, set := os.LookupEnv(name); set {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}

// tail keeps the first of what a program says.
type tail struct {
	limit int
	text  []byte
}

// Write implements io.Writer. It never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p[:min(len(p), t.limit-len(t.text))]...)
	return len(p), nil
}

// String returns the last line, for an error.
func (t *tail) String() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return ": " + atMost(200, last)
	}
	return ""
}
