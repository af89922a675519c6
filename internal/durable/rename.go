package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// TempPath is the temporary name that the file has until Commit, for those who
// must reach it by path: to set extended attributes, or to let SQLite check it.
func (f *File) TempPath() string { return f.file.Name() }

// Replace puts a file that its writer has closed, or will not write any more,
// at path, which is in the same directory: it fsyncs the file, renames it over
// what is there, and fsyncs the directory. It is Commit for a file that has a
// name of its own, so that whoever comes after a crash finds it. After an error
// temp may still be there.
func Replace(temp, path string) error {
	f, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("replace %s: sync: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Move gives the file at path another name in its directory, where nothing may be yet,
// and makes that durable.
func Move(path, name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("move %s: %s exists", path, name)
	}
	if err := os.Rename(path, name); err != nil {
		return fmt.Errorf("move %s: %w", path, err)
	}
	return syncDir(filepath.Dir(name))
}
