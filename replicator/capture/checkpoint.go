package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// A TRUNCATE that meets the application's own checkpointer costs nobody
// anything and is tried again so often, so far apart.
const (
	contendedTries = 40
	contendedDelay = 2 * time.Millisecond
)

// Checkpoint runs a checkpoint that loses no commit. Before a TRUNCATE resets the
// WAL, under the write lock that keeps new commits out, the tail is copied and
// made durable; and the read mark that would stop it moves to READ0 for its last
// moment, so that the next generation's first frames are held too. Where that
// does not work out in the budget, nothing was reset and nothing is lost. No
// database is read again because of it.
func (c *Capture) Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}
	if budget.Stall <= 0 {
		budget.Stall = sqlite.DefaultStall
	}
	if err := c.refresh(); err != nil && !errors.Is(err, ErrSpoolFull) {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	} else if err != nil {
		return c.checkpointUncaptured(ctx, mode, budget)
	}
	if err := c.ready(ctx); err != nil {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	}
	r, err := c.truncater.run(ctx, mode, budget)
	if passing(err) {
		r.Mode, r.Outcome = mode, sqlite.OutcomeContended
		return r, nil
	}
	if err = c.compareIfLost(ctx, err); err != nil {
		return failed, fmt.Errorf("checkpoint %s: %w", c.o.Name, err)
	}
	return r, nil
}

// checkpointUncaptured serves a database whose spool is full: what it resets is
// found again by the diff that is due anyway.
func (c *Capture) checkpointUncaptured(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	conn, err := sqlite.Open(ctx, c.files.Path(), sqlite.Options{})
	if err != nil {
		return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeFailed, Frames: -1, Backfilled: -1}, err
	}
	r, err := conn.Checkpoint(ctx, mode, budget)
	return r, errors.Join(err, conn.Close())
}

// truncater runs the checkpoints of a database that is captured.
type truncater struct {
	files   *dbfile.Files
	hold    *hold
	flusher *flusher
}

// run drains the WAL and, for a TRUNCATE, empties it.
func (t *truncater) run(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error) {
	r, err := t.drain(ctx, budget)
	if err == nil && r.Outcome == sqlite.OutcomePartial {
		if behind, err := t.hold.backfillBehind(); err == nil && behind { // look before locking
			r.Mode, r.Outcome = mode, sqlite.OutcomePinned
			return r, nil
		}
	}
	for try := 0; err == nil && mode == sqlite.Truncate && try < contendedTries; try++ {
		r, err = t.truncate(ctx, budget)
		if err != nil || r.Outcome != sqlite.OutcomeContended {
			break
		}
		select {
		case <-ctx.Done():
			return r, nil
		case <-time.After(contendedDelay):
		}
	}
	return r, err
}

// drain copies and backfills the bulk while nobody has to wait.
func (t *truncater) drain(ctx context.Context, budget sqlite.Budget) (sqlite.Result, error) {
	if err := t.flusher.captureHead(); err != nil {
		return sqlite.Result{}, err
	}
	if err := t.hold.advance(ctx); err != nil {
		return sqlite.Result{}, err
	}
	r, err := t.hold.work.Checkpoint(ctx, sqlite.Passive, budget)
	if err != nil {
		return r, err
	}
	return r, errors.Join(t.files.SyncDatabase(), t.flusher.captureHead())
}

// truncate makes one attempt at a TRUNCATE, with copies under its write lock.
func (t *truncater) truncate(ctx context.Context, budget sqlite.Budget) (sqlite.Result, error) {
	var reason error
	var start time.Time
	hooks := sqlite.Hooks{
		WriteGranted: func() error {
			start = time.Now()
			reason = t.copyTail(ctx, budget.Stall)
			return reason
		},
		BeforeReaders: func() error {
			if reason = t.flusher.end(budget.Stall - time.Since(start)); reason == nil {
				reason = t.hold.advance(ctx)
			}
			return reason
		},
	}
	if err := t.hold.advance(ctx); err != nil { // the backfill is to find as much as possible done
		return sqlite.Result{}, err
	}
	r, err := t.hold.work.CheckpointHooked(ctx, sqlite.Truncate, budget, hooks)
	if errors.Is(reason, errBudget) {
		r.Mode, r.Outcome, r.WriterStall, err = sqlite.Truncate, sqlite.OutcomeBudgetSpent, time.Since(start), nil
	} else if reason != nil {
		err = reason
	}
	return r, errors.Join(err, t.flusher.wait())
}

// copyTail copies the end of the WAL, sets out to make it durable while SQLite
// backfills, and moves the mark to the head, where it does not hold the backfill
// back. Writers are waiting.
func (t *truncater) copyTail(ctx context.Context, budget time.Duration) error {
	if err := t.flusher.absorbTail(budget); err != nil {
		return err
	}
	if err := t.flusher.begin(); err != nil {
		return err
	}
	return t.hold.advance(ctx)
}
