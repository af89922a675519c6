package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// obedient is an application that evaluates the Python expressions it reads, line by line.
const obedient = `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=normal")
db.execute("pragma wal_autocheckpoint=0")
db.execute("create table if not exists t(v)")
def rows(n):
    db.execute("begin immediate")
    for _ in range(n): db.execute("insert into t values(randomblob(3500))")
    db.execute("commit")
    return db.execute("select count(*) from t").fetchone()[0]
print("ready", flush=True)
for line in sys.stdin: print(eval(line), flush=True)
`

// told is a running obedient application.
type told struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startTold(t *testing.T, database string) *told {
	t.Helper()
	a := &told{t: t, cmd: exec.Command("python3", "-c", obedient, database)}
	var err error
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.lines = bufio.NewScanner(out)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	a.answer()
	return a
}

// kill kills the application, which does not close its database.
func (a *told) kill() {
	if a.cmd.ProcessState == nil {
		a.cmd.Process.Kill()
		a.cmd.Wait()
	}
}

func (a *told) answer() string {
	a.t.Helper()
	if !a.lines.Scan() {
		a.t.Fatal("the application has ended")
	}
	return a.lines.Text()
}

func (a *told) do(line string) string {
	a.t.Helper()
	if _, err := io.WriteString(a.stdin, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
	return a.answer()
}

// quit closes the application's connection and ends it. If nobody else is connected, that is the
// last close.
func (a *told) quit() {
	a.t.Helper()
	a.do("db.close()")
	a.stdin.Close()
	if err := a.cmd.Wait(); err != nil {
		a.t.Fatal(err)
	}
}

// slow delays each such system call of a process on a file, until end is called.
func slow(t *testing.T, pid int, call, file string, each time.Duration) (end func()) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-p", strconv.Itoa(pid), "-P", file, "-e", "trace="+call, "-o", "/dev/null", "-e",
		"inject="+call+":delay_enter="+strconv.FormatInt(each.Microseconds(), 10))
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(end)
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if strings.Contains(lines.Text(), "attached") {
			go io.Copy(io.Discard, said)
			return end
		}
	}
	t.Fatal("strace has not attached")
	return nil
}

// checkpoint makes the daemon begin a checkpoint; the command that asks for it is killed when the
// test ends.
func (d *daemonProcess) checkpoint(t *testing.T, mode string) {
	t.Helper()
	cmd := exec.Command("sqlwatch", "--config", d.config, "checkpoint", "--mode="+mode, "app")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// holds reports whether the daemon has one of the database's locks.
func (d *daemonProcess) holds(t *testing.T, files *dbfile.Files, lock string) bool {
	t.Helper()
	holders, err := dbfile.LockHolders(files)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(holders, func(h dbfile.LockHolder) bool { return h.Lock == lock && h.PID == d.Process.Pid })
}

// The side files are unlinked while sqlwatch is inside a long checkpoint of its own: sqlwatch
// ends the checkpoint, and the application's close saves what is in its WAL, as without sqlwatch.
func TestNamesGoInACheckpoint_D15(t *testing.T) {
	t.Parallel()
	for name, replicated := range map[string]bool{"plain": false, "replicated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			database := filepath.Join(dir, "app.db")
			a := startTold(t, database)
			a.do("rows(1)")
			configuration := databaseBlock(database)
			if replicated {
				configuration = replicatedTo(database, filepath.Join(dir, "replica"))
			}
			d := startDaemon(t, dir, configuration)
			files, err := dbfile.Open(database)
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			if replicated {
				poll(t, "the replica has everything", captured(d))
			}
			slow(t, d.Process.Pid, "pwrite64", database, 100*time.Millisecond)
			a.do("rows(2500)") // a checkpoint of four minutes
			d.checkpoint(t, "passive")
			poll(t, "a checkpoint is under way", func() bool { return d.holds(t, files, "checkpoint") })
			if out, err := exec.Command("rm", database+"-wal", database+"-shm").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			poll(t, "sqlwatch does not keep the application's close from being the last",
				func() bool { return !d.holds(t, files, "shared") })
			want := a.do("rows(1)")
			a.quit()
			out, err := exec.Command("sqlite3", database, "select count(*) from t; pragma integrity_check").CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprintf("%s\nok", want) {
				t.Errorf("after the application's close: %q, %v; want %s rows", got, err, want)
			}
		})
	}
}

// sqlwatch is stopped (SIGSTOP) inside a checkpoint of its own. In a PASSIVE one that costs the
// application no more than a checkpoint of its own; in a TRUNCATE one its transactions wait.
func TestStoppedInACheckpoint_D83(t *testing.T) {
	t.Parallel()
	for mode, tc := range map[string]struct {
		call, side, lock string
		waits            bool
	}{
		"passive":  {"pwrite64", "", "checkpoint", false},
		"truncate": {"ftruncate", "-wal", "write", true},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			database := filepath.Join(dir, "app.db")
			a := startTold(t, database)
			a.do("rows(200)")
			d := startDaemon(t, dir, databaseBlock(database))
			files, err := dbfile.Open(database)
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			end := slow(t, d.Process.Pid, tc.call, database+tc.side, 15*time.Second)
			d.checkpoint(t, mode)
			poll(t, "inside a checkpoint", func() bool { return d.holds(t, files, tc.lock) })
			d.signal(t, syscall.SIGSTOP)
			answer := make(chan string, 1)
			go func() { answer <- a.do("rows(1)") }()
			got, waited := "", false
			select {
			case got = <-answer:
			case <-time.After(2 * time.Second): // SQLite gives up after twenty
				waited = true
			}
			if !d.holds(t, files, tc.lock) {
				t.Fatalf("it was stopped after its checkpoint: slow %s did not keep it there", tc.call)
			}
			if waited != tc.waits {
				t.Errorf("the application waits: %v, want %v", waited, tc.waits)
			}
			end()
			for got == "" {
				d.signal(t, syscall.SIGCONT) // strace may have held the SIGSTOP back until now
				select {
				case got = <-answer:
				case <-time.After(100 * time.Millisecond):
				}
			}
			if got != "201" {
				t.Errorf("%s rows, want 201", got)
			}
		})
	}
}
