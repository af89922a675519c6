package capture

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

const envScript = "SQLWATCH_TEST_SCRIPT"

// TestScript is not a test: TestKillAtSyscall runs it under strace. It does everything that a
// capture does once.
func TestScript(t *testing.T) {
	dir := os.Getenv(envScript)
	if dir == "" {
		t.Skip("runs only under TestKillAtSyscall")
	}
	if err := captureScript(dir); err != nil {
		t.Fatal(err)
	}
}

func captureScript(dir string) error {
	ctx := context.Background()
	files, err := dbfile.Open(filepath.Join(dir, "app.db"))
	if err != nil {
		return err
	}
	c := New(Options{Name: "app", Files: files, StateDir: filepath.Join(dir, "state"), RestartAt: 1})
	if err := c.Open(ctx); err != nil {
		return err
	}
	for range 3 {
		if _, err := c.Step(ctx, true); err != nil {
			return err
		}
	}
	if _, err := c.Checkpoint(ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
		return err
	}
	r, err := c.OpenSnapshot(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(r.WriteLTX(ctx, io.Discard, ""), r.Close()); err != nil {
		return err
	}
	release, err := strconv.ParseUint(os.Getenv(envRelease), 10, 64)
	if err != nil {
		return err
	}
	return errors.Join(c.Spool().Release(ltx.TXID(release)), c.Close(), files.Close())
}

// TestKillAtSyscall kills a capture at its Nth system call of each kind that changes a file, for N
// = 1, 2, … until the capture runs to its end. With SQLWATCH_TEST_KILL_ROUNDS set every N is tried,
// otherwise only some.
func TestKillAtSyscall(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	t.Parallel()
	// strace counts calls per thread, and Go distributes its calls over threads arbitrarily: that a
	// run was not killed does not prove that N was beyond the last call.
	stride, through := 9, 2
	if os.Getenv(envRounds) != "" {
		stride, through = 1, 20
	}
	for _, class := range []string{"fsync,fdatasync", "renameat,renameat2,rename", "unlink,unlinkat", "pwrite64",
		"ftruncate", "write", "fcntl"} {
		t.Run("P1 "+class, func(t *testing.T) {
			t.Parallel()
			killAtEach(t, class, stride, through)
		})
	}
}

func killAtEach(t *testing.T, class string, stride, through int) {
	s := newScene(t)
	s.ctx = context.Background()
	a := startApp(t, s.path)
	a.do("schema()")
	kills, survived := 0, 0
	for n := 1; survived < through && n < 400; n += stride {
		a.do("commit(10, 3)")
		if n%4 == 3 { // so that continuity is lost
			a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchall()`)
			a.do("commit(2)")
		}
		cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+class, "-e",
			"inject="+class+":signal=KILL:when="+strconv.Itoa(n),
			os.Args[0], "-test.run=^TestScript$")
		cmd.Env = append(os.Environ(), envScript+"="+filepath.Dir(s.path),
			envRelease+"="+strconv.FormatUint(uint64(s.copies.last), 10))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			survived++
		case errors.As(err, &exit) && exit.ExitCode() == 1:
			t.Fatalf("%s %d: capture failed: %s", class, n, out)
		default:
			kills++
		}
		spooled, _, err := spool.Open(s.options.StateDir)
		if err != nil {
			t.Fatalf("%s %d: %v", class, n, err)
		}
		if last := spooled.Last(); last < s.copies.last {
			t.Fatalf("%s %d: position went back from %s to %s", class, n, s.copies.last, last)
		}
		s.copies.apply(spooled.List())
	}
	s.open()
	s.checkEqual()
	t.Logf("%s: %d kills", class, kills)
	if kills == 0 {
		t.Error("nothing was killed")
	}
}
