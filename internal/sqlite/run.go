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

// errStallBudget is the cause of a run given up because writers had been held
// up for the whole stall budget.
var errStallBudget = errors.New("stall budget spent")

// lockPoll is how often a wanted lock is tried again. A try is one fcntl, below
// a microsecond, and a busy writer's lock is free for microseconds; SQLite's
// own busy handler sleeps up to 100 ms, which would miss most of these moments
// and overshoot a stall budget by as much.
const lockPoll = 100 * time.Microsecond

// run is one checkpoint as its locks see it. The goroutine inside SQLite owns
// it, except for what mu guards.
type run struct {
	mode  Mode
	stall time.Duration
	hooks Hooks

	patience     time.Duration // what is left of the busy timeout
	granted      time.Time     // when WRITE became ours
	writeGranted bool
	hopped       bool          // BeforeReaders was called
	writerStall  time.Duration // how long WRITE was ours
	timer        *time.Timer

	mu    sync.Mutex
	db    *C.sqlite3 // set while interrupting it makes sense
	cause error      // why the run was given up
}

func newRun(mode Mode, b Budget, hooks Hooks) *run {
	if b.Stall <= 0 {
		b.Stall = DefaultStall
	}
	return &run{mode: mode, stall: b.Stall, patience: b.BusyTimeout, hooks: hooks}
}

// shmLock stands for xShmLock while the checkpoint runs.
func (r *run) shmLock(call lockCall) C.int {
	if call.unlocks() {
		rc := call.real()
		if call.offset == lockWrite {
			r.writeReleased()
		}
		return rc
	}
	r.watch(call.db)
	if call.resets() {
		r.beforeReaders()
	}
	if r.givenUp() != nil {
		return C.SQLITE_INTERRUPT
	}
	rc := r.acquire(call)
	if rc != C.SQLITE_OK {
		return rc
	}
	switch call.offset {
	case lockCkpt:
		r.afterCheckpointer()
	case lockWrite:
		r.afterWrite()
	default:
		return C.SQLITE_OK
	}
	if r.givenUp() != nil {
		call.release()
		r.writeReleased()
		return C.SQLITE_INTERRUPT
	}
	return C.SQLITE_OK
}

// acquire makes the call, again and again while the busy timeout lasts where
// SQLite would have waited too: in a TRUNCATE, for WRITE and, once that is
// ours, for readers. It never waits for another checkpointer.
func (r *run) acquire(call lockCall) C.int {
	rc := call.real()
	if r.mode != Truncate || (call.offset != lockWrite && !r.writeGranted) {
		return rc
	}
	start := time.Now()
	for rc == C.SQLITE_BUSY && time.Since(start) < r.patience {
		time.Sleep(lockPoll)
		if r.givenUp() != nil {
			return C.SQLITE_INTERRUPT
		}
		rc = call.real()
	}
	r.patience -= time.Since(start)
	return rc
}

// afterCheckpointer lets the replicator move its mark: SQLite reads the marks next.
func (r *run) afterCheckpointer() {
	if r.hooks.Granted == nil {
		return
	}
	if err := r.hooks.Granted(); err != nil {
		r.giveUp(fmt.Errorf("with the checkpoint lock held: %w", err))
	}
}

// afterWrite starts the stall clock and lets the replicator copy the tail.
func (r *run) afterWrite() {
	r.writeGranted = true
	r.granted = time.Now()
	r.timer = time.AfterFunc(r.stall, func() { r.giveUp(errStallBudget) })
	if r.hooks.WriteGranted == nil {
		return
	}
	if err := r.hooks.WriteGranted(); err != nil {
		r.giveUp(fmt.Errorf("with the write lock held: %w", err))
	}
}

// beforeReaders lets the replicator hop to READ0. SQLite may try the same lock
// more than once, the hop is made once.
func (r *run) beforeReaders() {
	if r.hopped || r.hooks.BeforeReaders == nil || r.givenUp() != nil {
		return
	}
	r.hopped = true
	if err := r.hooks.BeforeReaders(); err != nil {
		r.giveUp(fmt.Errorf("before waiting for readers: %w", err))
	}
}

func (r *run) writeReleased() {
	if r.granted.IsZero() {
		return
	}
	r.writerStall += time.Since(r.granted)
	r.granted = time.Time{}
	r.timer.Stop()
}

// watch tells giveUp which connection to interrupt.
func (r *run) watch(db *C.sqlite3) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = db
}

// end forgets the connection: from here on no timer can interrupt it.
func (r *run) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = nil
}

// giveUp ends the run at its next lock, or at the next page if it is copying.
// The first cause counts, except that a spent budget must not hide the error of
// a hook that spent it.
func (r *run) giveUp(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil || errors.Is(r.cause, errStallBudget) {
		r.cause = cause
	}
	if r.db != nil {
		interrupt(r.db)
	}
}

func (r *run) givenUp() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// watchContext gives the run up when ctx ends; the function returned stops
// that.
func (r *run) watchContext(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { r.giveUp(ctx.Err()) })
}
