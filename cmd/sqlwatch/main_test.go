package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sqlwatch/sqlwatch/internal/cage"
)

// TestMain lets this test binary act as the sqlwatch that scripts and tests execute.
func TestMain(m *testing.M) {
	cage.Enter()
	testscript.Main(m, map[string]func(){"sqlwatch": main})
}

// TestScripts runs testdata/*.txt: at least one success and one refusal for each
// command. Beyond testscript's own commands there are
//
//	exits CODE PROGRAM ARG...  runs a program and compares its exit code
//	succeeds PROGRAM ARG...    runs a program until it succeeds: beside other tests
//	                           a checkpoint may spend its stall budget
//	ready                      waits until the daemon at $ADDR is ready
//	get PATH [REGEXP]          fetches a path from the daemon at $ADDR, any status,
//	                           again until the answer matches
//	recorded                   writes ten days of recordings
//	app DATABASE               starts an application that keeps a WAL database open
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    scriptExits,
			"succeeds": scriptSucceeds,
			"ready":    scriptReady,
			"get":      scriptGet,
			"app":      scriptApp,
			"recorded": scriptRecorded,
		},
	})
}

func setupScript(env *testscript.Env) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	env.Setenv("ADDR", listener.Addr().String())
	env.Setenv("GORACE", os.Getenv("GORACE")) // scripts inherit only PATH from the environment
	for name, dir := range map[string]string{"RUNTIME_DIRECTORY": "run", "STATE_DIRECTORY": "state"} {
		env.Setenv(name, filepath.Join(env.WorkDir, dir))
	}
	// A file of the archive cannot know the name of the working directory: put it in.
	return filepath.Walk(env.WorkDir, func(path string, info os.FileInfo, err error) error {
		if err != nil || filepath.Ext(path) != ".hcl" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.NewReplacer("$WORK", env.WorkDir, "$ADDR",
			env.Getenv("ADDR")).Replace(string(text))), 0o600)
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptSucceeds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: succeeds PROGRAM ARG...")
	}
	var err error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("has not succeeded for 90 s: %v", err)
}

func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		response, err := http.Get("http://" + ts.Getenv("ADDR") + "/-/ready")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("the daemon is not ready after 90 s")
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	url := "http://" + ts.Getenv("ADDR") + args[0]
	if neg {
		if _, err := http.Get(url); err == nil {
			ts.Fatalf("answered, and should not")
		}
		return
	}
	if len(args) == 1 {
		args = append(args, "")
	}
	want := regexp.MustCompile(args[1])
	deadline := time.Now().Add(90 * time.Second)
	for ; ; <-time.After(20 * time.Millisecond) {
		response, err := http.Get(url)
		ts.Check(err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		ts.Check(err)
		if want.Match(body) || time.Now().After(deadline) {
			fmt.Fprintf(ts.Stdout(), "%s\n%s", response.Status, body)
			return
		}
	}
}

// keepOpen is an application with a WAL of ten commits that it does not checkpoint.
const keepOpen = `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE t (x)")
for i in range(9):
    db.execute("INSERT INTO t VALUES (?)", ("x" * 3000,))
print("open", flush=True)
while True:
    time.sleep(1)
`

func scriptApp(ts *testscript.TestScript, neg bool, args []string) {
	python, err := exec.LookPath("python3")
	ts.Check(err)
	cmd := exec.Command(python, "-c", keepOpen, ts.MkAbs(args[0]))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		ts.Fatalf("the application did not start: %v", err)
	}
}
