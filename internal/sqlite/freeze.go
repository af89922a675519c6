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

// Freeze holds all five read locks. No transaction of another process is open, for each holds one of them, and none
// can begin: a process that begins one waits, for up to ten seconds, with pauses that start at microseconds, and is
// not refused. SQLite retries read locks by itself, whatever the application's busy timeout, and a write transaction
// begins as a read transaction. To hold WRITE alone would be simpler, but would cause SQLITE_BUSY: SQLite calls no
// busy handler for a transaction that has read and then writes.
//
// A writer that began on READ0 and is about to restart the WAL may wait here too, with WRITE already its own. So a
// freeze means that nobody commits, not that WRITE is free.
type Freeze struct {
	conn  *Conn
	slots [lockSlots]bool // those of READ0 to READ4 that it holds
	began time.Time
	ended bool
}

// freezes is locked for reading by each freeze of this process, for as long as it lasts.
var freezes sync.RWMutex

// HoldFreezes returns when no freeze is under way, and keeps new ones from beginning until release is called. It is
// for a caller that is about to stop the process.
func HoldFreezes() (release func()) {
	freezes.Lock()
	return freezes.Unlock
}

// How Freeze gets the locks. Transactions that are open may end between its attempts.
const (
	closingFor   = time.Millisecond      // how long one attempt keeps new transactions waiting for the last open one
	closingPause = time.Millisecond      // first pause between two attempts; doubled each time
	closingMost  = 20 * time.Millisecond // longest pause between two attempts
	spinFor      = 100 * time.Microsecond
)

// Freeze keeps other processes out of transactions. It returns ErrBusy where one of their transactions was open for
// all of the busy timeout, or where the attempts have made others wait for half of the stall budget. holder, which
// may be nil, is another connection of ours that is in a read transaction: that one is ended last, so that there is
// no moment in which the WAL could be reset. After ErrBusy holder is still in its read transaction, or in a new one
// with a mark. Without an error Freeze.End must follow; a checkpoint on the same connection may come before.
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

// Stalled returns for how long the attempts of the last Freeze that came to nothing made others wait.
func (c *Conn) Stalled() time.Duration { return c.gate.stalled }

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

// has reports whether the freeze holds all of these locks of the wal-index.
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

// giveUp releases those of its locks that a connection of ours needs.
func (f *Freeze) giveUp(offset, n C.int) {
	for slot := range f.slots {
		if f.slots[slot] && int(offset) <= lockRead0+slot && lockRead0+slot < int(offset+n) {
			f.slots[slot] = false
			f.call(slot, C.SQLITE_SHM_UNLOCK)
		}
	}
}

// BeginRead begins a read transaction on another connection of ours before any other process can begin one. Where all
// of the WAL is backfilled, it is on READ0.
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

// Stall returns for how long others have had to wait.
func (f *Freeze) Stall() time.Duration { return time.Since(f.began) }

// End lets others begin transactions again, and returns for how long they have had to wait. It may be called again.
func (f *Freeze) End() time.Duration {
	if !f.ended {
		f.ended = true
		f.conn.gate.freeze = nil
		f.giveUp(lockRead0, lockSlots)
		freezes.RUnlock()
	}
	return f.Stall()
}
