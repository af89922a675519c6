package replicator

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// beginning notes on a whole database that begins a chain what it follows.
type beginning struct {
	store    store.Store
	progress *progress.Progress
	backlog  *progress.Backlog
}

// note adds to the metadata of f, a whole database that is about to be stored, up to which
// TXID the replica has files before it, or is to get them, if those between never will be:
// capture began anew behind the replica, and its first states are in no file. Of
// one history what is missing was captured, and is lost: then nothing is noted.
func (b *beginning) note(ctx context.Context, f store.LTXFile, notes map[string]string) error {
	after, known := b.progress.Position()
	if !known || after == 0 {
		return nil
	}
	lineage, end := "", b.progress.Ends().Last
	for _, s := range b.backlog.Spool().After(after) {
		if s.MaxTXID != after+1 || s.MaxTXID >= f.MaxTXID {
			break
		}
		after, lineage = s.MaxTXID, s.Lineage
	}
	if after+1 >= f.MaxTXID {
		return nil
	}
	if lineage == "" {
		_, _, max, err := store.ParseLTXKey(end)
		if err != nil || max != after {
			return nil
		}
		_, object, err := b.store.Get(ctx, end, 0, 0)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at what the replica ends with: %w", err)
		}
		lineage = object.Metadata[store.MetaLineage]
	}
	if lineage != notes[store.MetaLineage] {
		notes[store.MetaAfter] = after.String()
	}
	return nil
}
