package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	for line, want := range map[string][]string{
		`gunicorn app:app`:            {"gunicorn", "app:app"},
		`  sh -c "exec a 'b c'"  `:    {"sh", "-c", "exec a 'b c'"},
		`a\ b '' "x\"y"`:              {"a b", "", `x"y`},
		`/opt/my\\app --flag='a\n' é`: {`/opt/my\app`, `--flag=a\n`, "é"},
	} {
		if got, err := Fields(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"", "  ", `"open`, `'open`, `end\`} {
		if got, err := Fields(line); err == nil {
			t.Errorf("%q was taken for %q", line, got)
		}
	}
}

func TestRunExitCodes(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137} {
		err := Run(t.Context(), []string{"sh", "-c", script})
		var exit *ExitError
		if got := 0; errors.As(err, &exit) {
			if got = exit.Code; got != want {
				t.Errorf("%s: exit code %d, want %d", script, got, want)
			}
		} else if err != nil || want != 0 {
			t.Errorf("%s: %v", script, err)
		}
	}
	if err := Run(t.Context(), []string{"/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// Run forwards our signals, and the end of ctx as SIGTERM, and waits until the program has ended.
func TestRunForwards(t *testing.T) {
	for _, how := range []string{"signal", "context"} {
		t.Run(how, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				ended <- Run(ctx, []string{"sh", "-c", `trap 'exit 42' USR1 TERM; : > "$0"; while :; do sleep 0.05; done`, ready})
			}()
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				if _, err := os.Stat(ready); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the program did not start")
				}
			}
			if how == "signal" {
				if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
			} else {
				cancel()
			}
			var exit *ExitError
			if err := <-ended; !errors.As(err, &exit) || exit.Code != 42 {
				t.Errorf("ended with %v, want exit code 42", err)
			}
		})
	}
}

// A signal that comes when the program has ended, and before its exit code is returned, ends nothing.
func TestForwardOfALateSignal(t *testing.T) {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	forward(signals, self)()
	signals <- syscall.SIGWINCH // what package signal does until Stop
}
