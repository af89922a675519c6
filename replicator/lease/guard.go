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

// The guards. With GuardConditional the store never acknowledges two writers. With the
// others each renewal reads the lease before and after it writes: two writers that began
// within seconds of each other, or one that was paused between two of its requests, are
// detected within a minute, not at once.
const (
	GuardUnknown     Guard = ""            // nothing was written yet
	GuardConditional Guard = "conditional" // If-None-Match and If-Match are honoured
	GuardCreate      Guard = "create"      // only If-None-Match: no file is overwritten, but the lease may be
	GuardNone        Guard = "none"        // neither
)

// wrongETag is an ETag that no store gives.
const wrongETag = `"00000000000000000000000000000000"`

// probe finds out which conditions a store honours, by an existing object that has this
// body: creating it must fail, and so must replacing it with If-Match of another ETag.
// A store that ignores a condition replaces the object with itself; then probe returns
// the object's new ETag.
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

// refuses reports whether the store refuses a write whose condition is not fulfilled.
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

// Probe finds out which conditions a store honours, by an object of its own that it deletes
// again: for commands that examine a replica without taking its lease.
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
