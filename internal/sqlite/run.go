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
	"runtime/debug"
	"sync"
	"time"
)

// errStallBudget is the cause of a run given up because writers had waited
// for the whole stall budget.
var errStallBudget = errors.New("stall budget spent")

// lockPoll is how often a wanted lock is tried again. A try is one fcntl, below
// a microsecond, and a busy writer's lock is free for microseconds; SQLite's
// own busy handler sleeps up to 100 ms, which would miss most of these moments
// and overshoot a stall budget by as much.
const lockPoll = 100 * time.Microsecond

// run is one checkpoint, as seen from the locks that it takes. The goroutine that calls SQLite owns it, except for
// what mu guards.
type run struct {
	mode  Mode
	stall time.Duration
	hooks Hooks

	patience     time.Duration // what is left of the busy timeout
	granted      time.Time     // when WRITE became ours
	writeGranted bool
	resetting    bool          // BeforeReset was called
	writerStall  time.Duration // how long WRITE was ours
	timer        *time.Timer
	left         int64    // bytes of the WAL file that a truncation left for the next one
	cut          *cutting // of the connection

	mu    sync.Mutex
	db    *C.sqlite3 // set while interrupting it makes sense
	cause error      // why the run was given up
}

func newRun(mode Mode, b Budget, hooks Hooks) *run {
	if b.Stall <= 0 {
		b.Stall = DefaultStall
	}
	return &run{mode: mode, stall: b.Stall, patience: b.BusyTimeout, hooks: hooks, cut: &cutting{}}
}

// shmLock replaces xShmLock while the checkpoint runs.
func (r *run) shmLock(call lockCall) C.int {
	r.measureCut()
	if call.unlocks() {
		rc := call.real()
		if call.offset == lockWrite {
			r.writeReleased()
		}
		return rc
	}
	r.watch(call.db)
	if call.resets() {
		r.beforeReset()
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

// acquire makes the call. Where SQLite's busy handler would wait too, it repeats the call while the busy timeout
// lasts: in a TRUNCATE, for WRITE and, once that is ours, for readers. It never waits for another checkpointer.
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

// call runs a hook, and gives the checkpoint up where the hook fails or panics: SQLite then releases the locks that
// it has, as after any error.
func (r *run) call(hook func() error, when string) {
	if hook == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			r.giveUp(fmt.Errorf("%s: panic: %v\n%s", when, p, debug.Stack()))
		}
	}()
	if err := hook(); err != nil {
		r.giveUp(fmt.Errorf("%s: %w", when, err))
	}
}

func (r *run) afterCheckpointer() {
	r.call(r.hooks.CheckpointLocked, "with the checkpoint lock held")
}

// afterWrite starts the stall clock.
func (r *run) afterWrite() {
	r.writeGranted = true
	r.granted = time.Now()
	r.timer = time.AfterFunc(r.stall, func() { r.giveUp(errStallBudget) })
	r.call(r.hooks.WriteLocked, "with the write lock held")
}

// beforeReset calls the hook for the moment before the WAL is reset, once: SQLite may try the same lock several
// times.
func (r *run) beforeReset() {
	if r.resetting || r.givenUp() != nil {
		return
	}
	r.resetting = true
	r.call(r.hooks.BeforeReset, "before the wal is reset")
}

func (r *run) writeReleased() {
	if r.granted.IsZero() {
		return
	}
	r.writerStall += time.Since(r.granted)
	r.granted = time.Time{}
	r.timer.Stop()
}

// watch sets the connection that giveUp interrupts.
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

// givenUp returns why the run was given up, nil if it was not. It looks at the clock
// itself: on a busy machine the timer may come late.
func (r *run) givenUp() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil && !r.granted.IsZero() && time.Since(r.granted) >= r.stall {
		r.cause = errStallBudget
	}
	return r.cause
}

// watchContext gives the run up when ctx ends; the function returned stops
// that.
func (r *run) watchContext(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { r.giveUp(ctx.Err()) })
}

// firstCutRate is the rate, in bytes per second, at which a slow file system frees a file. It is assumed until the
// rate was measured.
const firstCutRate = 500e6

// cutting is a truncation of the WAL file, which cannot be interrupted.
type cutting struct {
	rate  float64 // bytes a second, as last measured on this connection
	bytes int64
	began time.Time
}

// truncateTo returns the size to which the WAL file is cut. If cutting all of it would take longer than half of what
// is left of the stall budget, it is cut in portions from the end, one in each checkpoint: the WAL has been reset by
// then, and the frames that stay in the file are of no current generation.
func (r *run) truncateTo(size, to int64) int64 {
	left := r.stall
	if !r.granted.IsZero() {
		left -= time.Since(r.granted)
	}
	if r.cut.rate == 0 {
		r.cut.rate = firstCutRate
	}
	portion := max(int64(left.Seconds()/2*r.cut.rate), 1<<20)
	r.left = max(0, size-portion-to)
	r.cut.bytes, r.cut.began = size-to-r.left, time.Now()
	return to + r.left
}

// measureCut records how long the truncation took; it is called at SQLite's next call after it. A small truncation
// tells nothing.
func (r *run) measureCut() {
	if r.cut.began.IsZero() {
		return
	}
	if took := time.Since(r.cut.began); r.cut.bytes >= 8<<20 {
		r.cut.rate = min(float64(r.cut.bytes)/max(took, time.Millisecond).Seconds(), 4*r.cut.rate)
	}
	r.cut.began = time.Time{}
}
