package dbfile

import (
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Lock bytes. Those of WAL mode lie in the -shm file, the older ones in the
// main file at 1 GiB, which is why that page is never used.
const (
	shmWrite   = 120
	shmCkpt    = 121
	shmRecover = 122
	shmRead0   = 123 // to shmRead0+4
	shmDMS     = 128 // held shared by every open connection ("dead man's switch")

	pendingByte  = 0x40000000
	reservedByte = pendingByte + 1
	sharedFirst  = pendingByte + 2
	sharedSize   = 510
)

// Holder is a process that holds one lock byte. Of several that share it any one is reported, but this process only
// where it is the only one.
type Holder struct {
	Held      bool
	Exclusive bool
	// 0: a process of another pid namespace; -1: an OFD lock, which belongs to an open file and not to a process
	PID int
}

// Locks is the state of a database's locks at about one instant. Locks of a
// missing -shm are not held. PENDING and RESERVED, which only rollback mode
// knows, are left to LockHolders.
type Locks struct {
	Write      Holder
	Checkpoint Holder
	Recover    Holder
	Read       [5]Holder
	DMS        Holder
	Shared     Holder // main file; SQLite in WAL mode holds it for the connection's life
}

// Locks asks the kernel who holds each lock byte. It takes no lock, does not wait, and costs a system call per held
// lock and gap. Locks of this process are reported too.
func (f *Files) Locks() (Locks, error) {
	return f.locksUpTo(shmDMS, true)
}

// WALLocks is Locks without Shared and DMS, which every connection holds all the time, and which therefore cost the
// most to query.
func (f *Files) WALLocks() (Locks, error) {
	return f.locksUpTo(shmRead0+4, false)
}

// CheckpointHoldsWrite reports whether a checkpoint is under way that keeps writers
// out: a FULL, RESTART or TRUNCATE holds WRITE and CKPT. It costs one system call
// while neither is held.
func (f *Files) CheckpointHoldsWrite() (bool, error) {
	l, err := f.locksUpTo(shmCkpt, false)
	return l.Write.Held && l.Checkpoint.Held, err
}

// locksUpTo asks for the bytes of the -shm up to last, and for Shared.
func (f *Files) locksUpTo(last int, shared bool) (l Locks, err error) {
	f.mu.RLock()
	database, shm := f.database, f.shm
	f.mu.RUnlock()
	if database == nil {
		return Locks{}, fmt.Errorf("%s: %w", f.path, fs.ErrClosed)
	}
	if shared {
		var main [1]Holder // a process that holds part of the range holds all of it
		if err := database.queryLocks(f.pid, sharedFirst, main[:]); err != nil {
			return Locks{}, fmt.Errorf("query locks of %s: %w", f.path, err)
		}
		l.Shared = main[0]
	}
	if shm == nil {
		return l, nil
	}
	var b [shmDMS - shmWrite + 1]Holder
	if err := shm.queryLocks(f.pid, shmWrite, b[:last-shmWrite+1]); err != nil {
		return Locks{}, fmt.Errorf("query locks of %s-shm: %w", f.path, err)
	}
	l.Write, l.Checkpoint, l.Recover, l.DMS = b[0], b[shmCkpt-shmWrite], b[shmRecover-shmWrite], b[shmDMS-shmWrite]
	copy(l.Read[:], b[shmRead0-shmWrite:])
	return l, nil
}

// queryLocks fills in the holder of each byte from offset on. pid is our own.
func (d *descriptor) queryLocks(pid int, offset int64, holders []Holder) error {
	return d.control(func(fd int) error {
		clear(holders)
		return queryRange(fd, pid, offset, holders)
	})
}

// queryRange asks for the whole range at once. The kernel answers with some
// lock in it, neighbouring ranges of one holder merged; what lies before and
// after that lock is asked for again.
func queryRange(fd, pid int, offset int64, holders []Holder) error {
	if len(holders) == 0 {
		return nil
	}
	// The OFD form compares with this process's own POSIX locks as well; plain
	// F_GETLK leaves them out. F_WRLCK conflicts with every lock.
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: offset, Len: int64(len(holders))}
	if err := unix.FcntlFlock(uintptr(fd), getLocks, &lk); err != nil {
		return err
	}
	if lk.Type == unix.F_UNLCK {
		return nil
	}
	first, end := max(0, lk.Start-offset), int64(len(holders))
	if lk.Len != 0 { // 0: to the end of the file, wherever that is
		end = min(end, lk.Start-offset+lk.Len)
	}
	if first >= end { // a remote lock manager may answer anything
		return fmt.Errorf("asked for locks of %d bytes at %d, told of %d at %d", len(holders), offset, lk.Len, lk.Start)
	}
	for i := first; i < end; i++ {
		holders[i] = Holder{Held: true, Exclusive: lk.Type == unix.F_WRLCK, PID: int(lk.Pid)}
		if holders[i].PID == pid && !holders[i].Exclusive {
			if err := queryOther(fd, offset+i, &holders[i]); err != nil {
				return err
			}
		}
	}
	if err := queryRange(fd, pid, offset, holders[:first]); err != nil {
		return err
	}
	return queryRange(fd, pid, offset+end, holders[end:])
}

// queryOther reports another process that shares the byte with this one. Plain F_GETLK leaves out our own locks.
func queryOther(fd int, offset int64, h *Holder) error {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: offset, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lk); err != nil {
		return err
	}
	if lk.Type != unix.F_UNLCK {
		h.PID = int(lk.Pid)
	}
	return nil
}
