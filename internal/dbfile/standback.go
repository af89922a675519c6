package dbfile

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Each connection shares the DMS byte for as long as it lives. SQLite 3.5x queries it at its last close, and for
// journal_mode=DELETE: a process that holds it keeps the WAL from being removed. A process that stands back
// therefore gives it up, and shares a byte that SQLite does not know, by which this package sees that the wal-index
// is still in use. The next process to open the database may then believe that it is the first: it truncates the
// wal-index, and rebuilds it in the same file.
const shmStander = shmDMS + 1

// StandBack gives up the DMS byte that SQLite has locked for this process's connections. None of them may be used
// until Rejoin has returned nil.
func StandBack(f *Files) error {
	return f.with(&f.shm, ErrNoWALIndex, func(d *descriptor) error {
		st, err := d.fstat()
		if err != nil {
			return err
		}
		f.indexed.Store(st.Size)
		if err := d.lock(unix.F_RDLCK, shmStander); err != nil {
			return err
		}
		return d.lock(unix.F_UNLCK, shmDMS)
	})
}

// How long Rejoin waits for another process that is initialising the wal-index as the first to open the database.
const rejoinTries, rejoinPause = 20, time.Millisecond

// Rejoin takes the DMS byte again. ErrUnclear: another process is still opening the database as the first one.
// ErrUninitialised: another process has done so, and what our connections have mapped may no longer be in the file;
// they must then be closed.
func Rejoin(f *Files) error {
	err := rejoin(f)
	for try := 0; errors.Is(err, ErrUnclear) && try < rejoinTries; try++ {
		time.Sleep(rejoinPause)
		err = rejoin(f)
	}
	return err
}

func rejoin(f *Files) error {
	return f.with(&f.shm, ErrNoWALIndex, func(d *descriptor) error {
		if err := d.lock(unix.F_RDLCK, shmDMS); err != nil {
			return err
		}
		st, err := d.fstat()
		if err != nil {
			return err
		}
		if st.Size < f.indexed.Load() {
			return errors.Join(fmt.Errorf("%s is made anew: %w", d.Name(), ErrUninitialised), d.lock(unix.F_UNLCK, shmDMS))
		}
		return d.lock(unix.F_UNLCK, shmStander)
	})
}

// lock changes this process's lock on a byte of a wal-index: the lock is the process's, SQLite's descriptors
// included.
func (d *descriptor) lock(kind int16, offset int64) error {
	err := d.control(func(fd int) error {
		lk := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: offset, Len: 1}
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk)
	})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrUnclear
	}
	if err != nil {
		return fmt.Errorf("lock byte %d of %s: %w", offset, d.Name(), err)
	}
	return nil
}
