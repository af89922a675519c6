// Package upload stores files under keys that must not exist yet, and detects another writer's
// files there.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Uploader stores files in a replica. The caller holds the lease.
type Uploader struct {
	store   store.Store
	lease   *lease.Lease
	journal *custody.StateFile // lists objects that were not read back yet
	scratch string             // for temporary files
	log     *slog.Logger
	clock   func() time.Time
	sending sync.Map     // keys of snapshots and merged files being uploaded
	bytes   atomic.Int64 // stored so far
}

// New returns an uploader into st; scratch is for temporary files.
func New(
	st store.Store, l *lease.Lease, journal *custody.StateFile, scratch string, log *slog.Logger, clock func() time.Time,
) *Uploader {
	return &Uploader{store: st, lease: l, journal: journal, scratch: scratch, log: log, clock: clock}
}

// Bytes returns how much was stored so far.
func (u *Uploader) Bytes() int64 { return u.bytes.Load() }

// Create stores an object under a new key. If the key exists, Create compares the objects: our
// own earlier attempt, whose reply was lost, is a success; anything else is another writer's,
// and Create drops the lease and returns lease.ErrFenced.
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

// adrift tells the lease whether an upload that ended with err may still reach the store. Merged
// files do not matter: they hold nothing new.
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

// CreateMerged is Create for a file that replaces others. The caller reads it back and then
// tells the journal.
func (u *Uploader) CreateMerged(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (store.Object, error) {
	u.sending.Store(key, true)
	defer u.sending.Delete(key)
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

// putUnguarded writes without a condition, and checks before and after what is under the key.
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
	// The same batch may have other bytes if an earlier version wrote it.
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
