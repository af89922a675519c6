// Package s3test gives tests a real S3 server on loopback (Start), a server in memory that behaves
// like one of several providers (NewFake), and a proxy that breaks requests as networks and
// providers do (NewProxy).
package s3test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The keys, region and bucket of every Server.
const (
	AccessKey = "test-key-id"
	SecretKey = "test-secret-key"
	Region    = "us-east-1"
	Bucket    = "replicas" // exists in every Server
)

// Server is a running versitygw that keeps its objects in a directory.
type Server struct {
	URL     string
	Dir     string // the backend: each directory in it is a bucket
	process *os.Process
}

// Start runs versitygw until the test ends. It is built from the module in tools/; if that fails,
// so does the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	path := build(tb)
	dir := tb.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, Bucket), 0o755); err != nil {
		tb.Fatal(err)
	}
	address := freeAddress(tb)
	cmd := exec.Command(path, "--port", address, "--access", AccessKey, "--secret", SecretKey, "--region", Region,
		"--quiet", "--keep-alive", "posix", dir)
	output := &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start versitygw: %v", err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if tb.Failed() {
			tb.Logf("versitygw said: %s", output.text)
		}
	})
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
			return &Server{URL: "http://" + address, Dir: dir, process: cmd.Process}
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("versitygw does not listen on %s: %v: %s", address, err, output.text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop suspends the server, which then accepts connections and never answers. Continue resumes it.
func (s *Server) Stop() error { return s.process.Signal(syscall.SIGSTOP) }

// Continue resumes the server after Stop.
func (s *Server) Continue() error { return s.process.Signal(syscall.SIGCONT) }

// build builds the server and returns its path in Go's cache of tools.
func build(tb testing.TB) string {
	tb.Helper()
	tools := toolsModule(tb)
	cmd := exec.Command("go", "tool", "-n", "versitygw")
	cmd.Dir = tools
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("build versitygw in %s: %v", tools, err)
	}
	return strings.TrimSpace(string(out))
}

// toolsModule returns the directory of the module in tools/, for a test in any directory of the
// repository.
func toolsModule(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		tools := filepath.Join(dir, "tools")
		if _, err := os.Stat(filepath.Join(tools, "go.mod")); err == nil {
			return tools
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("there is no tools/go.mod above the test's directory")
		}
	}
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// tail keeps the end of the server's output, for the log of a failed test.
type tail struct{ text string }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.text += string(p)
	if len(t.text) > 4096 {
		t.text = t.text[len(t.text)-4096:]
	}
	return len(p), nil
}

var _ io.Writer = (*tail)(nil)

// URLFor returns the replica URL of a prefix, as the command line accepts it.
func (s *Server) URLFor(prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=%s&path_style=true", Bucket, prefix, s.URL, Region)
}
