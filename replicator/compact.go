package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// compactionIntervals are the windows of levels 1, 2 and 3. Windows begin at
// multiples of the interval since year 1, on every machine the same.
var compactionIntervals = []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour}

// compact makes one file of w: reads the inputs, stores the output, reads it
// back and decodes it. Only then may the inputs ever be deleted.
func (p *replica) compact(ctx context.Context, w catalog.Window) (store.LTXFile, error) {
	inputs := make([]io.Reader, len(w.Inputs))
	var metadata map[string]string // of the last input
	var first moment.Stamp
	for i, f := range w.Inputs {
		body, object, err := p.store.Get(ctx, f.Object.Key, 0, -1)
		if err != nil {
			return store.LTXFile{}, fmt.Errorf("compact level %d: %w", w.Level, p.blame(ctx, w.Inputs, err))
		}
		defer body.Close()
		if inputs[i], metadata = restore.Bounded(f, body), object.Metadata; i == 0 {
			first = moment.Of(metadata)
		}
	}
	m, err := merge.Files(ctx, p.scratch, fmt.Sprintf("compact-%d", w.Level), inputs)
	if err != nil {
		return store.LTXFile{}, fmt.Errorf("compact level %d: %w", w.Level, p.blame(ctx, w.Inputs, err))
	}
	defer m.Discard()
	key := store.LTXKey(w.Level, m.Min, m.Max)
	object, err := p.create(ctx, key, m.Body, merge.Notes(first, metadata, m.Body.SHA256))
	if err != nil {
		return store.LTXFile{}, fmt.Errorf("compact level %d: %w", w.Level, err)
	}
	f := store.LTXFile{Level: w.Level, MinTXID: m.Min, MaxTXID: m.Max, Object: object}
	err = p.readBack(ctx, f, m)
	if errors.Is(err, store.ErrDamaged) {
		err = p.discard(ctx, f, m)
	}
	if err != nil {
		return store.LTXFile{}, fmt.Errorf("compact level %d: read %s back: %w", w.Level, key, err)
	}
	return f, nil
}

// discard deletes a compacted file that is damaged at the second reading too, so that
// the next attempt can store it under its key. Nothing is lost: all inputs were read
// just now, and none is deleted before its output was read back.
func (p *replica) discard(ctx context.Context, f store.LTXFile, m *merge.Merged) error {
	err := p.readBack(ctx, f, m)
	if !errors.Is(err, store.ErrDamaged) {
		return err
	}
	p.log.Error("a compacted file came back damaged: deleting it, to make it again of its inputs, which are whole", "key", f.Object.Key, "err", err)
	if held := p.lease.Hold(ctx); held != nil {
		return errors.Join(err, held)
	}
	return errors.Join(err, p.store.Delete(ctx, f.Object.Key))
}

// readBack decodes the stored file and compares its bytes with what was made.
func (p *replica) readBack(ctx context.Context, f store.LTXFile, m *merge.Merged) error {
	sum, err := restore.VerifyObject(ctx, p.store, f)
	if err == nil && sum != m.Body.SHA256 {
		err = fmt.Errorf("%w: its sha256 is %s, not %s", store.ErrDamaged, sum, m.Body.SHA256)
	}
	return err
}

// lostError says that an input of a compaction is gone or damaged.
type lostError struct {
	file store.LTXFile
	err  error
}

func (e *lostError) Error() string {
	return e.file.Object.Key + " is gone or damaged: " + e.err.Error()
}
func (e *lostError) Unwrap() error { return e.err }

// blame reads inputs again, one by one, after compacting them failed with err: one
// that is gone or damaged at the second reading too is lost.
func (p *replica) blame(ctx context.Context, inputs []store.LTXFile, err error) error {
	for _, f := range inputs {
		_, again := restore.VerifyObject(ctx, p.store, f)
		if errors.Is(again, store.ErrNotFound) || errors.Is(again, store.ErrDamaged) {
			return &lostError{f, again}
		}
		if again != nil {
			return again
		}
	}
	return err
}
