package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadNoDatabase: a configuration that names a watched database by mistake releases no lock of the daemon that
// reads it again.
func TestReadNoDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	link := filepath.Join(t.TempDir(), "link.hcl")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, held := range []string{path, path + "-shm"} {
		fd, err := unix.Open(held, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 128, Len: 1}
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lock); err != nil {
			t.Fatal(err)
		}
		defer func() {
			err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock) // asks as another process would
			if err != nil || lock.Type != unix.F_WRLCK {
				t.Errorf("%s: the lock is gone: %v", held, err)
			}
		}()
	}
	for _, name := range []string{path, path + "-shm", link} {
		_, _, diags := ReadSource(name)
		_, _, err := readFile(name)
		if err == nil || !diags.HasErrors() || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was read: %v, %v", name, err, diags)
		}
	}
}
