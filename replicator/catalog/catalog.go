// Package catalog finds out what a replica holds: which states can be restored, from which
// files, and where the replica ends. A replica may have 10^6 objects; a query costs O(log n)
// requests.
package catalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// listWindow is how many keys are read from a level at a time: as many as S3 returns for one
// request.
const listWindow = 1000

// catalog reads only the needed parts of a replica's listing. Keys sort by min TXID, so a LIST
// that starts after a made-up key is a seek; together with timestamps that rise with the TXID,
// this is all that a plan over 10^6 objects needs. A catalog serves one plan, and caches the
// times that it has read.
type catalog struct {
	store    store.Store
	excluded map[string]bool // objects found to be corrupt
	times    map[string]taking
}

func newCatalog(st store.Store, excluded map[string]bool) *catalog {
	return &catalog{store: st, excluded: excluded, times: make(map[string]taking)}
}

// keyWindow is a run of consecutive files of a level. complete means that the level ends with
// it.
type keyWindow struct {
	files    []store.LTXFile
	complete bool
}

func (w keyWindow) last() store.LTXFile { return w.files[len(w.files)-1] }

// after lists up to a window of the level's files whose keys sort after `after`.
func (c *catalog) after(ctx context.Context, level int, after string) (keyWindow, error) {
	w := keyWindow{complete: true}
	seen := 0
	for obj, err := range c.store.List(ctx, store.LevelPrefix(level), after) {
		if err != nil {
			return keyWindow{}, fmt.Errorf("list level %d of the replica: %w", level, err)
		}
		if f, ok := c.file(obj); ok {
			w.files = append(w.files, f)
		}
		if seen++; seen >= listWindow {
			w.complete = false
			// A window without any LTX file means that another program stores objects here too: read on.
			if len(w.files) > 0 {
				break
			}
		}
	}
	return w, nil
}

// file parses an object's key. It ignores excluded objects and keys that name no LTX file.
func (c *catalog) file(obj store.Object) (store.LTXFile, bool) {
	level, min, max, err := store.ParseLTXKey(obj.Key)
	if err != nil || c.excluded[obj.Key] {
		return store.LTXFile{}, false
	}
	return store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: obj}, true
}

// from lists up to a window of the level's files whose min TXID is at least min.
func (c *catalog) from(ctx context.Context, level int, min ltx.TXID) (keyWindow, error) {
	after := ""
	if min > 1 {
		after = store.LTXKey(level, min-1, math.MaxUint64)
	}
	return c.after(ctx, level, after)
}

// around lists a window that begins at or before the file that holds txid, if
// the level has one: the listing only goes forward, so it steps back in growing
// strides until it stands at or before txid.
func (c *catalog) around(ctx context.Context, level int, txid ltx.TXID) (keyWindow, error) {
	for stride := ltx.TXID(listWindow - 1); ; stride *= 32 {
		start := ltx.TXID(1)
		if txid > stride && stride < 1<<58 {
			start = txid - stride
		}
		w, err := c.from(ctx, level, start)
		if err != nil || start == 1 || len(w.files) > 0 && w.files[0].MinTXID <= txid {
			return w, err
		}
	}
}

// levels returns the levels below SnapshotLevel that hold anything, highest first.
func (c *catalog) levels(ctx context.Context) ([]int, error) {
	var levels []int
	for level := 0; level < store.SnapshotLevel; {
		next := store.SnapshotLevel
		for obj, err := range c.store.List(ctx, "000", store.LevelPrefix(level)) {
			if err != nil {
				return nil, fmt.Errorf("list the replica: %w", err)
			}
			if l, _, _, err := store.ParseLTXKey(obj.Key); err == nil && l >= level {
				next = l
				break
			}
		}
		if next < store.SnapshotLevel {
			levels = append(levels, next)
		}
		level = next + 1
	}
	slices.Reverse(levels)
	return levels, nil
}

// snapshots returns every snapshot, of whatever level, by ascending max TXID.
func (c *catalog) snapshots(ctx context.Context, levels []int) ([]store.LTXFile, error) {
	var all []store.LTXFile
	for _, level := range append([]int{store.SnapshotLevel}, levels...) {
		for obj, err := range c.store.List(ctx, store.LevelPrefix(level)+ltx.TXID(1).String()+"-", "") {
			if err != nil {
				return nil, fmt.Errorf("list snapshots: %w", err)
			}
			if f, ok := c.file(obj); ok {
				all = append(all, f)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b store.LTXFile) int {
		switch {
		case a.MaxTXID < b.MaxTXID:
			return -1
		case a.MaxTXID > b.MaxTXID:
			return 1
		}
		return a.Level - b.Level
	})
	return all, nil
}

// search finds the last file of a level, from w on, for which holds is true. holds must be
// true up to some file and false from there on. found is the window that has that file at
// index i, or no files if there is none; next is the file after it.
func (c *catalog) search(ctx context.Context, level int, w keyWindow,
	holds func(store.LTXFile) (bool, error)) (found keyWindow, i int, next *store.LTXFile, err error) {
	if len(w.files) == 0 {
		return keyWindow{}, 0, nil, nil
	}
	if ok, err := holds(w.files[0]); err != nil || !ok {
		return keyWindow{}, 0, &w.files[0], err
	}
	bound, stride := ltx.TXID(0), ltx.TXID(listWindow) // a min TXID from which on nothing holds, once known
	for !w.complete {
		ok, err := holds(w.last())
		if err != nil {
			return keyWindow{}, 0, nil, err
		}
		if !ok {
			break
		}
		probe, at := nextProbe(w.last().MinTXID, bound, stride)
		stride *= 4
		ahead, err := c.from(ctx, level, probe)
		if err != nil {
			return keyWindow{}, 0, nil, err
		}
		ok = false
		if len(ahead.files) > 0 {
			if ok, err = holds(ahead.files[0]); err != nil {
				return keyWindow{}, 0, nil, err
			}
		}
		switch {
		case ok:
			w = ahead
		case at: // nothing is between the window and ahead
			if len(ahead.files) > 0 {
				next = &ahead.files[0]
			}
			return w, len(w.files) - 1, next, nil
		default:
			bound = probe
		}
	}
	n := sort.Search(len(w.files), func(k int) bool {
		if err != nil {
			return false
		}
		ok, herr := holds(w.files[k])
		err = herr
		return !ok
	})
	if err != nil {
		return keyWindow{}, 0, nil, err
	}
	if n < len(w.files) {
		next = &w.files[n]
	}
	return w, n - 1, next, nil
}

// nextProbe chooses where to look next after `last`: in growing strides while there is no
// bound, then half way to it. at is true if probe is last+1, so that nothing is in between.
func nextProbe(last, bound, stride ltx.TXID) (probe ltx.TXID, at bool) {
	switch {
	case bound == 0 && stride != 0 && last <= math.MaxUint64-stride:
		probe = last + stride
	case bound == 0:
		probe = math.MaxUint64
	default:
		probe = last + (bound-last)/2
	}
	if probe <= last+1 {
		return last + 1, true
	}
	return probe, false
}

// end returns a file that ends at the highest TXID that a level reaches, searching from txid
// on; it has no key if the level is empty.
func (c *catalog) end(ctx context.Context, level int, txid ltx.TXID) (end store.LTXFile, err error) {
	w, err := c.around(ctx, level, txid)
	if err != nil {
		return end, err
	}
	w, _, _, err = c.search(ctx, level, w, func(store.LTXFile) (bool, error) { return true, nil })
	for _, f := range w.files {
		if f.MaxTXID > end.MaxTXID {
			end = f
		}
	}
	return end, err
}

// taking is when the newest batch of a file was taken.
type taking struct {
	at    time.Time // rises with the TXID
	stamp moment.Stamp
	notes map[string]string // the file's metadata
}

// taken returns when the newest batch in f was taken: from the metadata, or in replicas of
// Litestream from the file's header.
func (c *catalog) taken(ctx context.Context, f store.LTXFile) (time.Time, moment.Stamp, error) {
	if t, ok := store.MetadataTime(f.Object.Metadata); ok {
		return t, moment.Of(f.Object.Metadata), nil
	}
	if t, ok := c.times[f.Object.Key]; ok {
		return t.at, t.stamp, nil
	}
	obj, head, err := readRange(ctx, c.store, f.Object.Key, 0, ltx.HeaderSize)
	if err != nil {
		return time.Time{}, moment.Stamp{}, fmt.Errorf("read the time of %s: %w", f.Object.Key, err)
	}
	t, ok := store.MetadataTime(obj.Metadata)
	if !ok {
		if len(head) < ltx.HeaderSize || string(head[:4]) != ltx.Magic {
			return t, moment.Stamp{}, &store.CorruptError{Key: f.Object.Key,
				Err: errors.New("it does not begin with an ltx header")}
		}
		t = time.UnixMilli(int64(binary.BigEndian.Uint64(head[32:]))).UTC()
	}
	stamp := moment.Of(obj.Metadata)
	c.times[f.Object.Key] = taking{t, stamp, obj.Metadata}
	return t, stamp, nil
}

// follows returns the TXID up to which the replica had files when the snapshot s began a chain
// behind them, and whether s tells it: see store.MetaAfter.
func (c *catalog) follows(ctx context.Context, s store.LTXFile) (after ltx.TXID, told bool, err error) {
	notes := s.Object.Metadata
	if notes == nil {
		if _, _, err := c.taken(ctx, s); err != nil {
			return 0, false, store.Unreadable(ctx, s.Object.Key, 1, err)
		}
		notes = c.times[s.Object.Key].notes
	}
	after, err = ltx.ParseTXID(notes[store.MetaAfter])
	return after, err == nil && 0 < after && after < s.MaxTXID, nil
}

// time returns the timestamp of the newest batch in f, which rises with the TXID.
func (c *catalog) time(ctx context.Context, f store.LTXFile) (time.Time, error) {
	t, stamp, err := c.taken(ctx, f)
	return finer(t, stamp), err
}

// finer returns the timestamp at with the fraction of a millisecond that a file has no room for,
// if the clock stamp has it: at a moment before that the batch was not taken yet.
func finer(at time.Time, stamp moment.Stamp) time.Time {
	if d := stamp.Time.Sub(at); d > 0 && d < time.Millisecond {
		return stamp.Time
	}
	return at
}

// clock returns what the clock showed when the newest batch in f was taken.
func (c *catalog) clock(ctx context.Context, f store.LTXFile) (time.Time, error) {
	t, stamp, err := c.taken(ctx, f)
	return shown(t, stamp), err
}

// shown returns what the clock showed if that is known, otherwise at.
func shown(at time.Time, stamp moment.Stamp) time.Time {
	if stamp.Time.IsZero() {
		return at
	}
	return stamp.Time
}

// readRange reads a small range of an object into memory.
func readRange(ctx context.Context, st store.Store, key string, offset, length int64) (store.Object, []byte, error) {
	r, obj, err := st.Get(ctx, key, offset, length)
	if err != nil {
		return store.Object{}, nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, length))
	return obj, data, err
}

// Snapshots returns every snapshot of a replica by ascending TXID, and what the clock
// showed when each was taken.
func Snapshots(ctx context.Context, st store.Store) ([]store.LTXFile, []time.Time, error) {
	c := newCatalog(st, nil)
	levels, err := c.levels(ctx)
	if err != nil {
		return nil, nil, err
	}
	files, err := c.snapshots(ctx, levels)
	if err != nil {
		return nil, nil, err
	}
	times := make([]time.Time, len(files))
	for i, f := range files {
		if times[i], err = c.clock(ctx, f); err != nil {
			return nil, nil, err
		}
	}
	return files, times, nil
}

// Files yields every LTX file of a replica in the order of keys: by level, then by TXID. The
// objects have metadata only if the listing comes with it.
func Files(ctx context.Context, st store.Store) iter.Seq2[store.LTXFile, error] {
	return func(yield func(store.LTXFile, error) bool) {
		c := newCatalog(st, nil)
		for obj, err := range st.List(ctx, "000", "") {
			if err != nil {
				yield(store.LTXFile{}, fmt.Errorf("list the replica: %w", err))
				return
			}
			if f, ok := c.file(obj); ok && !yield(f, nil) {
				return
			}
		}
	}
}
