// Package ladders runs the checkpoints of a ladder one after the other. Before each it looks
// at the locks, and does not begin a checkpoint that would stall writers for nothing.
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
	patience      = 50 * time.Millisecond // a reader that has stayed longer is suspect; see awaitReaders
)

// ContendedTries is how often a step is tried while another checkpointer is at work.
const ContendedTries = 50

// Checkpointer runs one checkpoint within a budget. The result's Outcome is typed; an
// error is returned only beside sqlite.OutcomeFailed. One call at a time.
type Checkpointer interface {
	Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error)
}

// Runner runs the ladders of one database.
type Runner struct {
	Checkpointer Checkpointer
	Look         func(context.Context) collector.Sample
	Counted      func(sqlite.Result, error) // called after each checkpoint
}

// OfOperator returns the ladder that `sqlwatch checkpoint` runs, and whether there is such a mode.
func OfOperator(mode string) (ladder policy.Ladder, known bool) {
	ladder = policy.Ladder{StallBudget: sqlite.DefaultStall, Steps: []policy.Step{{Mode: sqlite.Passive, Repeat: 3}}}
	switch mode {
	case sqlite.Passive.String():
		return ladder, true
	case sqlite.Truncate.String():
		ladder.Steps = append(ladder.Steps, policy.Step{Mode: sqlite.Truncate, Repeat: 1,
			BusyTimeout: 100 * time.Millisecond})
		return ladder, true
	}
	return policy.Ladder{}, false
}

// Run runs a ladder's steps until one of them ends it. The result has the outcome of the last
// step and the longest stall of all steps.
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

// behind reports whether other processes have committed since a complete PASSIVE. The WAL can
// restart only at a moment when nothing is left to copy. If commits are dense, a second
// PASSIVE, which has little to do, comes closer to such a moment than the first.
func (c Runner) behind(ctx context.Context) bool {
	s := c.Look(ctx)
	return s.WAL.Known && s.WAL.LagFrames() > 0
}

// endsLadder reports whether further steps are pointless after the outcome.
func endsLadder(o sqlite.Outcome) bool {
	switch o {
	case sqlite.OutcomeComplete, sqlite.OutcomePartial, sqlite.OutcomeNone:
		return false
	default:
		return true
	}
}

// step runs one checkpoint, or none if a look at the locks shows that it would stall writers for nothing.
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

// awaitReaders waits for at most wait until no reader keeps frames back, and reports whether
// one is still there that is not likely to leave.
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

// pinnedFor returns how long another process has held the same read mark below the head of the WAL.
func pinnedFor(s collector.Sample) time.Duration {
	if s.Readers.PinnedSince.IsZero() {
		return 0
	}
	return s.At.Sub(s.Readers.PinnedSince)
}

// pause waits and reports whether ctx has not ended.
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
