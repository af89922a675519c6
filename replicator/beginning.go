package replicator

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// beginning adds to a snapshot that begins a chain which files it comes after.
type beginning struct {
	store    store.Store
	progress *progress.Progress
	backlog  *progress.Backlog
}

// note records in the metadata of f, a snapshot about to be stored, the last TXID before it that
// the replica has or will get, if no file will ever cover the TXIDs between them: capture began
// anew behind the replica, and its first states are in no file. Within one capture lineage the
// missing TXIDs were captured and lost, which is a real gap: then note records nothing.
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
