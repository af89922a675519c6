// Package testapp runs applications beside a test: Python programs whose
// sqlite3 is an unmodified SQLite in another process, as in life. Only tests
// import it.
package testapp

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Process is a running program. A test speaks with it in lines.
type Process struct {
	PID int

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start runs a Python program with its arguments; its standard error is the
// test's. At the test's end it is killed.
func Start(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	// -S: no site packages, which take longer to find than the program runs.
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

// python prefers the system's interpreter to what a version manager puts
// before it in PATH: a script that takes a second to find it.
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

// CloseInput ends the program's standard input: most programs then end in
// peace, and SQLite's last close takes -wal and -shm away.
func (p *Process) CloseInput() error { return p.in.Close() }

// Kill ends the program as a crash does, and returns when it is gone. Its
// input stays open until then: a program that reads the end of it may be quick
// enough to end cleanly. Kill may be called again.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	_ = p.cmd.Wait()         // which closes the pipes
}
