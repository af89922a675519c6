package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// contents returns a file's contents, or "" if there is no file.
func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return strings.Join(list, " ")
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, want := range []string{"first", "the second, longer", ""} {
		if err := WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, path); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := names(t, dir); got != "state.json" {
		t.Errorf("directory holds %s", got)
	}
	if err := WriteFile(filepath.Join(dir, "missing", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing directory: %v", err)
	}
	if err := WriteFile(dir, []byte("x"), 0o600); err == nil {
		t.Error("replaced a directory")
	}
	if got := names(t, dir); got != "state.json" {
		t.Errorf("after errors the directory holds %s", got)
	}
	if got := names(t, filepath.Dir(dir)); strings.Contains(got, TempPrefix) {
		t.Errorf("a temporary file was left: %s", got)
	}
}

// The umask belongs to the whole process, so this test cannot run in parallel with others.
func TestMode_X8_whatever_the_umask(t *testing.T) {
	for _, umask := range []int{0, 0o777} {
		dir := t.TempDir()
		file, deep := filepath.Join(dir, "f"), filepath.Join(dir, "a", "b")
		old := unix.Umask(umask)
		err := errors.Join(WriteFile(file, nil, 0o600), MkdirAll(deep, 0o700))
		lock, lockErr := Lock(filepath.Join(dir, "lock"))
		unix.Umask(old)
		if err := errors.Join(err, lockErr); err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]fs.FileMode{file: 0o600, deep: 0o700, filepath.Dir(deep): 0o700,
			filepath.Join(dir, "lock"): 0o600} {
			if got := mode(t, path); got != want {
				t.Errorf("umask %o: %s has mode %o, want %o", umask, path, got, want)
			}
		}
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	f, err := Create(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !strings.HasPrefix(got, TempPrefix) {
		t.Errorf("S27: the temporary file is not beside its final name: %s", got)
	}
	if _, err := f.Write([]byte("head")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("tail"), 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(102); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := f.ReadAt(got[:2], 100); err != nil || string(got[:2]) != "ta" {
		t.Errorf("read back %q, %v", got, err)
	}
	if _, err := f.ReadAt(got, 100); err == nil {
		t.Error("read beyond the end")
	}
	if contents(t, path) != "" {
		t.Error("visible before Commit")
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if want := "head" + string(make([]byte, 96)) + "ta"; contents(t, path) != want || mode(t, path) != 0o640 {
		t.Errorf("committed %q with mode %o", contents(t, path), mode(t, path))
	}
	if err := errors.Join(f.Abort(), f.Abort()); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	if err := f.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Commit: %v", err)
	}
	if got := names(t, dir); got != "db" {
		t.Errorf("directory holds %s", got)
	}
}

func TestFileAbort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Abort(); err != nil || names(t, dir) != "" {
		t.Errorf("%v, left %s", err, names(t, dir))
	}
	if err := f.CommitNew(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("CommitNew after Abort: %v", err)
	}
}

func TestCommitNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	commit := func(data string) error {
		f, err := Create(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		return f.CommitNew()
	}
	if err := commit("first"); err != nil {
		t.Fatal(err)
	}
	if err := commit("second"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if contents(t, path) != "first" || names(t, dir) != "f" {
		t.Errorf("holds %q in %s", contents(t, path), names(t, dir))
	}
}

// After a failed write that the caller overlooked, Commit fails.
func TestCommit_S20_after_failed_write(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), -1); err == nil {
		t.Fatal("wrote at a negative offset")
	}
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err == nil {
		t.Error("committed a file with a failed write")
	}
	if contents(t, path) != "old" || names(t, dir) != "f" {
		t.Errorf("holds %q in %s", contents(t, path), names(t, dir))
	}
}

func TestWriteFile_S20_full_disk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path, ballast := filepath.Join(dir, "f"), filepath.Join(dir, "ballast")
	big := bytes.Repeat([]byte("x"), 40<<10)
	if err := errors.Join(WriteFile(path, []byte("old"), 0o600), WriteFile(ballast, big, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, big, 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want %v", err, unix.ENOSPC)
	}
	if contents(t, path) != "old" || names(t, dir) != "ballast f" {
		t.Errorf("holds %q in %s", contents(t, path), names(t, dir))
	}
	if err := errors.Join(Remove(ballast), WriteFile(path, big, 0o600)); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// The same error has the same text each time: no temporary name is in it.
func TestErrorsAreSteady_S20(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone", "f")
	f, err := Create(filepath.Join(t.TempDir(), "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.file.Close(); err != nil { // so that every further call fails
		t.Fatal(err)
	}
	_, written := f.Write([]byte("x"))
	for what, err := range map[string]error{"create": WriteFile(gone, nil, 0o600), "write": written,
		"commit": f.Commit()} {
		if err == nil || strings.Contains(err.Error(), TempPrefix) {
			t.Errorf("%s: %v, want an error without %s", what, err, TempPrefix)
		}
	}
	if err := WriteFile(gone, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
}

func TestMkdirAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := MkdirAll(deep+"/", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := mode(t, filepath.Join(dir, "a")); got != 0o755 {
		t.Errorf("an existing directory got mode %o", got)
	}
	file := filepath.Join(dir, "file")
	if err := WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if err := MkdirAll(path, 0o700); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(WriteFile(path, nil, 0o600), Remove(path)); err != nil {
		t.Error(err)
	}
	if err := Remove(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

func TestSweepTemp_S26(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	abandoned, err := Create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := abandoned.file.Close(); err != nil { // the process died
		t.Fatal(err)
	}
	if err := errors.Join(WriteFile(filepath.Join(dir, "keep"), nil, 0o600), MkdirAll(filepath.Join(dir, TempPrefix+"dir"),
		0o700)); err != nil {
		t.Fatal(err)
	}
	if err := SweepTemp(dir); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); got != TempPrefix+"dir keep" {
		t.Errorf("left %s", got)
	}
	if err := SweepTemp(filepath.Join(dir, "missing")); err != nil {
		t.Errorf("missing directory: %v", err)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "f"), filepath.Join(dir, "f.part")
	if err := errors.Join(WriteFile(path, []byte("old"), 0o600), WriteFile(temp, []byte("new"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(temp, path); err != nil {
		t.Fatal(err)
	}
	if contents(t, path) != "new" || names(t, dir) != "f" {
		t.Errorf("holds %q in %s", contents(t, path), names(t, dir))
	}
	if err := Replace(temp, path); !errors.Is(err, fs.ErrNotExist) || contents(t, path) != "new" {
		t.Errorf("without a file: %v", err)
	}
}

func TestTempPath(t *testing.T) {
	t.Parallel()
	f, err := Create(filepath.Join(t.TempDir(), "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.TempPath()); err != nil {
		t.Error(err)
	}
	if err := f.Abort(); err != nil {
		t.Error(err)
	}
}
