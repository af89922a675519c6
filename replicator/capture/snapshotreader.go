package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
)

// SnapshotReader is the whole database as it was after one captured TXID.
type SnapshotReader = overlay.Snapshot

// OpenSnapshot captures to the head and returns a reader of the database at
// that commit. The caller closes it.
func (c *Capture) OpenSnapshot(ctx context.Context) (_ *SnapshotReader, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(); err != nil {
		return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, err)
	}
	for range restartingTries {
		r, err := c.snapshot(ctx)
		if err == nil {
			return r, nil
		}
		if !passing(err) {
			return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, err)
		}
		time.Sleep(contendPoll)
	}
	return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, view.ErrNone)
}

func (c *Capture) snapshot(ctx context.Context) (*SnapshotReader, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	x, err := tail.Index(c.files)
	if err != nil {
		return nil, err
	}
	if err := c.reach(ctx, x); err != nil {
		return nil, err
	}
	pos := c.state.Position()
	o := overlay.NewCopy(c.files.Database(), pos.PageSize, pos.Pages, c.keeping())
	err = overlay.NotBackfilled(c.files, x, ctx.Err, func(page uint32, b []byte) error { o.Keep(page, b); return nil })
	if errors.Is(err, dbfile.ErrSalt) {
		err = view.ErrNone
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	c.copies.Add(o, x)
	return overlay.NewSnapshot(o, c.copies, ltx.Header{
		PageSize: uint32(pos.PageSize), Commit: pos.Pages, MinTXID: 1, MaxTXID: pos.TXID, Timestamp: pos.Timestamp,
	}, pos.Checksum, pos.Lineage, pos.Stamp()), nil
}

// keeping bounds what a snapshot keeps aside.
func (c *Capture) keeping() overlay.Options {
	return overlay.Options{Dir: c.o.StateDir, Limit: c.o.SpoolLimit, Room: c.state.Room}
}

// reach captures up to the commit that x describes, and no further.
func (c *Capture) reach(ctx context.Context, x dbfile.WALIndex) error {
	if err := c.compareIfLost(ctx, c.flusher.Capture(x)); err != nil {
		return err
	}
	if c.state.Position().TXID == 0 {
		return errors.New("nothing was ever written to the database")
	}
	if c.state.Position().Change != x.Change {
		return view.ErrNone
	}
	return nil
}
