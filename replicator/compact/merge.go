package compact

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// merge merges w into one file: it reads the inputs, stores the output, reads it back and
// decodes it. Only after that may the inputs be deleted.
func (c *Compactor) merge(ctx context.Context, w catalog.Window) (store.LTXFile, error) {
	m, notes, local, err := c.combine(ctx, w)
	if err != nil && local {
		for _, f := range w.Inputs { // a local copy may be corrupt: read the store instead
			c.kept.remove(f.Object.Key)
		}
		m, notes, _, err = c.combine(ctx, w)
	}
	if err != nil {
		return store.LTXFile{}, c.blame(ctx, w.Inputs, err)
	}
	defer m.Discard()
	key := store.LTXKey(w.Level, m.Min, m.Max)
	object, err := c.o.Create(ctx, key, m.Body, notes)
	if err != nil {
		return store.LTXFile{}, err
	}
	f := store.LTXFile{Level: w.Level, MinTXID: m.Min, MaxTXID: m.Max, Object: object}
	err = c.readBack(ctx, f, m)
	if errors.Is(err, store.ErrCorrupt) || err != nil && ctx.Err() == nil && c.again(key) {
		err = c.discard(ctx, f, m)
	}
	if err != nil {
		return store.LTXFile{}, fmt.Errorf("read %s back: %w", key, err)
	}
	c.o.ReadBack(key)
	c.Keep(f, m.Path(), notes)
	return f, nil
}

// combine merges the inputs of w into a temporary file and returns it with its metadata. It
// reads inputs from this machine if it has them, and else from the store; local reports
// whether it had any.
func (c *Compactor) combine(ctx context.Context, w catalog.Window) (
	m *merge.Merged, notes map[string]string, local bool, err error,
) {
	inputs := make([]io.Reader, len(w.Inputs))
	var metadata map[string]string // of the last input
	var first moment.Stamp
	for i, f := range w.Inputs {
		var body io.ReadCloser
		if kept, known := c.kept.open(f.Object.Key); kept != nil {
			body, metadata, local = kept, known, true
		} else {
			var object store.Object
			if body, object, err = c.o.Store.Get(ctx, f.Object.Key, 0, -1); err != nil {
				return nil, nil, local, err
			}
			metadata = object.Metadata
		}
		defer body.Close()
		if inputs[i] = restore.Bounded(f, body); i == 0 {
			first = moment.Of(metadata)
		}
	}
	m, err = merge.Files(ctx, c.o.Scratch, fmt.Sprintf("compact-%d", w.Level), inputs)
	if err != nil {
		return nil, nil, local, err
	}
	return m, merge.Notes(first, metadata, m.Body.SHA256), local, nil
}

// again counts that an object could not be read, and reports whether it has failed maxTries times.
func (c *Compactor) again(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries[key]++
	if c.tries[key] < maxTries {
		return false
	}
	delete(c.tries, key)
	return true
}

// discard reads a merged file again and deletes it if it is still corrupt or unreadable, so that
// the next attempt can store it under its key. Nothing is lost: all inputs were read just now,
// and none is deleted before its output was read back.
func (c *Compactor) discard(ctx context.Context, f store.LTXFile, m *merge.Merged) error {
	err := c.readBack(ctx, f, m)
	if err == nil {
		return nil
	}
	c.o.Logger.Error("a compacted file cannot be read back: deleting it, to make it again of its inputs, which are whole",
		"key", f.Object.Key, "err", err)
	if held := c.o.Hold(ctx); held != nil {
		return errors.Join(err, held)
	}
	return errors.Join(err, c.o.Store.Delete(ctx, f.Object.Key))
}

// readBack decodes the stored file and compares its bytes with m's.
func (c *Compactor) readBack(ctx context.Context, f store.LTXFile, m *merge.Merged) error {
	sum, err := restore.VerifyObject(ctx, c.o.Store, f)
	if err == nil && sum != m.Body.SHA256 {
		err = fmt.Errorf("%w: its sha256 is %s, not %s", store.ErrCorrupt, sum, m.Body.SHA256)
	}
	return err
}

// lostError says that an input of a compaction is gone or corrupt.
type lostError struct {
	file store.LTXFile
	err  error
}

func (e *lostError) Error() string {
	return e.file.Object.Key + " is gone or corrupt: " + e.err.Error()
}
func (e *lostError) Unwrap() error { return e.err }

// maxTries is how often an object is tried that cannot be read while others can.
const maxTries = 5

// blame reads the inputs again, one by one, after merging them failed with err. An input that
// is gone, or still corrupt, is lost; so is one that cannot be read maxTries times while the
// store returns others.
func (c *Compactor) blame(ctx context.Context, inputs []store.LTXFile, err error) error {
	var refused []store.LTXFile
	var why error
	for _, f := range inputs {
		_, again := restore.VerifyObject(ctx, c.o.Store, f)
		switch {
		case errors.Is(again, store.ErrNotFound), errors.Is(again, store.ErrCorrupt):
			return &lostError{f, again}
		case ctx.Err() != nil:
			return ctx.Err()
		case again != nil:
			refused, why = append(refused, f), again
		}
	}
	if len(refused) == 0 {
		return err
	}
	if len(refused) == len(inputs) {
		return why // the store is at fault, not an object
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range refused {
		if c.tries[f.Object.Key]++; c.tries[f.Object.Key] >= maxTries {
			return &lostError{f, &store.UnreadableError{Key: f.Object.Key, Tries: maxTries, Err: why}}
		}
	}
	return why
}
