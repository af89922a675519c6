//go:build linux && cgo

package sqlite

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Freeze has all five read locks: no transaction of another process is open, for each
// has one of them, and none can begin. Whoever begins one waits, for up to ten seconds,
// with pauses that begin at microseconds, and is never refused: SQLite tries a read lock
// again by itself, whatever the application's busy timeout, and a write transaction
// begins as a read transaction. To hold WRITE alone would be simpler, and would be the
// reason for SQLITE_BUSY: a transaction that has read and then writes finds no busy
// handler.
//
// A writer that began on READ0 and is about to restart the WAL may wait here too, with
// WRITE already its own. So a freeze says that nobody commits, not that WRITE is free.
type Freeze struct {
	conn  *Conn
	slots [lockSlots]bool // READ0 to READ4: ours
	began time.Time
	ended bool
}

// freezes is held for reading by each freeze of this process, and by nobody longer.
var freezes sync.RWMutex

// HoldFreezes returns when no freeze lasts, and keeps new ones from beginning until
// release is called: for whoever is about to stop the process.
func HoldFreezes() (release func()) {
	freezes.Lock()
	return freezes.Unlock
}

// How a freeze is come by. Whoever is inside a transaction may finish it in the meantime.
const (
	closingFor   = time.Millisecond      // is how long new transactions wait for the last old one
	closingPause = time.Millisecond      // between two attempts at first, doubled each time
	closingMost  = 20 * time.Millisecond // between two attempts at last
	spinFor      = 100 * time.Microsecond
)

// Freeze closes the database's transactions to other processes: ErrBusy where one of
// them has been open for all of the busy timeout, or others have waited for half of the
// stall budget because of the attempts. holder, which may be nil, is another
// connection of ours that is in a read transaction: it is ended as the last one, so
// that there is no moment in which the WAL could be reset. After an error it is in a
// read transaction again, with a mark. Freeze.End must follow; a checkpoint on the same
// connection may come before.
func (c *Conn) Freeze(ctx context.Context, budget Budget, holder *Conn) (*Freeze, error) {
	c.gate.stalled = 0
	if c.readOnly || c.gate.file == nil {
		return nil, fmt.Errorf("keep transactions out of %s: %w", c.path, ErrReadOnly)
	}
	if err := c.resume(); err != nil {
		return nil, fmt.Errorf("keep transactions out of %s: %w", c.path, err)
	}
	pause := closingPause
	for start := time.Now(); ; pause = min(2*pause, closingMost) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("keep transactions out of %s: %w", c.path, err)
		}
		freezes.RLock()
		f := &Freeze{conn: c, began: time.Now()}
		err := f.close(holder)
		if err == nil {
			c.gate.freeze = f
			return f, nil
		}
		c.gate.stalled += f.End()
		left := budget.BusyTimeout - time.Since(start)
		if !errors.Is(err, ErrBusy) || left <= 0 || c.gate.stalled >= budget.Stall/2 {
			return nil, fmt.Errorf("keep transactions out of %s: %w", c.path, err)
		}
		time.Sleep(min(pause, left))
	}
}

// close takes the locks.
func (f *Freeze) close(holder *Conn) error {
	own := -1
	if holder != nil && holder.inRead {
		own = holder.ReadMark()
	}
	if !f.closeAll(own) {
		return ErrBusy
	}
	if own < 0 {
		return nil
	}
	// All the others are ours: nobody can reset the WAL while this one changes hands.
	if err := holder.EndRead(); err != nil {
		return err
	}
	if f.closeAll(-1) {
		return nil
	}
	f.conn.gate.freeze = f
	return errors.Join(ErrBusy, f.BeginMarked(context.Background(), holder))
}

// closeAll takes every slot that is not except, and reports whether it has them.
func (f *Freeze) closeAll(except int) bool {
	for start := time.Now(); ; time.Sleep(spinFor) {
		for round := time.Now(); ; { // at least once, however long this thread did not run
			if f.closeOnce(except) {
				return true
			}
			if time.Since(round) >= spinFor {
				break
			}
		}
		if time.Since(start) >= closingFor {
			return false
		}
	}
}

func (f *Freeze) closeOnce(except int) bool {
	all := true
	for slot := range f.slots {
		if !f.slots[slot] && slot != except {
			f.slots[slot] = f.call(slot, C.SQLITE_SHM_LOCK) == C.SQLITE_OK
			all = all && f.slots[slot]
		}
	}
	return all
}

func (f *Freeze) call(slot int, flags C.int) C.int {
	return C.sqlwatch_real_shm_lock(f.conn.gate.file, C.int(lockRead0+slot), 1, flags|C.SQLITE_SHM_EXCLUSIVE)
}

// has reports whether locks of the wal-index are all the freeze's.
func (f *Freeze) has(offset, n C.int) bool {
	if f == nil || offset < lockRead0 || offset+n > lockRead0+lockSlots {
		return false
	}
	for slot := offset - lockRead0; slot < offset-lockRead0+n; slot++ {
		if !f.slots[slot] {
			return false
		}
	}
	return true
}

// giveUp gives up what a connection of ours needs.
func (f *Freeze) giveUp(offset, n C.int) {
	for slot := range f.slots {
		if f.slots[slot] && int(offset) <= lockRead0+slot && lockRead0+slot < int(offset+n) {
			f.slots[slot] = false
			f.call(slot, C.SQLITE_SHM_UNLOCK)
		}
	}
}

// BeginRead begins a read transaction on another connection of ours before anybody
// else can: on a level WAL it is on READ0.
func (f *Freeze) BeginRead(ctx context.Context, conn *Conn) error {
	conn.gate.inside = f
	defer func() { conn.gate.inside = nil }()
	return conn.BeginRead(ctx)
}

// BeginMarked is BeginRead, but never on READ0.
func (f *Freeze) BeginMarked(ctx context.Context, conn *Conn) error {
	conn.gate.inside = f
	defer func() { conn.gate.inside = nil }()
	return conn.BeginMarked(ctx)
}

// Stall returns for how long others have waited.
func (f *Freeze) Stall() time.Duration { return time.Since(f.began) }

// End lets everybody in, and returns for how long they have waited. It may be called
// again.
func (f *Freeze) End() time.Duration {
	if !f.ended {
		f.ended = true
		f.conn.gate.freeze = nil
		f.giveUp(lockRead0, lockSlots)
		freezes.RUnlock()
	}
	return f.Stall()
}
