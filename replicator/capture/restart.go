package capture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
)

// restarter keeps the WAL bounded: our own read mark keeps everybody else from restarting it.
type restarter struct {
	files       *dbfile.Files
	hold        *hold
	flusher     *segments.Flusher
	tail        *tail.Tail
	pace        *pace.Restart // when an attempt is due
	stallBudget time.Duration // how long writers may wait for us
	clock       func() time.Time
	log         *slog.Logger

	hindered error // why the last backfill did not end; logged when nobody waits
}

// restarted is the outcome of an attempt.
type restarted struct {
	done  bool
	stall time.Duration // how long transactions were kept waiting, done or not; 0: no freeze
}

// try restarts the WAL, or hands it over where no freeze is ever short enough.
func (r *restarter) try(ctx context.Context, live int64) (restarted, error) {
	start := r.clock()
	mayBeBold := r.pace.MayBeBold(start)
	did, err := r.restart(ctx, mayBeBold)
	r.pace.Tried(start, r.clock(), live, did.done)
	if !did.done && mayBeBold && r.pace.HandOver(live) && errors.Is(err, tail.ErrBudget) {
		return did, r.handOver(ctx)
	}
	return did, err
}

// Bounds of a soft restart.
const (
	restartRounds   = 5                     // of copying and backfilling beforehand
	restartPatience = 20 * time.Millisecond // waiting for the transactions of others to end
	denseCommits    = 3                     // in one round: a moment of calm will not come
	handOverTime    = 2 * time.Second       // in which the application must restart the WAL itself
	handOverPoll    = 100 * time.Microsecond
	restartContend  = 5 * time.Millisecond // wait for the application's own checkpoint, which does what ours would
	contendPoll     = 500 * time.Microsecond
)

// restart lets the WAL begin again at its first frame without a write of ours: everything is copied and
// backfilled, and our mark moves to READ0. That needs a moment without a commit. Where commits are few there is
// one, and nobody notices; otherwise new transactions wait for as long as it takes: see sqlite.Freeze. If a reader
// is in the way, or the budget is spent, everything stays as it was, and a later step tries again.
func (r *restarter) restart(ctx context.Context, mayBeBold bool) (did restarted, err error) {
	defer func() {
		err = errors.Join(err, r.flusher.Wait())
		r.report()
	}()
	ready, err := r.rehearse(ctx, mayBeBold)
	if err != nil || !ready || r.hold.zero {
		did.done = err == nil && r.hold.zero
		return did, err
	}
	// Do the slowest part of the tail once more, so that the freeze meets a shorter one.
	if err := errors.Join(r.flusher.AbsorbHead(), r.files.SyncWAL()); err != nil {
		return did, err
	}
	freeze, err := r.hold.freeze(ctx, sqlite.Budget{BusyTimeout: restartPatience, Stall: r.stallBudget})
	did.stall = r.hold.work.Stalled()
	if errors.Is(err, sqlite.ErrBusy) {
		return did, nil
	} else if err != nil {
		return did, err
	}
	defer freeze.End() // where a panic leaves out thaw
	r.hold.keepAside()
	level, err := r.levelFrozen(ctx, freeze)
	did.stall, err = max(did.stall, freeze.Stall()), errors.Join(err, r.hold.thaw(ctx, freeze, level))
	did.done = level && r.hold.zero
	if !did.done && err == nil && did.stall >= r.stallBudget/2 {
		err = tail.ErrBudget
	}
	r.log.Debug("soft restart", "done", did.done, "stall", did.stall, "err", err)
	return did, err
}

// rehearse does what the freeze will do, while nobody has to wait, until a round takes no
// longer than allowed: the bulk is copied and synced then, and it is known how slow this
// disk is today. If no commit arrives in between, it ends on READ0 and nothing is left to
// do; only where commits come too often for that, or the WAL is far beyond its bound, is it ready for a freeze.
func (r *restarter) rehearse(ctx context.Context, mayBeBold bool) (ready bool, err error) {
	slow := false
	for range restartRounds {
		start, earlier := time.Now(), r.tail.Head.Frames.Frame
		if err := r.flusher.AbsorbHead(); err != nil {
			return false, err
		}
		before := r.tail.Head.Change
		outcome, err := r.copyAndBackfill(ctx, time.Minute, r.hold.advance)
		if err != nil || r.hold.zero { // on READ0: another process backfilled everything
			return false, err
		}
		if outcome == sqlite.OutcomeContended { // the mark was not moved
			continue
		}
		pinned, err := r.hold.pinnedBefore(earlier)
		if err != nil || pinned && outcome == sqlite.OutcomePartial {
			return false, err // a reader is in the way: the freeze would be for nothing
		}
		if err := r.files.SyncDatabase(); err != nil {
			return false, err
		}
		if err := r.hold.advanceIfLevel(ctx); err != nil || r.hold.zero {
			return false, err
		}
		took := time.Since(start)
		x, err := r.files.WALIndex()
		if err != nil {
			return false, err
		}
		dense := x.Change-before >= denseCommits
		allowed, bold := r.stallBudget/2, false // half is reserved for what differs from the rehearsal
		if mayBeBold {
			allowed, bold = r.pace.Bold(int64(x.MaxFrame)*int64(x.PageSize), allowed)
		}
		r.log.Debug("rehearsal of a soft restart", "took", took, "outcome", outcome, "dense", dense)
		if slow = took > allowed; !slow && !pinned && (dense || bold) {
			return true, nil
		}
	}
	if slow {
		return false, tail.ErrBudget
	}
	return false, nil
}

// copyAndBackfill makes the batch durable and runs a PASSIVE checkpoint at the same time:
// they are independent, and both wait for the disk. move, if given, advances the mark
// while nobody else can checkpoint: otherwise an application that checkpoints at each
// commit would be the one that syncs and copies up to there.
func (r *restarter) copyAndBackfill(ctx context.Context, budget time.Duration,
	move func(context.Context) error) (sqlite.Outcome, error) {
	start, wanted := time.Now(), ctx
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	if err := r.flusher.Begin(); err != nil {
		return sqlite.OutcomeNone, err
	}
	var moveErr error
	var hooks sqlite.Hooks
	if move != nil {
		hooks.CheckpointLocked = func() error { moveErr = move(ctx); return moveErr }
	}
	did, err := r.hold.work.CheckpointHooked(ctx, sqlite.Passive, sqlite.Budget{}, hooks)
	for err == nil && did.Outcome == sqlite.OutcomeContended && time.Since(start) < restartContend {
		time.Sleep(contendPoll)
		did, err = r.hold.work.CheckpointHooked(ctx, sqlite.Passive, sqlite.Budget{}, hooks)
	}
	if err != nil && moveErr == nil && wanted.Err() == nil {
		r.hindered = err
	}
	return did.Outcome, errors.Join(moveErr, r.flusher.End(budget-time.Since(start)))
}

// report logs why the last backfill did not end. Whoever reads the log may be slow: it is not called in a freeze.
func (r *restarter) report() {
	if r.hindered != nil {
		r.log.Warn("backfill before a restart of the wal did not end; it is tried again later", "err", r.hindered)
		r.hindered = nil
	}
}

// levelFrozen copies and backfills all there is while nobody can commit, and reports whether all of it is durable
// and backfilled.
func (r *restarter) levelFrozen(ctx context.Context, freeze *sqlite.Freeze) (bool, error) {
	defer r.flusher.Hurry(r.stallBudget - freeze.Stall())()
	if err := r.flusher.AbsorbTail(); err != nil {
		return false, err
	}
	outcome, err := r.copyAndBackfill(ctx, r.stallBudget-freeze.Stall(), nil)
	return err == nil && outcome == sqlite.OutcomeComplete, err
}

// handOver lets go of the WAL for a while, so that the application restarts it itself:
// where the disk is so slow that a freeze never fits the stall budget, the WAL would grow
// without end. Nearly everything is backfilled, so the application's own checkpoint has
// little to do. Our connections stay open, so no first opener rebuilds the wal-index, and
// its counter shows whether anything was missed: commits that came and went between two
// looks cost a comparison.
func (r *restarter) handOver(ctx context.Context) error {
	before, err := tail.Index(r.files)
	if err != nil {
		return err
	}
	r.log.Info("the disk is too slow to restart the wal within the stall budget: leaving it to the application's own "+
		"checkpoint", "stall_budget", r.stallBudget)
	if err := r.flusher.CaptureHead(); err != nil {
		return err
	}
	r.hold.copies.GiveUp(overlay.ErrLetGo)
	if err := r.hold.reader().EndRead(); err != nil {
		return err
	}
	for start := time.Now(); err == nil && ctx.Err() == nil && time.Since(start) < handOverTime; time.Sleep(handOverPoll) {
		x, readErr := tail.Index(r.files)
		if readErr != nil {
			continue
		}
		if x.Salt1 != before.Salt1 { // hold the WAL first: to store what was read may take long
			break
		}
		if err = r.flusher.Absorb(x); errors.Is(err, tail.ErrRestarting) {
			err = nil
		}
	}
	if err := errors.Join(err, r.hold.beginHeld(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	return r.flusher.AbsorbHead()
}
