//go:build linux

package again_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A child process finds out which of several disks do not answer.
func TestSilent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hung := filepath.Join(dir, "hung")
	if err := os.Mkdir(hung, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(hung, "app.db")
	look := func() string {
		out, err := program("silent", dir, file, filepath.Join(dir, "none")).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got, want := look(), "[] <nil>"; got != want {
		t.Errorf("of disks that answer: %s, want %s", got, want)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer device.Close() // ends the pending request
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())
	if err := syscall.Mount("hung", hung, "fuse", 0, options); err != nil {
		t.Skip(err)
	}
	defer func() { _ = syscall.Unmount(hung, syscall.MNT_DETACH) }()
	if got, want := look(), "["+file+"] <nil>"; got != want {
		t.Errorf("of one that does not: %s, want %s", got, want)
	}
}
