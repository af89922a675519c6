package dbfile

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// A connection shares the DMS byte for as long as it lives. SQLite 3.5x asks for it at its last close, and in
// journal_mode=DELETE: whoever has it keeps the WAL from being removed. So who stands back gives it up, and shares
// a byte that SQLite does not know, by which this package sees that somebody still uses the wal-index. Who opens
// the database next may then be the first of all: it cuts the wal-index short, and rebuilds it in its old file.
const shmStander = shmDMS + 1

// StandBack gives up the DMS byte that SQLite has taken for this process's connections, none of which
// may be used until Rejoin has returned nil.
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

// For so long whoever opens the database as the first of all makes its wal-index.
const rejoinTries, rejoinPause = 20, time.Millisecond

// Rejoin takes the DMS byte again. ErrUnclear: somebody is still opening the database as the first of
// all; ErrUninitialised: somebody did, and what connections have mapped need not be in the file. They
// must then be closed.
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

// lock changes this process's lock on a byte of a wal-index, whoever of it has the file open.
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
