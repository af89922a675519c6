//go:build linux && cgo

package sqlite

/*
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// While we are connected, no close of an application is the last one: the WAL stays, and what is in it would be
// replayed over whatever file is put in the database's place next. So a connection can close as SQLite's last one
// does (CloseLast), stand back while others are connected (Shed), and stay connected with a wal-index that knows
// nothing (Forget).

// CloseLast closes the connection as an application closes its own. If nobody else is connected to the database, in
// any process, SQLite checkpoints the WAL and removes it and the wal-index; else it is Close, also where other
// processes have the file for themselves, or other files are in its place.
func (c *Conn) CloseLast() error {
	if !c.readOnly && c.gate.file != nil && !c.indexCut() {
		switch err := c.resume(); {
		case err == nil:
			C.sqlwatch_close_last(c.gate.file)
		case !errors.Is(err, ErrBusy) && !errors.Is(err, ErrReplaced):
			return errors.Join(fmt.Errorf("close database %s: %w", c.path, err), c.Close())
		}
	}
	return c.Close()
}

// CloseUnlinked closes a connection whose WAL was unlinked, so that no new connection can use it. If nobody else is
// connected, no WAL is at the path, and wanted reports true while nobody can connect, what is in the WAL is written
// to the database, as the application's own last close would have done; else it is Close.
func (c *Conn) CloseUnlinked(wanted func() bool) error {
	if !c.readOnly && c.gate.file != nil && !c.indexCut() && c.relock() == nil &&
		C.sqlwatch_claim(c.gate.file) == C.SQLITE_OK && c.unlinked() && wanted() {
		C.sqlwatch_close_last(c.gate.file)
	}
	return c.Close()
}

// unlinked reports whether the database is at its path, but no WAL is, nor another wal-index than ours.
func (c *Conn) unlinked() bool {
	now, err := identify(c.path)
	wal, walErr := inodeOf(c.path + "-wal")
	return err == nil && walErr == nil && now.database == c.files.database && wal == (inode{}) &&
		(now.shm == inode{} || now.shm == c.files.shm)
}

// Shed gives up the lock on the main file until the connection is used again; a read transaction keeps its read mark.
// Once all connections of the process have done so, the process may give up the DMS byte as well: see
// dbfile.StandBack. A process that wants the file for itself is then no longer refused: a last close, which
// checkpoints and removes the WAL, journal_mode=DELETE, EXCLUSIVE locking mode. Each proceeds as if we were not
// connected: it disregards our mark, and may unlink the WAL. But the bytes in the WAL stay as they are for every
// process that has it open.
func (c *Conn) Shed() error {
	if c.shed || c.gate.file == nil {
		return nil
	}
	if rc := C.sqlwatch_shed(c.gate.file); rc != C.SQLITE_OK {
		return fmt.Errorf("stand back from %s: result code %d", c.path, rc)
	}
	c.shed = true
	return nil
}

// How long share tries again while another connection's close holds the main file's lock.
const (
	resumeTries = 20
	resumePause = time.Millisecond
)

// resume makes sure that the connection's lock on the main file is held, and that its files are those at the paths.
// Errors: ErrBusy where another process has the file for itself, ErrReplaced, ErrIndexCut.
func (c *Conn) resume() error {
	if c.indexCut() {
		return ErrIndexCut
	}
	stood := c.shed
	if stood { // not even for a moment: see shimLock in shim.c
		if err := c.inPlace(); err != nil {
			return err
		}
	}
	if err := c.relock(); err != nil {
		return err
	}
	err := c.inPlace()
	if err != nil && stood {
		err = errors.Join(err, c.Shed())
	}
	return err
}

// inPlace returns ErrReplaced where other files are at the paths than the connection has open.
func (c *Conn) inPlace() error {
	now, err := identify(c.path)
	if err == nil && now != c.files {
		err = ErrReplaced
	}
	return err
}

// relock takes the locks again that were given up at and after Shed.
func (c *Conn) relock() error {
	if err := c.share(); err != nil || c.rejoin == nil {
		return err
	}
	// The main file first: with its lock held nobody removes the wal-index, and if somebody did before, the paths
	// show it.
	if err := c.rejoin(); err != nil {
		return errors.Join(err, c.Shed())
	}
	return nil
}

// share takes the lock on the main file again.
func (c *Conn) share() error {
	if !c.shed {
		return nil
	}
	rc := C.sqlwatch_resume(c.gate.file)
	for try := 0; rc == C.SQLITE_BUSY && try < resumeTries; try++ { // a close takes it to see whether it is the last
		time.Sleep(resumePause)
		rc = C.sqlwatch_resume(c.gate.file)
	}
	switch rc {
	case C.SQLITE_OK:
		c.shed = false
		return nil
	case C.SQLITE_BUSY:
		return ErrBusy
	default:
		return fmt.Errorf("use %s again: result code %d", c.path, rc)
	}
}

// Forget clears the wal-index of an empty WAL, so that it knows nothing of the database, neither its size nor its
// salts, as if it had just been created. A process that opens another file in the database's place then reads that
// file as it is, even while we are connected. change is the commit counter that the wal-index must have. ErrBusy
// where it has another one, or frames, or where any of its locks is held, also by a read transaction of ours.
func (c *Conn) Forget(change uint32) error {
	if err := c.resume(); err != nil {
		return fmt.Errorf("clear the wal-index of %s: %w", c.path, err)
	}
	switch rc := C.sqlwatch_forget(c.gate.file, C.uint32_t(change)); rc {
	case C.SQLITE_IOERR_SHMMAP:
		return fmt.Errorf("clear the wal-index of %s: %w", c.path, ErrIndexCut)
	case C.SQLITE_OK:
		return nil
	case C.SQLITE_BUSY:
		return fmt.Errorf("clear the wal-index of %s: %w", c.path, ErrBusy)
	default:
		return fmt.Errorf("clear the wal-index of %s: result code %d", c.path, rc)
	}
}

// indexCut reports whether somebody truncated the wal-index under the connection.
func (c *Conn) indexCut() bool { return c.gate.file != nil && C.sqlwatch_cut(c.gate.file) != 0 }

// identity identifies the files that a connection works with.
type identity struct{ database, shm inode }

type inode struct{ dev, ino uint64 }

func identify(path string) (id identity, err error) {
	if id.database, err = inodeOf(path); err == nil {
		id.shm, err = inodeOf(path + "-shm")
	}
	return id, err
}

// inodeOf returns the zero inode where there is no file.
func inodeOf(path string) (inode, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	for err == unix.EINTR {
		err = unix.Stat(path, &st)
	}
	if err == unix.ENOENT {
		return inode{}, nil
	}
	if err != nil {
		return inode{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}
