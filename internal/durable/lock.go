package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Flock is a held lock file. The kernel drops the lock when the process ends,
// however it ends.
type Flock struct{ file *os.File }

// HeldError says that another process holds a lock file.
type HeldError struct {
	Path string
	PID  int // the holder; 0 where it has not written its pid
}

// Error names the lock file and its holder.
func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock %s: held by another process", e.Path)
	}
	return fmt.Sprintf("lock %s: held by process %d", e.Path, e.PID)
}

// Lock takes the lock file at path, making it with mode 0600, and writes our
// pid into it. It does not wait: *HeldError when another holds it. The file is
// never removed, since two processes could then hold a lock each on two files
// of one name.
func Lock(path string) (*Flock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := lock(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Flock{file: file}, nil
}

func lock(file *os.File) error {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &HeldError{Path: file.Name(), PID: readPID(file)}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	if err := errors.Join(file.Chmod(0o600), file.Truncate(0)); err != nil {
		return fmt.Errorf("prepare lock file: %w", err)
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		return fmt.Errorf("write pid to lock file: %w", err)
	}
	return nil
}

// readPID returns the pid written in a lock file, 0 if there is none.
func readPID(file *os.File) int {
	line, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// Unlock gives the lock up. The pid goes first, so that nobody reads the pid
// of a process that holds nothing. Closing alone would leave the lock to a child
// process that was forked just now and has not begun its program yet.
func (l *Flock) Unlock() error {
	return errors.Join(l.file.Truncate(0), unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
}
