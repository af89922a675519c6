// Package supervise runs another program beside this one, as the entry point of a
// container does: it hands signals on, ends with that program's exit code, and as
// process 1 reaps what others leave behind.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"unicode"
)

// forwarded are the signals that the program gets in our place. SIGHUP is not among
// them: it is ours, and reads the configuration again.
var forwarded = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// ExitError says how the program ended.
type ExitError struct{ Code int }

// Error names the code.
func (e *ExitError) Error() string { return fmt.Sprintf("the program ended with exit code %d", e.Code) }

// Run starts args and waits for its end; signals sent to this process go to it. It
// returns nil for exit code 0, an *ExitError for any other (128 and the signal's
// number where a signal ended it), or the error of starting it. The program is not
// ended when ctx is: it gets SIGTERM, and decides for itself.
func Run(ctx context.Context, args []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	defer forward(signals, cmd.Process)()
	err := cmd.Wait()
	return result(cmd.ProcessState, err)
}

// forward hands signals to a process until the returned function is called. It never closes signals: they may
// still come.
func forward(signals <-chan os.Signal, to *os.Process) (stop func()) {
	ended := make(chan struct{})
	var handing sync.WaitGroup
	handing.Go(func() {
		for {
			select {
			case s := <-signals:
				to.Signal(s) // gone already: nothing to hand it to
			case <-ended:
				return
			}
		}
	})
	return func() { close(ended); handing.Wait() }
}

func result(state *os.ProcessState, err error) error {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &ExitError{Code: 128 + int(status.Signal())}
	}
	if code := state.ExitCode(); code != 0 {
		return &ExitError{Code: code}
	}
	return nil
}

// Init does the duties of process 1 for this program: it starts it again as a child
// with env in its environment, hands signals on, SIGHUP too, and reaps every process
// that comes to it, until that child has ended. It returns the child's exit code.
func Init(env string) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find the program itself: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append([]os.Signal{syscall.SIGHUP}, forwarded...)...)
	defer signal.Stop(signals)
	child, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env: append(os.Environ(), env), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", self, err)
	}
	defer forward(signals, child)()
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for processes: %w", err)
		case pid != child.Pid:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// Fields splits a command line at white space. Single and double quotes hold words
// together, and a backslash takes the next character as it is; nothing is expanded.
func Fields(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	started, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			started, escaped = true, true
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			started, quote = true, r
		case unicode.IsSpace(r):
			if started {
				words = append(words, word.String())
				word.Reset()
			}
			started = false
		default:
			started = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%q ends within a quotation", line)
	}
	if started {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	return words, nil
}
