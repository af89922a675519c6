// Package e2e runs the built program beside real parts: an unmodified writer in another process,
// Debian's Prometheus, promtool and Alertmanager, an S3 server, a browser. Of sqlwatch it imports
// only packages made for tests: s3test and testbrowser.
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binary string // sqlwatch, built with the race detector

func TestMain(m *testing.M) {
	if from, at := os.Getenv(envServe), os.Getenv(envServeAt); from != "" {
		os.Exit(serveDisk(from, at))
	}
	dir, err := os.MkdirTemp("", "sqlwatch-e2e")
	if err == nil {
		binary, err = buildProgram(dir, "sqlwatch", "../..", "./cmd/sqlwatch", "-race")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// withoutRace builds sqlwatch without the race detector, as users have it.
var withoutRace = sync.OnceValues(func() (string, error) {
	return buildProgram(filepath.Dir(binary), "sqlwatch-without-race", "../..", "./cmd/sqlwatch")
})

// buildProgram builds pkg of the module in moduleDir and returns the program's path.
func buildProgram(dir, name, moduleDir, pkg string, flags ...string) (string, error) {
	out := filepath.Join(dir, name)
	args := append([]string{"build", "-C", moduleDir, "-o", out}, flags...)
	if text, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return out, nil
}

// process is a program that a test started and will end.
type process struct {
	cmd *exec.Cmd
	log *os.File
}

// start runs a program until the test ends; its output goes to a file that is shown if the
// test fails.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "output.log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(name, args...), log: log}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("output of %s:\n%s", filepath.Base(name), tail(text, 6000))
		}
		log.Close()
	})
	return p
}

func (p *process) end(sig syscall.Signal) {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	kill.Stop()
}

func (p *process) output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// output runs a program to its end and returns what it printed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// freePort returns a TCP port of the loopback interface that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// get fetches a page; an error or a status other than 200 is returned as an error.
func get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, tail(body, 500))
	}
	return string(body), err
}

// patience is how long a busy machine may need for what takes a moment on an idle one. A test
// that passes does not wait for it.
const patience = 2 * time.Minute

// eventually polls until check returns nil; it waits for patience at least.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	limit = max(limit, patience)
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// write puts text into a new file of the test's directory.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// query asks a Prometheus for an instant vector and returns its values by the given label.
func query(prometheus, expr string, label string) (map[string]float64, error) {
	text, err := get(prometheus + "/api/v1/query?query=" + urlEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, r := range answer.Data.Result {
		var v float64
		if _, err := fmt.Sscan(r.Value[1].(string), &v); err != nil {
			return nil, err
		}
		values[r.Metric[label]] = v
	}
	return values, nil
}
