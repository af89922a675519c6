package catalog

import (
	"context"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Tip describes the newest state of a replica.
type Tip struct {
	TXID     ltx.TXID
	At       time.Time        // rises with the TXID
	Taken    moment.Stamp     // what the clock showed then, if known
	Checksum string           // "" if the file does not tell
	Lineage  string           // "" if the file does not tell
	Base     ltx.TXID         // of the newest snapshot
	After    ltx.TXID         // if Last is that snapshot and begins a chain: see store.MetaAfter
	Oldest   store.LTXFile    // the oldest snapshot; without a key if there is none
	Newest   store.LTXFile    // the newest snapshot
	Last     string           // the key of a file that ends at TXID
	Levels   map[int]ltx.TXID // how far each reaches
}

// FindTip finds a replica's tip in O(log n) requests.
func FindTip(ctx context.Context, st store.Store) (Tip, error) {
	t := Tip{Levels: map[int]ltx.TXID{}}
	c := newCatalog(st, nil)
	levels, err := c.levels(ctx)
	if err != nil {
		return t, err
	}
	snapshots, err := c.snapshots(ctx, levels)
	if err != nil {
		return t, err
	}
	if n := len(snapshots); n > 0 {
		t.Base, t.TXID, t.Last = snapshots[n-1].MaxTXID, snapshots[n-1].MaxTXID, snapshots[n-1].Object.Key
		t.Oldest, t.Newest = snapshots[0], snapshots[n-1]
	}
	for _, level := range levels {
		end, err := c.end(ctx, level, t.Base)
		if err != nil {
			return t, err
		}
		t.Levels[level] = end.MaxTXID
		if end.MaxTXID > t.TXID {
			t.TXID, t.Last = end.MaxTXID, end.Object.Key
		}
	}
	if t.Last == "" {
		return t, nil
	}
	_, object, err := st.Get(ctx, t.Last, 0, 0)
	if err != nil {
		return t, err
	}
	t.Checksum, t.Lineage = object.Metadata[store.MetaChecksum], object.Metadata[store.MetaLineage]
	if t.At, t.Taken, err = c.taken(ctx, store.LTXFile{Object: object}); err == nil && t.Last == t.Newest.Object.Key {
		t.After, _, err = c.follows(ctx, t.Newest)
	}
	return t, err
}

// TimeOf returns the time of a file's newest batch, from its metadata or else from its header.
func TimeOf(ctx context.Context, st store.Store, f store.LTXFile) (time.Time, error) {
	return newCatalog(st, nil).time(ctx, f)
}

// Taken reports whether the place with that tip holds any replica, including one of Litestream
// 0.3.
func Taken(ctx context.Context, st store.Store, tip Tip) (bool, error) {
	if tip.TXID > 0 {
		return true, nil
	}
	for _, err := range st.List(ctx, "generations/", "") {
		return err == nil, err
	}
	return false, nil
}
