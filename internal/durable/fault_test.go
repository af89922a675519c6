package durable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary runs itself as another process, which does one thing with the file that
// childPath names.
const (
	childTask = "DURABLE_TEST_TASK"
	childPath = "DURABLE_TEST_PATH"
)

func TestMain(m *testing.M) {
	task, path := os.Getenv(childTask), os.Getenv(childPath)
	runtime.LockOSThread() // strace counts the calls of each thread separately
	var err error
	switch task {
	case "":
		os.Exit(m.Run())
	case "write":
		err = WriteFile(path, []byte("new"), 0o600)
	case "lock":
		if _, err = Lock(path); err == nil {
			fmt.Println("held")
			_, err = os.Stdin.Read(make([]byte, 1))
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child prepares a run of the test binary, under the command given if any.
func child(task, path string, under ...string) *exec.Cmd {
	argv := append(under, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childTask+"="+task, childPath+"="+path)
	return cmd
}

// TestWriteFileFaults makes system calls fail, or kills the process at them. Afterwards the file
// is the old one or the new one, complete.
func TestWriteFileFaults(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	tests := []struct {
		name, inject string
		want         string // the file's contents
		says         string // part of the error
		fsyncs       int    // how often fsync may have been called
		temp         bool   // whether a temporary file may be left
	}{
		{"S22_fsync_EIO", "fsync:error=EIO:when=1", "old", "input/output error", 1, false},
		{"S21_fsync_ENOSPC", "fsync:error=ENOSPC:when=1", "old", "no space left", 1, false},
		{"S24_fsync_EDQUOT", "fsync:error=EDQUOT:when=1", "old", "quota exceeded", 1, false},
		{"S22_directory_fsync_EIO", "fsync:error=EIO:when=2", "new", "sync directory", 2, false},
		{"S28_rename_ENOENT", "renameat:error=ENOENT:when=1", "old", "no such file", 1, false},
		{"S26_killed_at_chmod", "fchmod:signal=KILL:when=1", "old", "", 0, true},
		{"S26_killed_at_fsync", "fsync:signal=KILL:when=1", "old", "", 1, true},
		{"S26_killed_at_rename", "renameat:error=EIO:signal=KILL:when=1", "old", "", 1, true},
		{"S26_killed_after_rename", "fsync:signal=KILL:when=2", "new", "", 2, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
			path := filepath.Join(dir, "f")
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := child("write", path, "strace", "-f", "-qq", "-o", trace, "-e", "trace=fsync,renameat,fchmod", "-e",
				"inject="+test.inject).CombinedOutput()
			if err == nil {
				t.Fatal("the fault was not noticed")
			}
			if !strings.Contains(string(out), test.says) {
				t.Errorf("said %q, want %q", out, test.says)
			}
			if got := contents(t, path); got != test.want {
				t.Errorf("holds %q, want %q", got, test.want)
			}
			// Of the thread that writes: when the process is killed, strace may show a call under another one too.
			shown := contents(t, trace)
			thread := regexp.MustCompile(`(?m)^\d+ fchmod\(`).FindString(shown)
			thread = strings.TrimSuffix(thread, "fchmod(")
			if got := strings.Count(shown, thread+"fsync("); got != test.fsyncs {
				t.Errorf("%d calls of fsync, want %d:\n%s", got, test.fsyncs, shown)
			}
			if got := names(t, dir); (got != "f") != test.temp {
				t.Errorf("left %s", got)
			}
			if err := SweepTemp(dir); err != nil || names(t, dir) != "f" {
				t.Errorf("after sweeping: %s, %v", names(t, dir), err)
			}
		})
	}
}

func TestLock_P14(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	holder := child("lock", path)
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, len("held\n"))); err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != holder.Process.Pid || held.Path != path {
		t.Errorf("beside a holder: %v", err)
	}
	if !strings.Contains(err.Error(), strconv.Itoa(holder.Process.Pid)) {
		t.Errorf("%q does not name the holder", err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err == nil {
		t.Error("the holder was not killed")
	}
	lock, err := Lock(path)
	if err != nil {
		t.Fatalf("after the holder's death: %v", err)
	}
	if got := contents(t, path); got != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("holds %q", got)
	}
	if _, err := Lock(path); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("twice in one process: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
	if got := contents(t, path); got != "" {
		t.Errorf("after Unlock it names %q", got)
	}
}

func TestLockRefusesLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(link); !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v, want %v", err, unix.ELOOP)
	}
	if got := contents(t, victim); got != "precious" {
		t.Errorf("the file behind the link holds %q", got)
	}
}

func TestHeldErrorWithoutPID(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	for _, text := range []string{"", "garbage", "-5", "99999999999999999999999999"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := readPID(file); got != 0 {
			t.Errorf("%q: pid %d", text, got)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := (&HeldError{Path: "/l"}).Error(); !strings.Contains(got, "another process") {
		t.Errorf("says %q", got)
	}
}
