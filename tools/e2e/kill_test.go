package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// envRounds is the environment variable that makes the fault tests complete: its value is the
// number of power cuts, and if it is set, restores meet a fault at every system call.
const envRounds = "SQLWATCH_TEST_KILL_ROUNDS"

// replicaOf creates a replica whose chain has several objects. It returns its URL and the
// restored database, which the system's SQLite has checked.
func replicaOf(t *testing.T) (url string, want []byte) {
	t.Helper()
	dir := t.TempDir()
	db, replica := filepath.Join(dir, "app.db"), filepath.Join(dir, "replica")
	d := startDaemon(t, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" {
  dir        = %q
  sync_every = "100ms"
}
`, db, replica))
	rows := runWriter(t, db, 2, 200).Rows
	output(t, binary, "sync", "--wait", "--config", d.config, "app")
	d.end(syscall.SIGTERM)

	url = "file://" + replica
	restored := filepath.Join(dir, "restored.db")
	output(t, binary, "restore", "-o", restored, url)
	if got := output(t, "sqlite3", "file:"+restored+"?immutable=1",
		"PRAGMA integrity_check; SELECT count(*) FROM t"); got != fmt.Sprintf("ok\n%d\n", rows) {
		t.Fatalf("the restored database says %q, the writer made %d rows", got, rows)
	}
	want, err := os.ReadFile(restored)
	if err != nil {
		t.Fatal(err)
	}
	return url, want
}

// A restore that is killed at any system call that changes a file leaves the target absent, old,
// or complete. What it leaves beside the target does not prevent the next restore, which removes
// it.
func TestRestoreKilledAtEverySyscall(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	// There are hundreds of starts, too many for the race detector.
	program, err := withoutRace()
	if err != nil {
		t.Fatal(err)
	}
	url, want := replicaOf(t)
	old := filepath.Join(t.TempDir(), "old.db")
	output(t, "sqlite3", old, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES('old')")
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"pwrite64", "write", "fsync,fdatasync", "ftruncate,fallocate",
		"rename,renameat,renameat2", "unlink,unlinkat,linkat", "fchmod,fchmodat,flock", "openat"} {
		t.Run("R6_R7_"+class, func(t *testing.T) {
			t.Parallel()
			k := restoreKiller{program: program, class: class, url: url, want: want}
			k.enumerate(t)
			k.old = before
			k.enumerate(t)
			t.Logf("%d kills, %d ran through; target afterwards: %v", k.kills, k.through, k.left)
		})
	}
}

// restoreKiller kills restores at their N-th call of a class.
type restoreKiller struct {
	program, class, url string
	want, old           []byte // old: what is at the target before; nil: nothing

	kills, through int
	left           [3]int // how often the target was absent, old, complete
}

// enumerate counts N up until restores run to their end. strace counts per thread, and Go
// distributes its calls over threads as it likes: that one restore ran to its end does not prove
// that N was beyond the last call.
func (k *restoreKiller) enumerate(t *testing.T) {
	stride, through, limit := 3, 1, 12
	if os.Getenv(envRounds) != "" {
		stride, through, limit = 1, 6, 2000
	}
	dir := t.TempDir()
	survived := 0
	for n := 1; survived < through && n < limit; n += stride {
		if k.round(t, dir, n) {
			survived = 0
		} else {
			survived++
		}
	}
	k.through += survived
}

func (k *restoreKiller) round(t *testing.T, dir string, n int) (killed bool) {
	t.Helper()
	target := filepath.Join(dir, "target.db")
	args := []string{"restore", "-o", target}
	if k.old != nil {
		args = append(args, "--force")
		if err := os.WriteFile(target, k.old, 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "target.db-journal", "") // a leftover of the old database, which must be removed
	}
	args = append(args, k.url)
	err := exec.Command("strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + k.class,
		"-e", "inject=" + k.class + ":signal=KILL:when=" + strconv.Itoa(n), k.program}, args...)...).Run()
	var exit *exec.ExitError
	// The work is done in a child process. If that ends by a signal, the exit code is 128 and the
	// signal's number.
	if errors.As(err, &exit) && (exit.Sys().(syscall.WaitStatus).Signaled() ||
		exit.ExitCode() == 128+int(syscall.SIGKILL)) {
		killed = true
		k.kills++
	} else if err != nil {
		t.Fatalf("%s %d: restore neither ended well nor was killed: %v", k.class, n, err)
	}

	got, err := os.ReadFile(target)
	switch {
	case errors.Is(err, os.ErrNotExist) && k.old == nil && killed:
		k.left[0]++
	case err == nil && k.old != nil && bytes.Equal(got, k.old) && killed:
		k.left[1]++
	case err == nil && bytes.Equal(got, k.want):
		k.left[2]++
	default:
		t.Errorf("%s %d: the target is %d bytes, neither old nor complete (%v)", k.class, n, len(got), err)
	}

	wantTidied(t, fmt.Sprintf("%s %d", k.class, n), k.program, k.url, target, k.want)
	return killed
}

// wantTidied checks that the next restore succeeds and leaves nothing beside the target; then it
// empties the directory.
func wantTidied(t *testing.T, what, program, url, target string, want []byte) {
	t.Helper()
	output(t, program, "restore", "--force", "-o", target, url)
	if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: the restore after it made %d bytes, not the database (%v)", what, len(got), err)
	}
	dir := filepath.Dir(target)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		// What --force replaced is kept under another name, and a note says whose history the new
		// file is.
		kept := e.Name() == "target.db-sqlwatch" || strings.HasPrefix(e.Name(), "target.db.replaced-")
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), ".sqlwatch-tmp-") && info.Size() < 4096 {
			kept = true // a note that was being written, of a hundred bytes: never the database
		}
		if e.Name() != "target.db" && !kept {
			t.Errorf("%s: %s was left behind by the restore after it", what, e.Name())
		}
		must(t, os.Remove(filepath.Join(dir, e.Name())))
	}
}

// If the disk refuses a system call of a restore, because it is full or broken, the restore
// leaves the target as it was and says why; or it did not need that call, and the target is
// complete. The next restore succeeds either way, and cleans up.
func TestRestoreOnABrokenDisk(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	program, err := withoutRace()
	if err != nil {
		t.Fatal(err)
	}
	url, want := replicaOf(t)
	old := filepath.Join(t.TempDir(), "old.db")
	output(t, "sqlite3", old, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES('old')")
	before, err := os.ReadFile(old)
	must(t, err)
	for _, class := range []string{"pwrite64", "fsync,fdatasync", "ftruncate,fallocate", "rename,renameat,renameat2",
		"linkat", "fchmod,fchmodat"} {
		for errno, says := range map[string]string{"ENOSPC": "no space left", "EIO": "input/output error",
			"EDQUOT": "quota exceeded"} {
			t.Run("R6_"+class+"/"+errno, func(t *testing.T) {
				t.Parallel()
				b := brokenDisk{program: program, class: class, errno: errno, says: says, url: url, want: want}
				b.enumerate(t)
				b.old = before
				b.enumerate(t)
				t.Logf("%d refused, %d went through", b.refused, b.through)
				if b.refused == 0 {
					t.Error("nothing was ever refused")
				}
			})
		}
	}
}

// brokenDisk makes restores meet an error at their N-th call of a class.
type brokenDisk struct {
	program, class, errno, says, url string
	want, old                        []byte // old: what is at the target before; nil: nothing

	refused, through int
}

// enumerate counts N up until restores run to their end, as restoreKiller does.
func (b *brokenDisk) enumerate(t *testing.T) {
	stride, limit := 2, 8
	if os.Getenv(envRounds) != "" {
		stride, limit = 1, 2000
	}
	dir := t.TempDir()
	for n, quiet := 1, 0; quiet < 2 && n < limit; n += stride {
		if b.round(t, dir, n) {
			quiet = 0
		} else {
			quiet++
		}
	}
}

func (b *brokenDisk) round(t *testing.T, dir string, n int) (refused bool) {
	t.Helper()
	target := filepath.Join(dir, "target.db")
	args := []string{"restore", "-o", target}
	if b.old != nil {
		args = append(args, "--force")
		must(t, os.WriteFile(target, b.old, 0o600))
	}
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + b.class,
		"-e", "inject=" + b.class + ":error=" + b.errno + ":when=" + strconv.Itoa(n), b.program},
		append(args, b.url)...)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	got, rerr := os.ReadFile(target)
	switch {
	case err == nil && rerr == nil && bytes.Equal(got, b.want):
		b.through++
	case !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signaled():
		t.Errorf("%s %d: %v: %s", b.class, n, err, text)
	case rerr == nil && bytes.Equal(got, b.want) && strings.Contains(string(text), "sync directory"):
		b.through++ // complete and in its place, but the disk does not confirm that it survives a power cut
	case b.old == nil && !errors.Is(rerr, os.ErrNotExist) || b.old != nil && !bytes.Equal(got, b.old):
		t.Errorf("%s %d: the target is %d bytes, not what it was (%v); it says %s", b.class, n, len(got), rerr, text)
	default:
		refused = true
		b.refused++
		if !strings.Contains(string(text), b.says) {
			t.Errorf("%s %d: it says %s, want: %s", b.class, n, text, b.says)
		}
	}
	wantTidied(t, fmt.Sprintf("%s %s %d", b.class, b.errno, n), b.program, b.url, target, b.want)
	return refused
}

// A second daemon on the same state directory names the first and exits. A daemon that was killed
// does not block the next one.
func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	runWriter(t, db, 0.2, 50)
	d := startDaemon(t, fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", db))
	t.Run("P14_C1", func(t *testing.T) {
		text, err := exec.Command(binary, "run", "--config", d.config).CombinedOutput()
		if err == nil {
			t.Fatal("a second daemon ran on the same state directory")
		}
		if !strings.Contains(string(text), strconv.Itoa(d.cmd.Process.Pid)) {
			t.Errorf("the refusal does not name the process in the way (%d):\n%s", d.cmd.Process.Pid, text)
		}
	})
	t.Run("P2", func(t *testing.T) {
		d.end(syscall.SIGKILL)
		again := start(t, binary, "run", "--config", d.config)
		eventually(t, 20*time.Second, "ready after a kill", func() error { _, err := get(d.url + "/-/ready"); return err })
		again.end(syscall.SIGTERM)
		if code := again.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d after SIGTERM, want 0", code)
		}
	})
}

// killedApplication executes the SQL that it reads, line by line, and prints the results.
const killedApplication = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=0")
for line in sys.stdin:
    print(db.execute(line).fetchall(), flush=True)
`

// lineApplication is an application in a process of its own that executes the SQL it is given.
type lineApplication struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Writer
	stdout *bufio.Reader
}

func startLineApplication(t *testing.T, db string) *lineApplication {
	t.Helper()
	a := &lineApplication{t: t, cmd: exec.Command("python3", "-c", killedApplication, db)}
	stdin, err1 := a.cmd.StdinPipe()
	stdout, err2 := a.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, a.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	a.stdin, a.stdout = stdin, bufio.NewReader(stdout)
	t.Cleanup(a.kill)
	return a
}

func (a *lineApplication) do(statement string) string {
	a.t.Helper()
	if _, err := io.WriteString(a.stdin, statement+"\n"); err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.stdout.ReadString('\n')
	if err != nil {
		a.t.Fatalf("%s: %v", statement, err)
	}
	return answer
}

func (a *lineApplication) kill() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	}
}

// The wal-index has a counter of commits, from which sqlwatch learns that there were some. If all
// processes that use the wal-index are killed, the next one creates it again in the same file,
// and it counts from 0. An application that then makes as many commits as sqlwatch had counted,
// resets the WAL and commits once more leaves a counter and a WAL that look as if there had been
// one commit since. The replica must still follow.
func TestCounterCountsAgain(t *testing.T) {
	for commits := 2; commits <= 4; commits++ {
		t.Run(fmt.Sprintf("P2_D27_I6_%d", commits), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			db, replica := filepath.Join(dir, "app.db"), filepath.Join(dir, "replica")
			app := startLineApplication(t, db)
			app.do("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
			app.do("INSERT INTO t VALUES(1, hex(randomblob(1000))), (2, hex(randomblob(1000))), (3, hex(randomblob(1000)))")
			d := startDaemon(t, fmt.Sprintf(`
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" {
  dir        = %q
  sync_every = "100ms"
}
`, db, replica))
			waitForSync(t, d.config)
			app.do("UPDATE t SET body = hex(randomblob(1000)) WHERE id = 2") // the counter is at 3
			waitForSync(t, d.config)
			d.end(syscall.SIGKILL)
			app.kill()

			app = startLineApplication(t, db)
			for range commits {
				app.do("UPDATE t SET body = hex(randomblob(1000)) WHERE id = 1")
			}
			if answer := app.do("PRAGMA wal_checkpoint(TRUNCATE)"); answer != "[(0, 0, 0)]\n" {
				t.Fatalf("checkpoint: %s", answer)
			}
			app.do("UPDATE t SET body = hex(randomblob(1000)) WHERE id = 3")

			start(t, binary, "run", "--config", d.config)
			waitForSync(t, d.config)
			restored := filepath.Join(dir, "restored.db")
			output(t, binary, "restore", "-o", restored, "file://"+replica)
			const dump = "SELECT id, body FROM t ORDER BY id"
			if got, want := output(t, "sqlite3", "file:"+restored+"?immutable=1", dump), output(t, "sqlite3", db,
				dump); got != want {
				t.Errorf("restored, with exit 0:\n%.100s…\nthe application has:\n%.100s…", got, want)
			}
		})
	}
}

// waitForSync returns when everything committed before is acknowledged.
func waitForSync(t *testing.T, config string) {
	t.Helper()
	eventually(t, 30*time.Second, "sync", func() error {
		text, err := exec.Command(binary, "sync", "--wait", "--config", config, "app").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		return nil
	})
}
