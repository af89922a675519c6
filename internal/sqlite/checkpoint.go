//go:build linux && cgo

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"time"
)

// Checkpoint runs one checkpoint. The outcome is typed; the error is not nil
// only with OutcomeFailed. While writers wait, the stall budget runs: when it
// is spent the checkpoint is interrupted, and that pass keeps no progress. The
// connection must not be in a transaction.
//
// A TRUNCATE runs in a Freeze, which it takes where the caller has not: it is tried for
// the busy timeout. All that can be backfilled is backfilled before.
func (c *Conn) Checkpoint(ctx context.Context, mode Mode, budget Budget) (Result, error) {
	return c.CheckpointHooked(ctx, mode, budget, Hooks{})
}

// CheckpointHooked is Checkpoint with hooks: in them a replicator moves its read
// mark, and makes sure that a TRUNCATE loses nothing.
func (c *Conn) CheckpointHooked(ctx context.Context, mode Mode, budget Budget, hooks Hooks) (Result, error) {
	if budget.Stall <= 0 {
		budget.Stall = DefaultStall
	}
	if mode != Truncate || c.gate.freeze != nil || c.readOnly || ctx.Err() != nil {
		return c.runOnce(ctx, newRun(mode, budget, hooks))
	}
	start, reclaimed, stall := time.Now(), int64(0), time.Duration(0)
	for portion := 1; ; portion++ {
		r, err := c.truncate(ctx, budget, hooks)
		reclaimed, stall = reclaimed+r.Reclaimed, max(stall, r.WriterStall)
		if err != nil || r.Outcome != OutcomeShortened || portion == truncatePortions {
			r.Reclaimed, r.WriterStall, r.Duration = reclaimed, stall, time.Since(start)
			return r, err
		}
		time.Sleep(portionPause) // let others go on
	}
}

// A WAL file that is too long to be cut within the stall budget is cut in portions.
const (
	truncatePortions = 32
	portionPause     = 20 * time.Millisecond
)

// truncate runs a TRUNCATE in a freeze of its own.
func (c *Conn) truncate(ctx context.Context, budget Budget, hooks Hooks) (Result, error) {
	start := time.Now()
	// What is backfilled now, while nobody waits, need not be in the freeze.
	drained, err := c.runOnce(ctx, newRun(Passive, budget, Hooks{CheckpointLocked: hooks.CheckpointLocked}))
	drained.Mode = Truncate
	if err != nil || drained.Outcome != OutcomeComplete && drained.Outcome != OutcomePartial {
		return drained, err
	}
	freeze, err := c.Freeze(ctx, budget, nil)
	if err != nil {
		return c.notFrozen(drained, budget, start, err)
	}
	defer freeze.End()
	stalled := c.gate.stalled
	budget.Stall = max(budget.Stall-stalled-freeze.Stall(), time.Microsecond)
	r, err := c.runOnce(ctx, newRun(Truncate, budget, hooks))
	r.WriterStall, r.Duration = stalled+freeze.End(), time.Since(start)
	return r, err
}

// notFrozen returns the result of a TRUNCATE that got no freeze, because transactions were open all the time.
func (c *Conn) notFrozen(r Result, budget Budget, start time.Time, err error) (Result, error) {
	r.WriterStall, r.Duration = c.gate.stalled, time.Since(start)
	switch {
	case !errors.Is(err, ErrBusy):
		r.Outcome, r.Frames, r.Backfilled = OutcomeFailed, -1, -1
		return r, err
	case r.WriterStall >= budget.Stall/2:
		r.Outcome = OutcomeBudgetSpent
	case r.Backfilled < r.Frames:
		r.Outcome = OutcomePinned
	default:
		r.Outcome = OutcomeWriterBusy
	}
	return r, nil
}

// tuple is what PRAGMA wal_checkpoint returns.
type tuple struct{ busy, log, backfilled int }

func (c *Conn) runOnce(ctx context.Context, r *run) (Result, error) {
	start := time.Now()
	walBytes := fileSize(c.path + "-wal")
	t, err := c.runCheckpoint(ctx, r)
	result := Result{
		Mode:        r.mode,
		Frames:      t.log,
		Backfilled:  t.backfilled,
		WriterStall: r.writerStall,
		Reclaimed:   max(0, walBytes-fileSize(c.path+"-wal")),
	}
	result.Outcome, err = outcome(r, t, err)
	result.Duration = time.Since(start)
	if err != nil {
		return result, fmt.Errorf("%s checkpoint of %s: %w", r.mode, c.path, err)
	}
	return result, nil
}

// runCheckpoint runs the pragma with the gate set to r.
func (c *Conn) runCheckpoint(ctx context.Context, r *run) (tuple, error) {
	unknown := tuple{log: -1, backfilled: -1}
	if err := ctx.Err(); err != nil {
		return unknown, err
	}
	if c.readOnly {
		return unknown, ErrReadOnly
	}
	if err := c.resume(); err != nil {
		return unknown, err
	}
	c.gate.run, r.cut = r, &c.gate.cut
	stop := r.watchContext(ctx)
	// The driver's own handling of contexts is not used: it can lose an
	// interrupt that comes before the first step. Ours is looked at again
	// whenever SQLite asks for a lock.
	row, err := c.queryRow(context.Background(), "PRAGMA wal_checkpoint("+r.mode.String()+")", 3)
	stop()
	r.end()
	c.gate.run = nil
	if err != nil {
		return unknown, err
	}
	return parseTuple(row)
}

func parseTuple(row []driver.Value) (tuple, error) {
	var n [3]int
	for i := range n {
		v, ok := row[i].(int64)
		if !ok {
			return tuple{log: -1, backfilled: -1}, fmt.Errorf("unexpected answer %v", row)
		}
		n[i] = int(v)
	}
	return tuple{busy: n[0], log: n[1], backfilled: n[2]}, nil
}

// outcome interprets the pragma's answer by what the gate saw: the tuple alone does not tell a pinning reader from a
// busy writer.
func outcome(r *run, t tuple, err error) (Outcome, error) {
	cause := r.givenUp()
	switch {
	case err != nil && errors.Is(cause, errStallBudget):
		return OutcomeBudgetSpent, nil
	case err != nil && cause != nil:
		return OutcomeFailed, cause
	case err != nil:
		return OutcomeFailed, classify(err)
	case t.log < 0 && t.busy != 0:
		return OutcomeContended, nil
	case t.log < 0:
		return OutcomeNotWAL, nil
	case r.mode == Truncate && t.busy != 0:
		return blockedOutcome(r, t), nil
	case r.mode == Truncate && r.left > 0:
		return OutcomeShortened, nil
	case r.mode == Truncate:
		return OutcomeTruncated, nil
	case t.backfilled < t.log:
		return OutcomePartial, nil
	}
	return OutcomeComplete, nil
}

// blockedOutcome says what blocked a TRUNCATE.
func blockedOutcome(r *run, t tuple) Outcome {
	switch {
	case !r.writeGranted:
		return OutcomeWriterBusy
	case t.backfilled < t.log:
		return OutcomePinned
	}
	return OutcomeNotReset
}

// fileSize returns a file's size, 0 where there is none.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
