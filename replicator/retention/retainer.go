package retention

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// first is how long after the start a replica is first examined: not at once, because a hundred
// databases may be starting, but soon enough even if sqlwatch never runs for an hour.
const first = 10 * time.Minute

// Found is what a listing of a whole replica found.
type Found struct {
	Bytes          int64
	Oldest, Newest time.Time // upload times of the oldest and newest snapshot
}

// RetainerOptions configure a Retainer. All are required.
type RetainerOptions struct {
	Options
	Store     store.Store
	Hold      func(context.Context) error          // returns nil while we hold the lease
	Protected func() map[string]bool               // keys that are never deleted
	Useless   func() []string                      // keys of files that are known to be corrupt or unreadable
	Spared    func(ltx.TXID, time.Time) bool       // belongs to a predecessor lineage that is still kept
	Found     func(Found)                          // called with the result of each listing
	Deleted   func(asked func(store.LTXFile) bool) // called after a deletion, with all it was asked for: see retain
	Logger    *slog.Logger
	Clock     func() time.Time
}

// Retainer regularly deletes files that no promised restore needs. One goroutine at a time uses it.
type Retainer struct {
	o      RetainerOptions
	ledger Ledger

	useless []string  // see RetainerOptions.Useless
	next    time.Time // when to list the replica again
	failed  error     // see Refused
}

// NewRetainer returns a Retainer that first lists the replica some time from now.
func NewRetainer(o RetainerOptions) *Retainer { return &Retainer{o: o, next: o.Clock().Add(first)} }

// Due runs retention if it is due, and returns when it is next due: files grow old on an idle
// replica too.
func (r *Retainer) Due(ctx context.Context) (time.Time, error) {
	if r.o.Clock().Before(r.next) {
		return r.next, nil
	}
	// set it even if this run fails: a refused deletion must not cost a listing every few seconds
	r.next = r.o.Clock().Add(max(Often, r.o.Grace))
	if r.failed = r.retain(ctx); r.failed != nil {
		return time.Time{}, fmt.Errorf("retention: %w", r.failed)
	}
	store.Sweep(ctx, r.o.Store, r.o.Clock(), r.o.Logger)
	if !r.ledger.Waits() {
		r.next = r.o.Clock().Add(r.o.Period())
	}
	return r.next, nil
}

// Refused returns why the last attempt deleted less than it should have, unless that was passing trouble of the store:
// until the next attempt nothing will have changed.
func (r *Retainer) Refused() error {
	var apart *ClockError
	var refused *store.DeleteError
	if errors.As(r.failed, &apart) || errors.As(r.failed, &refused) || errors.Is(r.failed, store.ErrAuth) {
		return r.failed
	}
	return nil
}

// retain lists the replica and deletes files that have been unneeded for the grace period, by a
// clock that the store's agrees with.
func (r *Retainer) retain(ctx context.Context) error {
	now := r.o.Clock()
	r.useless = r.o.Useless()
	files, total, err := r.listOld(ctx, now)
	if err != nil {
		return err
	}
	unneeded := slices.DeleteFunc(catalog.Unneeded(files, r.o.Keep, r.o.Thin, now, r.o.Protected()),
		func(f catalog.Dated) bool { return r.o.Spared(f.MaxTXID, now) })
	asked := r.ledger.Due(unneeded, total, r.o.Grace, now)
	if len(asked) == 0 {
		return nil
	}
	stores, err := r.storeTime(ctx)
	if err == nil {
		_, err = Now(r.o.Clock(), stores)
	}
	if err == nil {
		err = r.o.Hold(ctx)
	}
	if err != nil {
		return err
	}
	err = r.o.Store.Delete(ctx, withSums(asked)...)
	gone, left := split(asked, err)
	r.ledger.Deleted(gone, false)
	r.ledger.Deleted(left, true)
	// Those left too: nobody needs them, and after a request without an answer they may be gone.
	r.o.Deleted(func(f store.LTXFile) bool { return slices.Contains(asked, f.Object.Key) })
	if err != nil {
		return fmt.Errorf("%w; what could be deleted is", err)
	}
	r.o.Logger.Info("retention removed files", "files", len(gone))
	return nil
}

// split returns the keys that a Delete with this result has deleted, and those that may still be there.
func split(keys []string, err error) (gone, left []string) {
	refused := (*store.DeleteError)(nil)
	switch {
	case err == nil:
		return keys, nil
	case !errors.As(err, &refused):
		return nil, keys
	}
	for _, key := range keys {
		if refused.Has(key) {
			left = append(left, key)
		} else {
			gone = append(gone, key)
		}
	}
	return gone, left
}

// withSums adds the lists of page checksums beside the files. They come last, since they are
// useless without their files.
func withSums(keys []string) []string {
	all := slices.Clone(keys)
	for _, key := range keys {
		level, min, max, err := store.ParseLTXKey(key)
		if err != nil {
			continue
		}
		if sums, kept := store.SumsKey(level, min, max); kept {
			all = append(all, sums)
		}
	}
	return all
}

// storeTime returns what the store's clock shows, by writing a small object and reading its
// modification time; zero if the store does not tell.
func (r *Retainer) storeTime(ctx context.Context) (time.Time, error) {
	const key = "sqlwatch/clock"
	body := store.Body{Size: 1, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("\n")), nil }}
	if _, err := r.o.Store.Put(ctx, key, body, store.PutOptions{}); err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	_, object, err := r.o.Store.Get(ctx, key, 0, 0)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	return object.Modified, nil
}

// listOld returns the files that may be unneeded and the number of all files, and reports what
// the replica holds to Found.
func (r *Retainer) listOld(ctx context.Context, now time.Time) (old []catalog.Dated, total int, err error) {
	var snapshots []catalog.Dated
	var found Found
	for f, err := range r.list(ctx, store.LevelPrefix(store.SnapshotLevel)) {
		if err != nil {
			return nil, 0, err
		}
		snapshots = append(snapshots, f)
		if found.Oldest.IsZero() || f.At.Before(found.Oldest) {
			found.Oldest = f.At
		}
		if f.At.After(found.Newest) {
			found.Newest = f.At
		}
	}
	wanted := catalog.Sift(snapshots, r.o.Keep, r.o.Thin, now)
	for f, err := range r.list(ctx, "0") {
		if err != nil {
			return nil, 0, err
		}
		found.Bytes += f.Object.Size
		total++
		if wanted(f) {
			old = append(old, f)
		}
	}
	r.o.Found(found)
	return old, total, nil
}

// list lists the files whose key has the prefix. Their time is that of the upload by the
// store's clock: it is never earlier than the newest batch, so that no file seems older than it
// is, and it does not depend on a host's clock, which may have been ahead.
func (r *Retainer) list(ctx context.Context, prefix string) iter.Seq2[catalog.Dated, error] {
	return func(yield func(catalog.Dated, error) bool) {
		for object, err := range r.o.Store.List(ctx, prefix, "") {
			if err != nil {
				yield(catalog.Dated{}, err)
				return
			}
			level, min, max, err := store.ParseLTXKey(object.Key)
			if err != nil {
				continue
			}
			f := catalog.Dated{LTXFile: store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object},
				At: object.Modified, Useless: slices.Contains(r.useless, object.Key)}
			f.At, f.Object.Metadata = catalog.Past(r.o.Clock(), f.At, f.LTXFile), nil
			if !yield(f, nil) {
				return
			}
		}
	}
}
