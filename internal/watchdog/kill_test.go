package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

const (
	envAct       = "SQLWATCH_TEST_ACT"   // where the child acts
	envEveryKill = "SQLWATCH_TEST_KILLS" // set: at every system call, not at some
)

// TestActingChild is the process that is killed: it acts once by each of two policies,
// writes that down, and ends after some more turns.
func TestActingChild(t *testing.T) {
	dir := os.Getenv(envAct)
	if dir == "" {
		t.Skip("it is started by TestKilledAtEachSyscall_P17")
	}
	note := func(name string) error {
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = file.WriteString("done\n")
		return errors.Join(err, file.Sync(), file.Close())
	}
	s := &scene{walBytes: 8 << 20}
	target := s.target("app")
	open := target.Open
	target.Open = func(ctx context.Context) (Parts, error) {
		parts, err := open(ctx)
		parts.Actions.Notify = func(context.Context, Notice) error { return note("tell") }
		inner := parts.Checkpointer
		parts.Checkpointer = checkpointerFunc(func(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result,
			error) {
			if mode == sqlite.Truncate {
				if err := note("shrink"); err != nil {
					return sqlite.Result{}, err
				}
			}
			r, err := inner.Checkpoint(ctx, mode, b)
			s.set(func(s *scene) { s.walBytes = 8 << 20 }) // there is always more to do
			return r, err
		})
		return parts, err
	}
	w := run(t, Options{Targets: []Target{target}, Policies: policies(t, shrink+tells), Interval: 5 * time.Millisecond,
		StateFile: filepath.Join(dir, "state.json")})
	eventually(t, "thirty turns", func() bool { return get(s, func(s *scene) int { return s.samples }) > 30 })
	d, err := w.Database("app")
	if err != nil {
		t.Fatal(err)
	}
	rests := map[string]float64{}
	for _, p := range d.Decision.Policies {
		rests[p.Policy] = time.Until(p.Earliest).Seconds()
	}
	data, err := json.Marshal(rests)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rests"), data, 0o600)
	}
	if err := errors.Join(err, w.end()); err != nil {
		t.Fatal(err)
	}
}

// The process is killed at system calls around its actions and the saving of their
// state. Wherever that is, no action is done twice, and none that was done has lost
// its cooldown; but a notice whose end was not saved is sent again after half a minute.
func TestKilledAtEachSyscall_P17(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace")
	}
	t.Parallel()
	// strace counts per thread: one run that got through does not prove that N was
	// beyond the last.
	stride, through := 5, 3
	if os.Getenv(envEveryKill) != "" {
		stride, through = 1, 15
	}
	for _, class := range []string{"fsync", "renameat,renameat2,rename", "openat", "write", "fchmod", "mkdirat,mkdir",
		"unlink,unlinkat", "close"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			kills, survived := 0, 0
			for n := 1; survived < through && n < 200; n += stride {
				if killedAt(t, class, n) {
					kills++
				} else {
					survived++
				}
			}
			t.Logf("%d kills", kills)
		})
	}
}

// killedAt has a child killed at the n-th of its calls and judges what is left, and
// reports whether it came to that.
func killedAt(t *testing.T, class string, n int) (killed bool) {
	t.Helper()
	dir := t.TempDir()
	child := []string{os.Args[0], "-test.run=^TestActingChild$"}
	start := func(args ...string) error {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), envAct+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil && strings.Contains(string(out), "FAIL") {
			t.Fatalf("%s %d: %s", class, n, out)
		}
		return err
	}
	killed = start(append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + class, "-e",
		"inject=" + class + ":signal=KILL:when=" + strconv.Itoa(n)}, child...)...) != nil
	if err := start(child...); err != nil {
		t.Fatalf("%s %d: started again: %v", class, n, err)
	}
	var rests map[string]float64
	data, err := os.ReadFile(filepath.Join(dir, "rests"))
	if err == nil {
		err = json.Unmarshal(data, &rests)
	}
	if err != nil {
		t.Fatal(err)
	}
	for policy, least := range map[string]float64{"shrink": 50 * 60, "tell": 20} {
		text, err := os.ReadFile(filepath.Join(dir, policy))
		times := strings.Count(string(text), "done\n")
		if err != nil && !errors.Is(err, os.ErrNotExist) || times > 1 {
			t.Errorf("%s %d: %s was done %d times, %v", class, n, policy, times, err)
		}
		if times == 1 && rests[policy] < least {
			t.Errorf("%s %d: %s was done and rests for %.0f s only", class, n, policy, rests[policy])
		}
	}
	return killed
}
