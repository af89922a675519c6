package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Guard is what a store offers to keep two writers of one replica apart.
type Guard string

// The guards. With GuardConditional no two writers are ever both acknowledged. With
// the others the lease is read before and after each of its renewals, so that two
// writers which began within seconds of each other, or of which one was stopped for
// a while between two of its requests, are found out within a minute and not at once.
const (
	GuardUnknown     Guard = ""            // nothing was written yet
	GuardConditional Guard = "conditional" // If-None-Match and If-Match are honoured
	GuardCreate      Guard = "create"      // If-None-Match alone: files are safe, the lease is not
	GuardNone        Guard = "none"        // neither
)

// wrongETag is none that any store gives.
const wrongETag = `"00000000000000000000000000000000"`

// probe finds out which conditions a store honours, with an object that is there and
// has this body: to create it must fail, and so must replacing it under another ETag.
// A store that ignores a condition replaces the object with itself. It returns the
// object's ETag where that may have changed by it.
func probe(ctx context.Context, st store.Store, key string, body store.Body) (g Guard, etag string, err error) {
	honoured, etag, err := refuses(ctx, st, key, body, store.PutOptions{Create: true})
	if err != nil || !honoured {
		return GuardNone, etag, err
	}
	honoured, etag, err = refuses(ctx, st, key, body, store.PutOptions{Match: wrongETag})
	if err != nil || !honoured {
		return GuardCreate, etag, err
	}
	return GuardConditional, "", nil
}

// refuses reports whether the store refuses what the condition forbids.
func refuses(
	ctx context.Context, st store.Store, key string, body store.Body, o store.PutOptions,
) (bool, string, error) {
	object, err := st.Put(ctx, key, body, o)
	switch {
	case err == nil:
		return false, object.ETag, nil
	case errors.Is(err, store.ErrExists):
		return true, "", nil
	case errors.Is(err, errors.ErrUnsupported):
		return false, "", nil
	}
	return false, "", fmt.Errorf("probe conditional writes: %w", err)
}

// Probe finds out what a store offers, with an object of its own that it deletes: for
// whoever examines a replica without writing to it.
func Probe(ctx context.Context, st store.Store) (Guard, error) {
	key := "sqlwatch/probe-" + rand.Text()
	body := bodyOf([]byte("made to see which conditional writes this store honours; it can be deleted\n"))
	if _, err := st.Put(ctx, key, body, store.PutOptions{}); err != nil {
		return GuardUnknown, fmt.Errorf("probe conditional writes: %w", err)
	}
	guard, _, err := probe(ctx, st, key, body)
	if err != nil {
		guard = GuardUnknown
	}
	return guard, errors.Join(err, st.Delete(context.WithoutCancel(ctx), key))
}

// Weak reports whether the store is known not to refuse a second writer.
func (g Guard) Weak() bool { return g != GuardUnknown && g != GuardConditional }
