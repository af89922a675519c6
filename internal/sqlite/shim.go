//go:build linux && cgo

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
	lockRecover  = 2
	lockRead0    = 3
	lockSlots    = 5 // READ0 to READ4
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

// ReturnMemory returns the memory of closed connections, which the C library keeps, to the kernel. It takes some
// hundred microseconds.
func ReturnMemory() { C.sqlwatch_return_memory() }

// gate stands between one connection and its wal-index locks. Only the goroutine
// that calls SQLite touches it.
type gate struct {
	run    *run    // the checkpoint under way, nil outside one
	mark   int     // which of READ0 to READ4 was taken last
	shun   bool    // do not take READ1 if another will do
	some   bool    // never take READ0: a mark instead
	freeze *Freeze // the freeze whose locks this connection has
	inside *Freeze // a freeze of another connection of ours: it gives up the locks that this one needs

	strange bool   // other side files are at the paths than Options names
	wal     string // path of the WAL
	quietly bool   // the wal-index is rebuilt without RECOVER: see recovers

	file    *C.sqlite3_file // the connection's main file, once it took a lock
	stalled time.Duration   // by attempts at a freeze that came to nothing
	cut     cutting
}

// lockCall is one call of xShmLock.
type lockCall struct {
	db               *C.sqlite3
	file             *C.sqlite3_file
	offset, n, flags C.int
	freeze           *Freeze // locks that it has need no call
}

// real makes the call that SQLite meant.
func (l lockCall) real() C.int {
	if l.freeze.has(l.offset, l.n) {
		return C.SQLITE_OK // whether to lock or to unlock: the freeze keeps it until it ends
	}
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

// sqlwatchShmLock is called by the shim for every lock and unlock of the wal-index,
// on the goroutine that called SQLite. A panic must not leave through C: it would end
// the process's goroutine with the locks still held.
//
//export sqlwatchShmLock
func sqlwatchShmLock(handle C.uintptr_t, db *C.sqlite3, file *C.sqlite3_file, offset, n, flags C.int) (rc C.int) {
	call := lockCall{db: db, file: file, offset: offset, n: n, flags: flags}
	defer func() {
		if recover() != nil {
			rc = C.SQLITE_INTERRUPT
			if call.unlocks() {
				rc = call.real()
			}
		}
	}()
	g := cgo.Handle(handle).Value().(*gate)
	g.file, call.freeze = file, g.freeze
	if !call.unlocks() && g.inside != nil {
		g.inside.giveUp(offset, n)
	}
	shared := flags&C.SQLITE_SHM_SHARED != 0
	switch {
	case g.some && offset == lockRead0 && shared && !call.unlocks():
		return C.SQLITE_BUSY // SQLite then sets a mark, as it does while a checkpoint has READ0
	case shared:
		rc := call.real()
		if rc == C.SQLITE_OK && !call.unlocks() && offset >= lockRead0 {
			g.mark = int(offset - lockRead0)
		}
		return rc
	case g.recovers(&call):
		if call.n == 0 {
			return C.SQLITE_OK
		}
	case g.shun && offset == lockReaders && n == 1 && !call.unlocks():
		g.shun = false // once: it may be the only one left
		return C.SQLITE_BUSY
	}
	return g.shmLock(call)
}

// quietBytes is the largest WAL from which the wal-index is rebuilt without the RECOVER lock. To read it must take far
// less than the ten seconds for which SQLite retries.
const quietBytes = 64 << 20

// recovers reports whether the call is for the locks under which SQLite rebuilds the wal-index, and takes RECOVER out
// of it. WRITE, which is held then, keeps everybody else from rebuilding it. Whoever begins a transaction meanwhile is
// refused at once if RECOVER is locked (SQLITE_BUSY_RECOVERY), and waits otherwise.
func (g *gate) recovers(call *lockCall) bool {
	if call.offset > lockRecover || call.offset+call.n != lockRecover+1 {
		return false
	}
	if !call.unlocks() {
		g.quietly = fileSize(g.wal) <= quietBytes
	}
	if g.quietly {
		call.n--
	}
	return true
}

func (g *gate) shmLock(call lockCall) C.int {
	if g.run == nil {
		return call.real()
	}
	return g.run.shmLock(call)
}

// sqlwatchWALTruncate is called by the shim when SQLite truncates the WAL file of size
// bytes, and returns to how many.
//
//export sqlwatchWALTruncate
func sqlwatchWALTruncate(handle C.uintptr_t, size, to C.sqlite3_int64) C.sqlite3_int64 {
	g, ok := cgo.Handle(handle).Value().(*gate)
	if !ok || g.run == nil {
		return to
	}
	return C.sqlite3_int64(g.run.truncateTo(int64(size), int64(to)))
}

// reason returns ErrReplaced for the error by which the shim ended an open beside strange side files.
func (g *gate) reason(err error) error {
	if g.strange {
		return ErrReplaced
	}
	return err
}

//export sqlwatchStrange
func sqlwatchStrange(handle C.uintptr_t) {
	if g, ok := cgo.Handle(handle).Value().(*gate); ok {
		g.strange = true
	}
}

// interrupt ends what the connection is doing at the next page.
func interrupt(db *C.sqlite3) { C.sqlite3_interrupt(db) }
