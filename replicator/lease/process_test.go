package lease

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestGone: a process is gone once it has ended; not while it runs, not if it belongs to another
// PID namespace, and not if nothing is known of it.
func TestGone(t *testing.T) {
	t.Parallel()
	this := ThisProcess()
	namespace, _, _ := strings.Cut(this, "/")
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid, start := child.Process.Pid, startOf(child.Process.Pid)
	of := func(namespace string) string { return fmt.Sprintf("%s/%d/%s", namespace, pid, start) }
	for _, process := range []string{this, of(namespace), "", "x", namespace + "/1"} {
		if Gone(process) {
			t.Errorf("%q is reported as gone", process)
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if !Gone(of(namespace)) || Gone(of("1"+namespace)) {
		t.Errorf("the child that ended: %v, one of another namespace: %v", Gone(of(namespace)), Gone(of("1"+namespace)))
	}
}
