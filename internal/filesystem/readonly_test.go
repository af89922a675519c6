package filesystem

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ReadOnly tells a file system that nobody can write to from a directory that is read-only only
// in our view.
func TestReadOnly_D21(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	disk, view := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "view")
	for _, dir := range []string{disk, view} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	want := func(dir string, readOnly, here bool) {
		t.Helper()
		if m, err := Of(dir); err != nil || m.ReadOnly != readOnly || m.ReadOnlyHere != here || m.Point != dir {
			t.Errorf("%s: %+v, %v", dir, m, err)
		}
	}
	if err := unix.Mount("sqlwatch-test", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("nothing can be mounted here: ", err)
	}
	want(disk, false, false)
	for _, options := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount(disk, view, "", options, ""); err != nil {
			t.Fatal(err)
		}
	}
	want(disk, false, false)
	want(view, false, true)
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	mounts.read = mounts.read.Add(-mountsAge)
	want(disk, true, false)
	want(view, true, false)
}
