package dbfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a process has a connection to the database.
var ErrInUse = errors.New("somebody has a connection to it")

// Claim is SQLite's EXCLUSIVE lock on a database that is about to be replaced: nobody has a connection, and nobody
// gets one until Release. That includes processes of other pid namespaces, which no list of processes shows.
type Claim struct{ files []*os.File }

// The lock bytes of a connection: in the main file PENDING, RESERVED and SHARED; in the -shm file all up to DMS,
// and the byte of a process that stands back.
const (
	mainLocks, mainLocksLen = 0x40000000, 512
	shmLocks, shmLocksLen   = 120, 10
)

// Replacing claims the database at path. This process must have no connection to it: opening the file here and
// closing it would drop the connection's locks. ErrInUse: a process uses it.
func Replacing(path string) (*Claim, error) {
	c := &Claim{}
	for _, f := range []struct {
		path        string
		offset, len int64
	}{{path, mainLocks, mainLocksLen}, {path + "-shm", shmLocks, shmLocksLen}} {
		if err := c.lock(f.path, f.offset, f.len); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.path, err), c.Release())
		}
	}
	return c, nil
}

func (c *Claim) lock(path string, offset, length int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	c.files = append(c.files, file)
	err = unix.FcntlFlock(file.Fd(), setLock, &unix.Flock_t{Type: unix.F_WRLCK, Start: offset, Len: length})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrInUse
	}
	return err
}

// Release lets others in.
func (c *Claim) Release() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, file := range c.files {
		errs = append(errs, file.Close())
	}
	c.files = nil
	return errors.Join(errs...)
}
