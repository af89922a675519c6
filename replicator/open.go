package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/compact"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/upload"
)

// opener finds out what a replica holds, and makes capture continue where the replica ends.
type opener struct {
	name      string
	log       *slog.Logger
	store     store.Store
	claim     *custody.Claimant
	lease     *lease.Lease
	custody   *custody.Custody
	source    *source
	progress  *progress.Progress
	compactor *compact.Compactor
	uploader  *upload.Uploader
	held      func() ltx.TXID  // the TXID that the replica was last known to reach, 0 if unknown
	lost      func() ltx.TXID  // what the state directory has of progress.Progress.Lost
	checked   func() time.Time // when a check last found that no snapshot is needed; zero: unknown

	from atomic.Uint64 // TXID at which capture took its position from this replica; 0: it did not
}

// recoverable returns the replica's tip, and whether the replica is ours: whether capture,
// which has lost its own state, may continue from there.
func (o *opener) recoverable(ctx context.Context) (tip catalog.Tip, ours bool, err error) {
	o.from.Store(0)
	s, err := o.claim.Look(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		return catalog.Tip{}, false, nil // open will create the place, or report why it cannot
	}
	if err != nil {
		return catalog.Tip{}, false, err
	}
	return s.Tip, o.claim.Ours(s), nil
}

// open finds out what the replica holds and whether its history is ours to continue.
// Without proof that the next file joins the last one, capture starts a new chain behind
// it.
func (o *opener) open(ctx context.Context) error {
	s, v, err := o.examine(ctx)
	if err != nil {
		return err
	}
	if gone, err := o.uploader.Recheck(ctx); err != nil {
		return fmt.Errorf("open %s: %w", o.name, err)
	} else if gone {
		o.log.Error("an upload that was under way when sqlwatch last stopped was corrupt and has been removed",
			"replica", o.name)
		if s, v, err = o.examine(ctx); err != nil {
			return err
		}
	}
	if err := o.settle(ctx, s, v); err != nil {
		return fmt.Errorf("open %s: %w", o.name, err)
	}
	if was := o.held(); was > 0 && s.Tip.Base == 0 {
		o.log.Warn("the replica has lost its full copies: it was emptied, or its file system is not mounted; it begins anew "+
			"with the whole database, and older states are not there", "reached_txid", was)
		o.progress.Miss()
	}
	o.source.original.ClearNote(o.custody.Get(), o.log)
	o.progress.Recall(o.lost())
	o.progress.Found(s.Tip, o.source.backlog.Shipped(s.Tip))
	return nil
}

// examine returns what the replica holds once no other writer can change it, and the verdict that we may write.
func (o *opener) examine(ctx context.Context) (s custody.Sight, v lineage.Verdict, err error) {
	s, err = o.claim.Look(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		// The place does not exist. The first write creates a directory, if it may.
		if err = o.lease.Hold(ctx); err == nil {
			s, err = o.claim.Look(ctx)
		}
	}
	if err != nil {
		return s, v, err
	}
	if v, err = o.claim.Judge(ctx, s); err != nil {
		return s, v, err
	}
	if s.Continuous() && v != lineage.Succeed && o.lease.Vacant() {
		return s, v, nil
	}
	// Until we hold the lease, another host may still be writing: look again once we do.
	if err := o.lease.Hold(ctx); err != nil {
		return s, v, err
	}
	before := s.Lease
	if s, err = o.claim.Look(ctx); err != nil {
		return s, v, err
	}
	if s.Lease = before; s.Taken || s.Line.Found {
		v, err = o.claim.Judge(ctx, s)
	}
	if refused := (*custody.ClaimError)(nil); errors.As(err, &refused) {
		err = errors.Join(err, o.lease.Release(ctx)) // the rightful writer need not wait for it to expire
	}
	return s, v, err
}

// settle names the replica for our lineage and makes capture continue behind its tip.
func (o *opener) settle(ctx context.Context, s custody.Sight, v lineage.Verdict) error {
	if err := o.claim.Name(ctx, s, v); err != nil {
		return err
	}
	if err := o.join(ctx, s, v); err != nil {
		return err
	}
	if err := o.lease.Settle(); err != nil {
		return err
	}
	if err := o.compactor.Load(ctx, s.Tip.Levels, s.Tip.Base); err != nil {
		return err
	}
	return o.findSnapshots(ctx, s.Tip)
}

// join makes sure that the next file shipped joins the replica's tip or begins a new chain behind it.
func (o *opener) join(ctx context.Context, s custody.Sight, v lineage.Verdict) error {
	t, last := s.Tip, o.source.backlog.Spool().Last()
	joins := v != lineage.Succeed && s.Continuous() && o.claim.Agrees(t, ltx.TXID(o.from.Load()))
	switch {
	case t.TXID == 0, joins && t.TXID <= last:
		return nil
	case joins:
		return o.source.rebase(ctx, t.TXID, t.At)
	case o.source.backlog.Begins() > o.claim.Behind(s):
		return nil // our chain already begins behind the tip, with a snapshot
	}
	return o.source.rebase(ctx, max(o.claim.Behind(s), custody.LeapOver(last)), t.At)
}

// findSnapshots reads the times of the oldest and the newest snapshot. A check that found none needed counts as one.
func (o *opener) findSnapshots(ctx context.Context, t catalog.Tip) error {
	if t.Newest.Object.Key == "" {
		return nil
	}
	oldest, err := catalog.TimeOf(ctx, o.store, t.Oldest)
	if err != nil {
		return err
	}
	newest, err := catalog.TimeOf(ctx, o.store, t.Newest)
	if err != nil {
		return err
	}
	newest = catalog.Past(o.progress.Clock(), newest, t.Newest)
	o.progress.Snapshots(oldest, newest)
	if at := o.checked(); at.After(newest) && !at.After(o.progress.Clock()) {
		o.progress.Update(func(st *ReplicaStatus) { st.LastSnapshot = at })
	}
	return nil
}
