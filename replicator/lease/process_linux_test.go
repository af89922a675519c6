package lease

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGone_C3_hidden: a process of another user that runs is not gone where /proc hides it, as under
// systemd's ProtectProc=invisible. Needs root.
func TestGone_C3_hidden(t *testing.T) {
	t.Parallel()
	if unix.Geteuid() != 0 {
		t.Skip("only root can mount a /proc that hides processes")
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	namespace, _, _ := strings.Cut(ThisProcess(), "/")
	pid := strconv.Itoa(child.Process.Pid)
	process := namespace + "/" + pid + "/" + startOf(child.Process.Pid)
	gone, ended, hidden := make(chan bool), make(chan struct{}), false
	go func() {
		defer close(gone)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := hideProcesses(); err != nil {
			t.Errorf("hide other users' processes: %v", err)
			return
		}
		hidden = startOf(child.Process.Pid) == ""
		gone <- Gone(process)
		<-ended
		gone <- Gone(process)
	}()
	running := <-gone
	_ = child.Process.Kill()
	_ = child.Wait()
	close(ended)
	switch after := <-gone; {
	case !hidden:
		t.Error("/proc does not hide the process")
	case running:
		t.Error("a process that runs is reported as gone")
	case !after:
		t.Error("a process that has ended is not reported as gone")
	}
}

// hideProcesses gives this thread a /proc that shows nothing of other users, and makes it another user's.
func hideProcesses() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid=2"); err != nil {
		return err
	}
	const nobody = 65534
	for _, call := range []uintptr{unix.SYS_SETGROUPS, unix.SYS_SETRESGID, unix.SYS_SETRESUID} { // of this thread alone
		id := uintptr(nobody)
		if call == unix.SYS_SETGROUPS {
			id = 0 // none
		}
		if _, _, errno := unix.RawSyscall(call, id, id, id); errno != 0 {
			return errno
		}
	}
	return nil
}
