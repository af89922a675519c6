// Package again starts this program again, in a process of its own that may come to harm.
//
// The kernel keeps a process for as long as one of its threads waits for a disk that does not
// answer: it neither ends nor can be killed. So a command that looks at disks does that in a
// process that says with which code it would end; the one that waits for it need not stay.
package again

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// marker is the variable that tells such a process so: it holds its parent's number.
const marker = "SQLWATCH_AGAIN"

// Descriptors of such a process, beside the usual three.
const (
	codeFD  = 3 // it writes its exit code there, one byte
	aliveFD = 4 // it ends when that does
)

// patience is how long the process that was told to end has to do so.
const patience = 5 * time.Second

// moment is how long a process may take that only has to end.
const moment = time.Second

// entered says that this program can be started again.
var entered atomic.Bool

// Enter is what a program begins with whose commands are to run in processes of their own. It
// returns what the program ends with. In such a process that says the code to who waits, and
// closes standard input, output and error before: nobody must wait for the end of the process.
func Enter() (exit func(code int)) {
	if os.Getenv(lookMarker) == strconv.Itoa(os.Getppid()) {
		look()
	}
	parent := os.Getenv(marker)
	_ = os.Unsetenv(marker)
	_ = os.Unsetenv(lookMarker)
	if parent != strconv.Itoa(os.Getppid()) {
		entered.Store(true)
		return os.Exit
	}
	for _, fd := range []int{codeFD, aliveFD} {
		syscall.CloseOnExec(fd)
	}
	alive, code := os.NewFile(aliveFD, "alive"), os.NewFile(codeFD, "code")
	go func() {
		_, _ = io.Copy(io.Discard, alive) // whatever comes of it, nobody waits any more
		os.Exit(1)
	}()
	return func(n int) {
		for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
			_ = f.Close()
		}
		_, _ = code.Write([]byte{byte(n)})
		os.Exit(n)
	}
}

// Run runs the command line of this process in one of its own, and returns its exit code. ran
// is false where the caller is to do the work itself: it is that process already, the
// program has not called Enter, as another package's test, or none can be started, as under
// qemu or a limit. A disk that does not answer may keep the caller then.
func Run() (code int, ran bool, err error) {
	if !entered.Load() {
		return 0, false, nil
	}
	code, started, err := run()
	if !started {
		return 0, false, nil
	}
	if err != nil {
		err = fmt.Errorf("run in a process of its own: %w", err)
	}
	return code, true, err
}

func run() (exit int, started bool, err error) {
	program, err := Self()
	if err != nil {
		return 0, false, err
	}
	said, code, err := os.Pipe()
	if err != nil {
		return 0, false, err
	}
	defer said.Close()
	alive, ours, err := os.Pipe()
	if err != nil {
		code.Close()
		return 0, false, err
	}
	defer ours.Close()
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{code, alive}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	err = cmd.Start()
	code.Close()
	alive.Close()
	if err != nil {
		return 0, false, err
	}
	exit, err = await(cmd, said, signals)
	return exit, true, err
}

// await returns the exit code that the process says, and gives the process up.
func await(cmd *exec.Cmd, said *os.File, signals <-chan os.Signal) (int, error) {
	type answer struct {
		code [1]byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		_, a.err = io.ReadFull(said, a.code[:])
		answers <- a
	}()
	var late <-chan time.Time
	ends := 0
	for {
		select {
		case a := <-answers:
			if a.err == nil {
				leave(cmd)
				return int(a.code[0]), nil
			}
			return ended(cmd) // without a word: it was killed, or printed its help
		case s := <-signals:
			_ = cmd.Process.Signal(s) // from a terminal it came to both
			if number, ok := s.(syscall.Signal); ok && late == nil {
				ends, late = 128+int(number), time.After(patience)
			}
		case <-late:
			_ = cmd.Process.Kill()
			return ends, nil
		}
	}
}

// leave ends with a process that has said its code. It has nothing left to do, and is waited for
// for a moment, so that what it took is accounted for; one that does not end is left behind.
func leave(cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(moment):
		_ = cmd.Process.Kill()
	}
}

// ended returns how a process ended that has closed all its descriptors.
func ended(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code := 128 + int(status.Signal())
		if status.Signal() == syscall.SIGPIPE { // who read its output has seen enough
			return code, nil
		}
		return code, fmt.Errorf("it was ended: %s", cmd.ProcessState)
	}
	return cmd.ProcessState.ExitCode(), nil
}
