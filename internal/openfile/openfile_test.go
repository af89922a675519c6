//go:build linux

package openfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/openfile"
)

// A descriptor is matched to the file with stat's device and inode, even after its name is gone.
func TestAt(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	want := openfile.Inode{Dev: uint64(st.Dev), Ino: st.Ino}
	link := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	if got, err := openfile.At(link); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
	if got, err := openfile.At(link); err != nil || got != want {
		t.Errorf("without a name: %+v, %v; want %+v", got, err, want)
	}
	if _, err := openfile.At("/proc/self/fd/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
}

func TestParent(t *testing.T) {
	t.Parallel()
	if got := openfile.Parent(os.Getpid()); got != os.Getppid() {
		t.Errorf("%d, want %d", got, os.Getppid())
	}
	if got := openfile.Parent(-1); got != 0 {
		t.Errorf("of none: %d", got)
	}
}
