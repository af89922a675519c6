// Package upload stores files that nobody may have stored before, and finds out where
// somebody has.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Uploader stores files in a replica. Whoever calls it has the lease.
type Uploader struct {
	store   store.Store
	lease   *lease.Lease
	journal *custody.StateFile // of what is not read back yet
	scratch string             // for temporary files
	log     *slog.Logger
	sending sync.Map     // keys of bases under way
	bytes   atomic.Int64 // stored so far
}

// New returns an uploader into a store, which has temporary files in scratch.
func New(st store.Store, l *lease.Lease, journal *custody.StateFile, scratch string, log *slog.Logger) *Uploader {
	return &Uploader{store: st, lease: l, journal: journal, scratch: scratch, log: log}
}

// Bytes returns how much was stored so far.
func (u *Uploader) Bytes() int64 { return u.bytes.Load() }

// Create stores an object. When somebody has stored one there, it is looked at: our own
// earlier attempt, whose reply was lost, is a success; anything else is another
// writer's, and our claim to the replica is to be examined again.
func (u *Uploader) Create(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (object store.Object, err error) {
	err = u.lease.During(ctx, func(ctx context.Context) error { // on a slow line, a small file takes long too
		object, err = u.put(ctx, key, body, metadata)
		u.adrift(key, err)
		return err
	})
	if err != nil {
		return store.Object{}, err
	}
	u.bytes.Add(object.Size)
	return object, nil
}

// adrift tells the lease whether an upload that ended so may still arrive. Merged files hold
// nothing that is not there already.
func (u *Uploader) adrift(key string, err error) {
	level, _, _, parsed := store.ParseLTXKey(key)
	if parsed != nil || level != 0 && level != store.SnapshotLevel {
		return
	}
	unsent := store.Unsent(nil)
	answered := err == nil || errors.As(err, &unsent)
	for _, refusal := range []error{lease.ErrFenced, store.ErrAuth, store.ErrMisplaced, fs.ErrNotExist} {
		answered = answered || errors.Is(err, refusal)
	}
	u.lease.Uploads.Note(level == store.SnapshotLevel, !answered)
}

// CreateMerged is Create for a file that replaces others once it was read back, which
// whoever calls it does, and tells the journal.
func (u *Uploader) CreateMerged(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (store.Object, error) {
	if err := u.journal.Sent(custody.Unread{Key: key}); err != nil {
		return store.Object{}, err
	}
	list := u.listed(key, &body)
	defer list.Discard()
	object, err := u.Create(ctx, key, body, metadata)
	if err == nil {
		u.storeSums(ctx, key, list)
	}
	return object, err
}

func (u *Uploader) put(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (store.Object, error) {
	if u.lease.Guard() == lease.GuardNone {
		return u.putUnguarded(ctx, key, body, metadata)
	}
	object, err := u.store.Put(ctx, key, body, store.PutOptions{Create: true, Metadata: metadata})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return u.putUnguarded(ctx, key, body, metadata)
	case errors.Is(err, store.ErrExists):
		return u.compare(ctx, key, body, metadata, store.Object{})
	}
	return object, err
}

// putUnguarded looks before and after a write that nothing refuses.
func (u *Uploader) putUnguarded(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (store.Object, error) {
	existing, err := u.compare(ctx, key, body, metadata, store.Object{})
	if !errors.Is(err, store.ErrNotFound) {
		return existing, err
	}
	object, err := u.store.Put(ctx, key, body, store.PutOptions{Metadata: metadata})
	if err != nil {
		return object, err
	}
	return u.compare(ctx, key, body, metadata, object)
}

// compare returns the object under key if it is what we stored, or would store there.
func (u *Uploader) compare(
	ctx context.Context, key string, body store.Body, metadata map[string]string, stored store.Object,
) (store.Object, error) {
	_, object, err := u.store.Get(ctx, key, 0, 0)
	if err != nil {
		return store.Object{}, err
	}
	sameObject := stored.ETag != "" && object.ETag == stored.ETag
	sameBytes := body.SHA256 != "" && object.Size == body.Size && object.Metadata[store.MetaSHA256] == body.SHA256
	// Written by an earlier version, the same batch may be other bytes.
	sameState := true
	for _, k := range []string{store.MetaLineage, store.MetaChecksum, store.MetaTimestamp} {
		sameState = sameState && metadata[k] != "" && object.Metadata[k] == metadata[k]
	}
	if sameObject || sameBytes || sameState {
		return object, nil
	}
	u.lease.Drop()
	return store.Object{}, fmt.Errorf("%w: %s holds other bytes than ours; both histories can be restored; give each "+
		"writer a prefix of its own",
		lease.ErrFenced, key)
}
