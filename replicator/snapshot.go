package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// snapshot uploads the whole database as one stream: nothing is staged on disk,
// and memory stays what the store's upload needs. The caller holds work.
func (p *replica) snapshot(ctx context.Context) error {
	if err := p.lease.Hold(ctx); err != nil {
		return err
	}
	f, at, err := p.stream(ctx)
	if err != nil {
		return err
	}
	p.snapshotStored(f, at)
	return p.r.release(p.r.spool())
}

func (p *replica) snapshotStored(f store.LTXFile, at time.Time) {
	p.base = max(p.base, f.MaxTXID)
	p.advance(f, at)
	p.log.Info("snapshot stored", "txid", f.MaxTXID, "bytes", f.Object.Size)
}

// stream reads the database in one read transaction and stores it.
func (p *replica) stream(ctx context.Context) (store.LTXFile, time.Time, error) {
	var f store.LTXFile
	var at time.Time
	// Whoever waits for its turn to upload holds nothing of the database meanwhile.
	err := store.Admitted(ctx, p.store, p.status().StoredBytes, func(ctx context.Context) error {
		return p.r.withSnapshot(ctx, func(ctx context.Context, r *capture.SnapshotReader) (err error) {
			if _, known := p.progress.position(); !known {
				return lease.ErrMoved // or another chain was begun: its snapshot may not fit what is there
			}
			h := r.Header()
			if h.MaxTXID == 0 || h.Commit == 0 {
				return errors.New("nothing was ever written to the database")
			}
			at = time.UnixMilli(h.Timestamp).UTC()
			f = store.LTXFile{Level: store.SnapshotLevel, MinTXID: 1, MaxTXID: h.MaxTXID}
			body := store.Body{Size: -1, AtMost: int64(h.Commit)*int64(h.PageSize) + 1<<20, Open: func() (io.ReadCloser, error) {
				return r.Stream(ctx, p.scratch), nil
			}}
			metadata := map[string]string{
				store.MetaTimestamp: at.Format(time.RFC3339Nano),
				store.MetaChecksum:  r.Checksum().String(),
				store.MetaLineage:   r.Lineage(),
			}
			r.Taken().Put(metadata)
			f.Object, err = p.uploader.Create(ctx, store.LTXKey(store.SnapshotLevel, 1, h.MaxTXID), body, metadata)
			return err
		})
	})
	if err != nil {
		return store.LTXFile{}, at, fmt.Errorf("snapshot to %s: %w", p.o.Name, err)
	}
	return f, at, nil
}

// withSnapshot calls f with a reader of the database. Release and rebase end it.
func (r *Replicator) withSnapshot(ctx context.Context, f func(context.Context, *capture.SnapshotReader) error) error {
	r.life.RLock()
	defer r.life.RUnlock()
	if r.capture == nil {
		return r.closed()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.views, cancel)()
	reader, err := r.capture.OpenSnapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, reader), reader.Close())
}

// snapshotNow takes one snapshot on demand. When nothing was committed since the
// last one, that is the snapshot.
func (p *replica) snapshotNow(ctx context.Context) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.ready(ctx); err != nil {
		return err
	}
	if _, err := p.r.step(ctx, true); err != nil {
		return fmt.Errorf("snapshot to %s: %w", p.o.Name, err)
	}
	if p.base != 0 && p.base == p.r.spool().Last() {
		return nil
	}
	err := p.snapshot(ctx)
	p.doubtAfter(err)
	p.progress.record(err)
	return err
}

// ready opens the replica if it is not.
func (p *replica) ready(ctx context.Context) error {
	if p.r.spool() == nil {
		return fmt.Errorf("%s: %w", p.o.Name, p.r.closed())
	}
	if _, known := p.progress.position(); known {
		return nil
	}
	err := p.open(ctx)
	p.progress.record(err)
	return err
}

// leap is how far a new owner's TXIDs begin behind its predecessor's: farther
// than anything that one can still have under way.
const leap = catalog.ChainStep

// leapOver returns the TXID behind which a new owner begins.
func leapOver(end ltx.TXID) ltx.TXID { return end/leap*leap + 2*leap - 1 }
