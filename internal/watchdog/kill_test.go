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
	"github.com/sqlwatch/sqlwatch/internal/watchdog/statefile"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	envAct       = "SQLWATCH_TEST_ACT"   // directory in which the child acts
	envEveryKill = "SQLWATCH_TEST_KILLS" // if set, kill at every system call, not at some
)

// acting holds the policies that act: a TRUNCATE that is reported and makes the tuned value take
// a step, a notice, and a notice whose end is still to be reported.
const acting = `
policy "shrink" {
  when     = wal.bytes > bytes("1MB")
  cooldown = "1h"
  notify   = [notifier.webhook.ops]
  checkpoint {
    stall_budget = "200ms"
    step "passive"  { repeat = 2 }
    step "truncate" { busy_timeout = "20ms" }
  }
  tune "stall" {
    goal = wal.bytes < bytes("1kB")
    mode = "apply"
  }
}
policy "ended" {
  when   = wal.bytes > bytes("1TB")
  notify = [notifier.webhook.ops]
}
` + tells

// before returns what an earlier run has left: four runs that justify a step, and a notice whose
// end was not reported.
func before(now time.Time) savedDatabase {
	return savedDatabase{Told: map[string]time.Time{"ended": now.Add(-time.Hour)},
		Policies: map[string]policy.PolicyState{"shrink": {Version: policy.StateVersion, Phase: policy.Inactive,
			Tunes: map[string]policy.TuneState{"stall": {Value: 0.2, Changed: now.Add(-2 * time.Hour), Runs: 4, Missed: 4}}}}}
}

// left is what a run of the child reports about itself at its end.
type left struct {
	Rests map[string]float64 // seconds, by policy
	Ended bool               // the TRUNCATE came to its end
	Stall float64            // the tuned value
}

// TestActingChild is the process that is killed: it acts once by each of its policies, records
// that, and ends after some more turns.
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
		parts.Actions.Notify = func(_ context.Context, n Notice) error {
			switch {
			case n.Resolved:
				return note("end of " + n.Action.Policy)
			case n.Action.Kind == policy.ActCheckpoint:
				return note("notice of " + n.Action.Policy)
			}
			return note(n.Action.Policy)
		}
		inner := parts.Checkpointer
		parts.Checkpointer = checkpointerFunc(func(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result,
			error) {
			if mode == sqlite.Truncate {
				if err := note("shrink"); err != nil {
					return sqlite.Result{}, err
				}
			}
			r, err := inner.Checkpoint(ctx, mode, b)
			s.set(func(s *scene) { s.walBytes = 8 << 20 }) // there is always more to truncate
			return r, err
		})
		return parts, err
	}
	w := run(t, Options{Targets: []Target{target}, Policies: policies(t, acting), Interval: 5 * time.Millisecond,
		StateFile: filepath.Join(dir, "state.json")})
	eventually(t, "thirty turns", func() bool { return get(s, func(s *scene) int { return s.samples }) > 30 })
	d, err := w.Database("app")
	if err != nil {
		t.Fatal(err)
	}
	now := left{Rests: map[string]float64{}, Stall: d.Decision.Tunes[0].Value}
	for _, p := range d.Decision.Policies {
		now.Rests[p.Policy] = time.Until(p.Earliest).Seconds()
		now.Ended = now.Ended || p.Policy == "shrink" && p.Refused == policy.GuardCooldown
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rests"), data, 0o600)
	}
	if err := errors.Join(err, w.end()); err != nil {
		t.Fatal(err)
	}
}

// The process is killed at system calls around its actions and the saving of their state.
// Wherever that is, no action is done twice, and no action that was done has lost its cooldown; a
// step of a tuned value that was seen stays, and is taken once. A notice whose result was not
// saved is sent again after half a minute; the report of an action's end, and the end of a
// notice, are sent at least once, perhaps twice.
func TestKilledAtEachSyscall_P17(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace")
	}
	t.Parallel()
	// strace counts per thread: that one run got through does not prove that N was beyond the last
	// call.
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

// killedAt kills a child at the n-th of its calls, checks what it left, and reports whether the
// child was killed.
func killedAt(t *testing.T, class string, n int) (killed bool) {
	t.Helper()
	dir := t.TempDir()
	if err := statefile.Write(filepath.Join(dir, "state.json"), map[string]savedDatabase{"app": before(time.Now())},
		1); err != nil {
		t.Fatal(err)
	}
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
	life := func() (l left, ok bool) {
		data, err := os.ReadFile(filepath.Join(dir, "rests"))
		if err == nil {
			err = json.Unmarshal(data, &l)
		}
		return l, err == nil
	}
	first, lived := life()
	if err := start(child...); err != nil {
		t.Fatalf("%s %d: started again: %v", class, n, err)
	}
	second, ok := life()
	if !ok {
		t.Fatalf("%s %d: the second life left nothing", class, n)
	}
	rests := second.Rests
	done := func(what string) int {
		text, err := os.ReadFile(filepath.Join(dir, what))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return strings.Count(string(text), "done\n")
	}
	if second.Stall != 0.2 && second.Stall != 0.15 || lived && first.Stall == 0.15 && second.Stall != 0.15 {
		t.Errorf("%s %d: the tuned value was %v, and is %v after another life", class, n, first.Stall, second.Stall)
	}
	if got := done("notice of shrink"); got > 2 || second.Ended && got == 0 {
		t.Errorf("%s %d: that the TRUNCATE ended was told %d times", class, n, got)
	}
	if got := done("end of ended"); got < 1 || got > 2 {
		t.Errorf("%s %d: the end of a notice was told %d times", class, n, got)
	}
	for policy, least := range map[string]float64{"shrink": 50 * 60, "tell": 20} {
		times := done(policy)
		if times > 1 {
			t.Errorf("%s %d: %s was done %d times", class, n, policy, times)
		}
		if times == 1 && rests[policy] < least {
			t.Errorf("%s %d: %s was done and rests for %.0f s only", class, n, policy, rests[policy])
		}
	}
	return killed
}
