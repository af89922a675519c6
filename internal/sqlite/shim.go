package sqlite

/*
// SQLite itself is linked into the binary by the driver's package; while this
// package is built alone its symbols are still unknown.
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-in-object-files
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"time"
)

// Offsets of the locks in the wal-index, as xShmLock counts them.
const (
	lockWrite    = 0
	lockCkpt     = 1
	lockRead0    = 3
	lockReaders  = 4 // READ1; SQLite takes READ1 to READ4 in one call of n = 4 to reset the WAL
	readersCount = 4
)

// registerShim makes the VFS "sqlwatch" known to SQLite. Repeating it is
// harmless.
func registerShim() error {
	if rc := C.sqlwatch_shim_register(); rc != C.SQLITE_OK {
		return fmt.Errorf("register SQLite VFS: result code %d", rc)
	}
	return nil
}

// ReturnMemory gives the kernel back what closed connections had: the C library keeps
// it. It takes some hundred microseconds.
func ReturnMemory() { C.sqlwatch_return_memory() }

// gate stands between one connection and its wal-index locks. Only the goroutine
// that calls SQLite touches it.
type gate struct {
	run  *run // the checkpoint under way, nil outside one
	mark int  // which of READ0 to READ4 was taken last
	shun bool // do not take READ1 if another will do
	some bool // never take READ0: a mark instead

	file *C.sqlite3_file // the connection's, once it took a lock
	has  bool            // the write lock was taken for the transaction that begins next
}

// takeWrite takes the write lock for a transaction that begins next. A writer at
// full speed leaves it free for microseconds, and each time has committed: a
// transaction that began before, and then waited for the lock, would be too old.
// It is false when somebody held the lock all the time; any other trouble is for the
// transaction to report.
func (g *gate) takeWrite(patience time.Duration) bool {
	if g.file == nil {
		return true
	}
	call := lockCall{file: g.file, offset: lockWrite, n: 1, flags: C.SQLITE_SHM_LOCK | C.SQLITE_SHM_EXCLUSIVE}
	for start := time.Now(); ; time.Sleep(spinFor) {
		for round := time.Now(); time.Since(round) < spinFor; {
			if rc := call.real(); rc != C.SQLITE_BUSY {
				g.has = rc == C.SQLITE_OK
				return true
			}
		}
		if time.Since(start) >= patience {
			return false
		}
	}
}

// spinFor is for how long a lock is tried without a pause: some cycles of a writer.
const spinFor = 100 * time.Microsecond

// giveBack releases a write lock that no transaction took over.
func (g *gate) giveBack() {
	if g.has {
		g.has = false
		lockCall{file: g.file, offset: lockWrite, n: 1}.release()
	}
}

// lockCall is one call of xShmLock.
type lockCall struct {
	db               *C.sqlite3
	file             *C.sqlite3_file
	offset, n, flags C.int
}

// real makes the call that SQLite meant.
func (l lockCall) real() C.int {
	return C.sqlwatch_real_shm_lock(l.file, l.offset, l.n, l.flags)
}

// release undoes a lock that the call obtained.
func (l lockCall) release() {
	C.sqlwatch_real_shm_lock(l.file, l.offset, l.n, C.SQLITE_SHM_UNLOCK|C.SQLITE_SHM_EXCLUSIVE)
}

// unlocks reports whether the call gives a lock up.
func (l lockCall) unlocks() bool { return l.flags&C.SQLITE_SHM_UNLOCK != 0 }

// resets reports whether the call is the one that a checkpoint makes when
// everything is backfilled and it wants to reset the WAL.
func (l lockCall) resets() bool { return l.offset == lockReaders && l.n == readersCount }

// sqlwatchShmLock is called by the shim for every exclusive lock and unlock of
// the wal-index, on the goroutine that called SQLite.
//
//export sqlwatchShmLock
func sqlwatchShmLock(handle C.uintptr_t, db *C.sqlite3, file *C.sqlite3_file, offset, n, flags C.int) C.int {
	call := lockCall{db: db, file: file, offset: offset, n: n, flags: flags}
	g := cgo.Handle(handle).Value().(*gate)
	g.file = file
	switch {
	case g.has && offset == lockWrite && !call.unlocks():
		g.has = false
		return C.SQLITE_OK
	case g.some && offset == lockRead0 && flags&C.SQLITE_SHM_SHARED != 0 && !call.unlocks():
		return C.SQLITE_BUSY // SQLite then sets a mark, as it does while a checkpoint has READ0
	case flags&C.SQLITE_SHM_SHARED != 0:
		rc := call.real()
		if rc == C.SQLITE_OK && !call.unlocks() && offset >= lockRead0 {
			g.mark = int(offset - lockRead0)
		}
		return rc
	case g.shun && offset == lockReaders && n == 1 && !call.unlocks():
		g.shun = false // once: it may be the only one left
		return C.SQLITE_BUSY
	}
	return g.shmLock(call)
}

func (g *gate) shmLock(call lockCall) C.int {
	if g.run == nil {
		return call.real()
	}
	return g.run.shmLock(call)
}

// interrupt ends what the connection is doing at the next page.
func interrupt(db *C.sqlite3) { C.sqlite3_interrupt(db) }
