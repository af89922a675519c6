package again_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/again"
)

// TestMain lets this test binary be the program that runs itself again: with AGAIN_TEST it does
// what that says, in a child process.
func TestMain(m *testing.M) {
	exit := again.Enter()
	what, set := os.LookupEnv("AGAIN_TEST")
	if !set {
		os.Exit(m.Run())
	}
	if os.Getenv("AGAIN_LIMITED") != "" {
		few := syscall.Rlimit{Cur: 4, Max: 4}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			panic(err)
		}
	}
	if what == "silent" {
		fmt.Println(again.Silent(os.Args[1:], time.Second))
		os.Exit(0)
	}
	if code, ran, err := again.Run(); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	told := make(chan os.Signal, 1)
	if what == "is told" {
		signal.Notify(told, syscall.SIGTERM)
	} else {
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Println(os.Getpid(), strings.Join(os.Args[1:], " "))
	switch what {
	case "says":
		_, _ = io.Copy(os.Stdout, os.Stdin)
		exit(7)
	case "takes":
		for b := make([]byte, taken); len(b) > 0; b = b[4096:] {
			b[0] = 1
		}
		exit(7)
	case "ends":
		os.Exit(9) // without output, as after --help
	case "is told":
		<-told
		exit(5)
	case "is deaf":
		time.Sleep(time.Hour)
	}
}

const taken = 256 << 20 // bytes

func program(what string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "AGAIN_TEST="+what)
	return cmd
}

// The child has the same arguments, input and output, and the program exits with the child's
// code.
func TestCode(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]int{"says": 7, "ends": 9} {
		cmd := program(what, "one", "two three")
		cmd.Stdin = strings.NewReader("input")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: %v, want code %d: %s", what, err, want, out)
		}
		if first, rest, _ := strings.Cut(string(out), "\n"); !strings.HasSuffix(first, " one two three") ||
			what == "says" && rest != "input" {
			t.Errorf("%s: %q", what, out)
		}
	}
}

// If no child can be started, the program does the work itself, and reports no disk as silent.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	cmd := program("says", "one")
	cmd.Env = append(cmd.Env, "AGAIN_LIMITED=1")
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprint(cmd.Process.Pid, " one\n"); string(out) != want || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %v; want %q and code 7", out, err, want)
	}
	silent := program("silent", "/")
	silent.Env = append(silent.Env, "AGAIN_LIMITED=1")
	if out, err := silent.CombinedOutput(); err != nil || string(out) != "[] <nil>\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// The resources that the child used are accounted to the program.
func TestAccounted(t *testing.T) {
	t.Parallel()
	cmd := program("takes")
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("%v: %s", err, out)
	}
	if got := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10; got < taken {
		t.Errorf("the program accounts for %d bytes of memory, the child took %d", got, taken)
	}
}

// begun starts the program and returns it with the child's pid.
func begun(t *testing.T, what string) (cmd *exec.Cmd, pid int) {
	t.Helper()
	cmd = program(what)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, scanErr := fmt.Sscan(line, &pid); err != nil || scanErr != nil || pid == cmd.Process.Pid {
		t.Fatalf("%q, %v %v: %s", line, err, scanErr, complaint.String())
	}
	return cmd, pid
}

// A signal is passed on to the child; a child that ignores it is given up.
func TestSignals(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]int{"is told": 5, "is deaf": 128 + int(syscall.SIGTERM)} {
		cmd, pid := begun(t, what)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, want code %d", what, err, want)
		}
		gone(t, pid)
	}
}

// The child does not outlive the program that waits for it.
func TestOrphan(t *testing.T) {
	t.Parallel()
	cmd, pid := begun(t, "is deaf")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone(t, pid)
}

// gone waits until a process has ended, whether or not it was reaped.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d goes on: %s", pid, stat)
		}
	}
}
