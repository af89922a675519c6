package watchdog

import (
	"context"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	lookEvery      = 5 * time.Millisecond // between two looks for a reader to leave
	contendedWait  = 3 * time.Millisecond // another checkpointer's own work is short
	contendedTries = 50
	patience       = 50 * time.Millisecond // a reader is suspect that has stayed longer; see awaitReaders
)

// ladderRunner makes the checkpoints of one ladder, each after a look.
type ladderRunner struct {
	checkpointer Checkpointer
	look         func(context.Context) collector.Sample
	counted      func(sqlite.Result)
}

// run runs a ladder's steps until one ends it. The result has the last step's
// outcome and the longest stall of all.
func (c ladderRunner) run(ctx context.Context, ladder policy.Ladder) policy.ActionResult {
	var end policy.ActionResult
	for _, step := range ladder.Steps {
		for range max(step.Repeat, 1) {
			result, err := c.step(ctx, step, ladder.StallBudget)
			if word, _ := outcomeOf(ctx, policy.ActCheckpoint, policy.ActionResult{Err: err}); !wrongMoment(word) {
				c.counted(result)
			}
			end.Outcome, end.Err = result.Outcome, err
			end.WriterStall = max(end.WriterStall, result.WriterStall)
			end.Reclaimed += result.Reclaimed
			if err != nil || endsLadder(result.Outcome) {
				return end
			}
			if result.Outcome == sqlite.OutcomeComplete {
				break
			}
		}
	}
	return end
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
func (c ladderRunner) step(ctx context.Context, step policy.Step, stall time.Duration) (sqlite.Result, error) {
	budget := sqlite.Budget{BusyTimeout: step.BusyTimeout, Stall: stall}
	if step.Mode == sqlite.Truncate {
		if c.awaitReaders(ctx, step.BusyTimeout) {
			return sqlite.Result{Mode: step.Mode, Outcome: sqlite.OutcomePinned, Frames: -1, Backfilled: -1}, nil
		}
	}
	for try := 0; ; try++ {
		result, err := c.checkpointer.Checkpoint(ctx, step.Mode, budget)
		if result.Outcome != sqlite.OutcomeContended || try == contendedTries || !pause(ctx, contendedWait) {
			return result, err
		}
	}
}

// awaitReaders looks for a reader that keeps frames back, for as long as wait, and
// reports whether one is still there that is not likely to leave.
func (c ladderRunner) awaitReaders(ctx context.Context, wait time.Duration) (pinned bool) {
	for deadline := time.Now().Add(wait); ; {
		if stays := pinnedFor(c.look(ctx)); stays <= max(wait, patience) {
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
