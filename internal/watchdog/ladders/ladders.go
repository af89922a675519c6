// Package ladders makes the checkpoints of a ladder, one step after the other and
// each after a look: what would hold writers up for nothing is not begun.
package ladders

import (
	"context"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	lookEvery     = 5 * time.Millisecond  // between two looks for a reader to leave
	contendedWait = 3 * time.Millisecond  // another checkpointer's own work is short
	patience      = 50 * time.Millisecond // a reader is suspect that has stayed longer; see awaitReaders
)

// ContendedTries is how often a step is tried where another checkpointer is at work.
const ContendedTries = 50

// Checkpointer runs one checkpoint within a budget. The result's Outcome is typed; an
// error is returned only beside sqlite.OutcomeFailed. One call at a time.
type Checkpointer interface {
	Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error)
}

// Runner runs ladders of one database.
type Runner struct {
	Checkpointer Checkpointer
	Look         func(context.Context) collector.Sample
	Counted      func(sqlite.Result, error) // is told of each checkpoint that was made
}

// Run runs a ladder's steps until one ends it. The result has the last step's
// outcome and the longest stall of all.
func (c Runner) Run(ctx context.Context, l policy.Ladder) policy.ActionResult {
	var end policy.ActionResult
	for _, step := range l.Steps {
		for range max(step.Repeat, 1) {
			result, err := c.step(ctx, step, l.StallBudget)
			c.Counted(result, err)
			end.Outcome, end.Err = result.Outcome, err
			end.WriterStall = max(end.WriterStall, result.WriterStall)
			end.Reclaimed += result.Reclaimed
			if err != nil || endsLadder(result.Outcome) {
				return end
			}
			if result.Outcome == sqlite.OutcomeComplete && (l.Truncates() || !c.behind(ctx)) {
				break
			}
		}
	}
	return end
}

// behind reports whether others have committed since a PASSIVE that got through. The WAL
// starts over only from a moment at which nothing was left to copy: where commits are
// dense, a second PASSIVE, with little to do, comes nearer to it than the first.
func (c Runner) behind(ctx context.Context) bool {
	s := c.Look(ctx)
	return s.WAL.Known && s.WAL.LagFrames() > 0
}

// endsLadder reports whether no further step makes sense after the outcome.
func endsLadder(o sqlite.Outcome) bool {
	switch o {
	case sqlite.OutcomeComplete, sqlite.OutcomePartial, sqlite.OutcomeNone:
		return false
	default:
		return true
	}
}

// step makes one checkpoint, or none where looking tells that it would hold
// writers up for nothing.
func (c Runner) step(ctx context.Context, step policy.Step, stall time.Duration) (sqlite.Result, error) {
	budget := sqlite.Budget{BusyTimeout: step.BusyTimeout, Stall: stall}
	if step.Mode == sqlite.Truncate {
		if c.awaitReaders(ctx, step.BusyTimeout) {
			return sqlite.Result{Mode: step.Mode, Outcome: sqlite.OutcomePinned, Frames: -1, Backfilled: -1}, nil
		}
	}
	for try := 0; ; try++ {
		result, err := c.Checkpointer.Checkpoint(ctx, step.Mode, budget)
		if result.Outcome != sqlite.OutcomeContended || try == ContendedTries || !pause(ctx, contendedWait) {
			return result, err
		}
	}
}

// awaitReaders looks for a reader that keeps frames back, for as long as wait, and
// reports whether one is still there that is not likely to leave.
func (c Runner) awaitReaders(ctx context.Context, wait time.Duration) (pinned bool) {
	for deadline := time.Now().Add(wait); ; {
		if stays := pinnedFor(c.Look(ctx)); stays <= max(wait, patience) {
			return false
		}
		if !time.Now().Before(deadline) || !pause(ctx, lookEvery) {
			return true
		}
	}
}

// pinnedFor returns how long another process has held one read mark below the
// head of the WAL.
func pinnedFor(s collector.Sample) time.Duration {
	if s.Readers.PinnedSince.IsZero() {
		return 0
	}
	return s.At.Sub(s.Readers.PinnedSince)
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
