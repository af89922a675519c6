package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/once"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// How often, and how far apart, a TRUNCATE is tried that meets the application's own checkpoint and therefore ends
// at once.
const (
	contendedTries = 40
	contendedDelay = 2 * time.Millisecond
)

// A WAL file that is too long to be cut within the stall budget is cut in portions.
const (
	truncatePortions = 32
	portionPause     = 20 * time.Millisecond
)

// Checkpoint runs a checkpoint that loses no commit. Before a TRUNCATE resets the WAL, while nobody can commit,
// the tail is copied and made durable; afterwards our mark is on READ0 before anybody else can begin, so that the
// next generation's first frames are held too. If that does not fit the budget, nothing is reset and nothing is
// lost. A checkpoint never makes a comparison necessary.
func (c *Capture) Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}
	contended := failed
	contended.Outcome = sqlite.OutcomeContended
	if budget.Stall <= 0 {
		budget.Stall = sqlite.DefaultStall
	}
	if err := c.refresh(); passing(err) {
		return contended, nil
	} else if err != nil && !errors.Is(err, ErrSpoolFull) {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	} else if err != nil {
		return c.checkpointUncaptured(ctx, mode, budget)
	}
	if err := c.ready(ctx); passing(err) {
		return contended, nil
	} else if errors.Is(err, ErrQueued) {
		return c.checkpointUncaptured(ctx, mode, budget)
	} else if err != nil {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	}
	if c.hold.unclaimed {
		return contended, nil
	}
	if err := c.compareIfLost(ctx, c.seeMain()); errors.Is(err, ErrQueued) {
		return contended, nil
	} else if err != nil { // or a checkpoint of ours would hide it
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	}
	if c.departure.unclaim(); c.hold.unclaimed {
		return contended, nil
	}
	c.continuity.level = levelFile{} // the main file is about to change
	r, err := c.truncater.run(ctx, mode, budget)
	c.continuity.landmark(c.hold)
	if passing(err) {
		r.Mode, r.Outcome = mode, sqlite.OutcomeContended
		return r, nil
	}
	if err = c.compareIfLost(ctx, errors.Join(err, c.seeMain())); err != nil && !errors.Is(err, ErrQueued) {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	}
	return r, nil
}

// checkpointUncaptured checkpoints a database whose spool is full, or whose comparison waits for its turn: the
// comparison is due anyway, and finds what this checkpoint resets.
func (c *Capture) checkpointUncaptured(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result,
	error) {
	if c.claim.Missing(c.o.Clock()) {
		return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeContended, Frames: -1, Backfilled: -1}, nil
	}
	if err := c.files.MayOpen(); err != nil {
		return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}, err
	}
	return once.Checkpoint(ctx, c.files, mode, budget)
}

// truncater runs the checkpoints of a database that is captured.
type truncater struct {
	files   *dbfile.Files
	hold    *hold
	flusher *segments.Flusher
}

// run drains the WAL and, for a TRUNCATE, empties it.
func (t *truncater) run(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	earlier, err := tail.Index(t.files)
	if err != nil {
		return sqlite.Result{}, err
	}
	r, err := t.drain(ctx, budget)
	if err == nil && r.Outcome == sqlite.OutcomePartial {
		if pinned, err := t.hold.pinnedBefore(earlier.MaxFrame); err == nil && pinned { // look before locking
			r.Mode, r.Outcome = mode, sqlite.OutcomePinned
			return r, nil
		}
	}
	if err != nil || mode != sqlite.Truncate {
		return r, err
	}
	stall, reclaimed := time.Duration(0), int64(0)
	for try, portion := 1, 1; ; {
		r, err = t.truncate(ctx, budget)
		stall, reclaimed = max(stall, r.WriterStall), reclaimed+r.Reclaimed
		r.WriterStall, r.Reclaimed = stall, reclaimed
		wait := contendedDelay
		switch {
		case err != nil:
			return r, err
		case r.Outcome == sqlite.OutcomeContended && try < contendedTries:
			try++
		case r.Outcome == sqlite.OutcomeShortened && portion < truncatePortions:
			portion, wait = portion+1, portionPause
		default:
			return r, nil
		}
		select {
		case <-ctx.Done():
			return r, nil
		case <-time.After(wait):
		}
	}
}

// drain copies and backfills the bulk while nobody has to wait.
func (t *truncater) drain(ctx context.Context, budget sqlite.Budget) (sqlite.Result, error) {
	if err := t.flusher.CaptureHead(); err != nil {
		return sqlite.Result{}, err
	}
	if err := t.hold.advance(ctx); err != nil {
		return sqlite.Result{}, err
	}
	r, err := t.hold.work.Checkpoint(ctx, sqlite.Passive, budget)
	if err != nil {
		return r, err
	}
	return r, errors.Join(t.files.SyncDatabase(), t.files.ForgetWAL(), t.flusher.CaptureHead())
}

// truncate makes one attempt at a TRUNCATE, in a freeze: nobody can commit. The tail is
// copied and made durable while SQLite backfills; what is not durable in time is not
// reset. A WAL file that is too long for the budget is cut in portions.
func (t *truncater) truncate(ctx context.Context, budget sqlite.Budget) (r sqlite.Result, err error) {
	defer func() { err = errors.Join(err, t.flusher.Wait()) }()
	freeze, err := t.hold.freeze(ctx, budget)
	if errors.Is(err, sqlite.ErrBusy) {
		return sqlite.Result{Mode: sqlite.Truncate, Outcome: sqlite.OutcomeWriterBusy, Frames: -1, Backfilled: -1,
			WriterStall: t.hold.work.Stalled()}, nil
	} else if err != nil {
		return sqlite.Result{}, err
	}
	defer freeze.End() // where a panic leaves out thaw
	t.hold.keepAside()
	left := func() time.Duration { return budget.Stall - freeze.Stall() }
	var reason error
	h := sqlite.Hooks{
		WriteLocked: func() error {
			defer t.flusher.Hurry(left())()
			if reason = t.flusher.AbsorbTail(); reason == nil {
				reason = t.flusher.Begin()
			}
			return reason
		},
		BeforeReset: func() error {
			reason = t.flusher.End(left())
			return reason
		},
	}
	r, err = t.hold.work.CheckpointHooked(ctx, sqlite.Truncate, sqlite.Budget{Stall: max(left(), time.Millisecond)}, h)
	if errors.Is(reason, tail.ErrBudget) {
		r.Mode, r.Outcome, err = sqlite.Truncate, sqlite.OutcomeBudgetSpent, nil
	} else if reason != nil {
		err = reason
	}
	reset := err == nil && (r.Outcome == sqlite.OutcomeTruncated || r.Outcome == sqlite.OutcomeShortened)
	r.WriterStall = freeze.Stall()
	return r, errors.Join(err, t.hold.thaw(ctx, freeze, reset))
}
