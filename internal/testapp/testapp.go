// Package testapp runs applications beside a test: Python programs whose sqlite3 is an unmodified
// SQLite in another process, as in practice. Only tests import it.
package testapp

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Process is a running program. A test communicates with it in lines.
type Process struct {
	PID int

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start runs a Python program with its arguments; its standard error is the test's. It is killed
// when the test ends.
func Start(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	// -S skips the site packages: finding them takes longer than the program runs.
	cmd := exec.Command(python(), append([]string{"-S", "-c", program}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("python3 is needed as an application beside the test: %v", err)
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(p.Kill)
	return p
}

// python returns the system's interpreter, if there is one, and not that of a version manager
// earlier in PATH: that is a script that takes a second to find the interpreter.
func python() string {
	const system = "/usr/bin/python3"
	if _, err := os.Stat(system); err == nil {
		return system
	}
	return "python3"
}

// Send writes one line to the program's standard input.
func (p *Process) Send(t testing.TB, line string) {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatalf("application: send %q: %v", line, err)
	}
}

// Line reads one line of the program's standard output.
func (p *Process) Line(t testing.TB) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("application: read a line: %v", err)
	}
	return strings.TrimSpace(line)
}

// CloseInput ends the program's standard input: most programs then end normally, and SQLite's
// last close removes -wal and -shm.
func (p *Process) CloseInput() error { return p.in.Close() }

// Kill kills the program, as a crash would, and returns when it has ended. Its input stays open
// until then, because a program that sees the input end might be quick enough to end cleanly.
// Kill may be called again.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	_ = p.cmd.Wait()         // which closes the pipes
}
