// Package compact merges a replica's small files into larger ones, level by level, so that a
// restore reads few. It reads each output back before retention may delete the
// inputs.
package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// intervals are the windows of levels 1 to 5. Windows begin at multiples of the interval since
// year 1, the same on every machine. Files of the last two levels hold the changes of a day and
// of a week, in place of another copy of the whole database.
var intervals = []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// Levels is the number of levels; days is the first level whose files a newer snapshot makes
// superfluous.
const (
	Levels = 5
	days   = 4
)

// Intervals returns the windows of the levels, level 1 first.
func Intervals() []time.Duration { return slices.Clone(intervals) }

// maxRecent is how many files may wait to be merged.
const maxRecent = 1 << 14

// Options of a compactor. All but Turn, Name and Local are required.
type Options struct {
	Store  store.Store
	Create func(context.Context, string, store.Body, map[string]string) (store.Object, error) // stores a new object
	// called with an output that was read back
	ReadBack func(key string)
	Hold     func(context.Context) error // returns nil while we hold the lease
	Scratch  string                      // for temporary files
	Slack    time.Duration               // how long after a window's end its last commits may be uploaded
	Turn     float64                     // see after
	// the replica's, as part of file names
	Name   string
	Local  int64 // bytes of uploaded files that may be kept here for merging; 0: none
	Clock  func() time.Time
	Logger *slog.Logger
}

// Compactor merges the files of one replica. One goroutine calls Run; others call Add, Keep and
// Forget.
type Compactor struct {
	o    Options
	kept kept

	mu     sync.Mutex               // guards what follows; never held across a request; taken before kept.mu
	recent []store.LTXFile          // files that may still be merged
	times  map[string]time.Time     // of their newest batches, by key
	done   map[int]ltx.TXID         // by level: compacted up to here
	tries  map[string]int           // by key: how often an object could not be read while others could
	lost   map[string]store.LTXFile // lost files, which are not read again
}

// New returns a compactor without files.
func New(o Options) *Compactor {
	return &Compactor{
		o: o, kept: kept{dir: o.Scratch, name: o.Name, limit: o.Local}, times: map[string]time.Time{},
		done:  map[int]ltx.TXID{},
		tries: map[string]int{}, lost: map[string]store.LTXFile{},
	}
}

// Load finds the files that were not merged yet, given how far each level reaches and the TXID
// of the newest snapshot, before which days and weeks are not merged.
func (c *Compactor) Load(ctx context.Context, levels map[int]ltx.TXID, base ltx.TXID) error {
	done := map[int]ltx.TXID{}
	for level := Levels; level >= 1; level-- {
		done[level] = max(levels[level], done[level+1])
	}
	hours := done[days-1] // the levels below are listed only from here on
	done[Levels] = max(done[Levels], base)
	done[days] = max(done[days], base)
	var found []store.LTXFile
	for level := range Levels {
		// Listing a day of small files takes many pages. Files that no window merged stay as they are.
		from := hours
		if level >= days-1 {
			from = done[level+1]
		}
		after := store.LTXKey(level, from, math.MaxUint64)
		for object, err := range c.o.Store.List(ctx, store.LevelPrefix(level), after) {
			if err != nil {
				return err
			}
			if l, min, max, err := store.ParseLTXKey(object.Key); err == nil && min > 1 {
				found = append(found, store.LTXFile{Level: l, MinTXID: min, MaxTXID: max, Object: object})
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done, c.recent = done, nil
	clear(c.times)
	for _, f := range found {
		c.remember(f)
	}
	return nil
}

// Add adds a stored file whose newest batch was taken at the given time. It returns when the
// level 1 window that the file belongs to is due.
func (c *Compactor) Add(f store.LTXFile, at time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[f.Object.Key] = at
	c.remember(f)
	return c.o.after(c.when(f).Truncate(intervals[0]).Add(intervals[0]), intervals[0])
}

// Keep links path, the local file that was stored as f with that metadata, so that merging f
// need not read the store. path must not be changed afterwards.
func (c *Compactor) Keep(f store.LTXFile, path string, metadata map[string]string) {
	c.kept.add(f.Object.Key, path, f.Object.Size, metadata)
}

// Forget drops the files for which gone is true, because they were deleted.
func (c *Compactor) Forget(gone func(store.LTXFile) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(gone)
}

// forgetLocked is Forget under mu.
func (c *Compactor) forgetLocked(gone func(store.LTXFile) bool) {
	c.recent = slices.DeleteFunc(c.recent, func(f store.LTXFile) bool {
		if !gone(f) {
			return false
		}
		delete(c.times, f.Object.Key)
		delete(c.tries, f.Object.Key)
		c.kept.remove(f.Object.Key)
		return true
	})
}

// remember adds f to the files to merge. If compaction fails for hours, it drops the oldest
// ones: they stay unmerged, and restores read more files.
func (c *Compactor) remember(f store.LTXFile) {
	if _, lost := c.lost[f.Object.Key]; lost {
		return
	}
	if len(c.recent) == maxRecent {
		for _, old := range c.recent[:maxRecent/2] {
			delete(c.times, old.Object.Key)
			c.kept.remove(old.Object.Key)
		}
		c.recent = slices.Delete(c.recent, 0, maxRecent/2)
	}
	c.recent = append(c.recent, f)
}

// after returns when a window that ends at end is due: a little later, because its last commits
// may still be uploaded, and because not all replicas should begin at once. Turn, from 0 to 1,
// spreads them.
func (o Options) after(end time.Time, interval time.Duration) time.Time {
	return end.Add(o.Slack + time.Duration(o.Turn*float64(min(interval/2, 5*time.Minute))))
}

// Report is what one run did.
type Report struct {
	Due   time.Time       // when there is more to do; zero: not before another file is added
	Bytes int64           // bytes stored
	Lost  []store.LTXFile // inputs that are gone or cannot be read, and with them some restore points
	// keys of all inputs that are gone or cannot be read, those included whose own inputs took their place
	Useless []string
}

// Run merges every window that is over.
func (c *Compactor) Run(ctx context.Context) (r Report, err error) {
	for i, interval := range intervals {
		err = errors.Join(err, c.level(ctx, &r, i+1, interval))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.done[Levels]
	for _, other := range c.done {
		done = min(done, other)
	}
	c.forgetLocked(func(f store.LTXFile) bool { return f.MaxTXID <= done })
	return r, err
}

func (c *Compactor) level(ctx context.Context, r *Report, level int, interval time.Duration) error {
	for {
		w := c.next(level, interval)
		switch {
		case len(w.Inputs) > 0:
			if err := c.window(ctx, r, w); err != nil {
				return err
			}
		case w.Due.IsZero():
			return nil
		default:
			if due := c.o.after(w.Due, interval); r.Due.IsZero() || due.Before(r.Due) {
				r.Due = due
			}
			return nil
		}
	}
}

// next returns the next window of a level to merge, and skips windows that need no merge.
func (c *Compactor) next(level int, interval time.Duration) catalog.Window {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Clock()
	late := c.o.after(now, interval).Sub(now)
	for {
		w := catalog.NextWindow(c.recent, level, c.done[level], interval, now.Add(-late), c.when)
		if len(w.Inputs) > 1 && c.room(w) {
			return w
		}
		c.done[level] = w.Until
		if len(w.Inputs) == 0 {
			return w
		}
	}
}

// room reports whether the disk has room for twice the size of w's inputs. If not, the files
// stay unmerged, and restores read more files.
func (c *Compactor) room(w catalog.Window) bool {
	const little = 256 << 20
	var bytes int64
	for _, f := range w.Inputs {
		bytes += f.Object.Size
	}
	var fs unix.Statfs_t
	if bytes <= little || unix.Statfs(c.o.Scratch, &fs) != nil {
		return true
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	if free < 2*bytes {
		c.o.Logger.Warn("no room to merge files of the replica; restores read more of them instead", "dir", c.o.Scratch,
			"bytes", bytes, "free", free)
	}
	return free >= 2*bytes
}

// window merges one window. If an input is lost, compaction continues around the gap.
func (c *Compactor) window(ctx context.Context, r *Report, w catalog.Window) error {
	if err := c.o.Hold(ctx); err != nil {
		return err
	}
	f, err := c.merge(ctx, w)
	merged := make(map[string]bool, len(w.Inputs))
	if err != nil {
		err = fmt.Errorf("compact level %d: %w", w.Level, err)
	}
	if lost := (*lostError)(nil); errors.As(err, &lost) {
		return c.without(ctx, r, lost)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[f.Object.Key] = c.when(w.Inputs[len(w.Inputs)-1])
	c.remember(f)
	for _, input := range w.Inputs { // higher levels merge f in their place
		merged[input.Object.Key] = true
	}
	c.forgetLocked(func(f store.LTXFile) bool { return merged[f.Object.Key] })
	c.done[w.Level] = w.Until
	r.Bytes += f.Object.Size
	return nil
}

// without goes on without a lost file. If the files that it was merged from are still in the store, they are merged
// in its place; otherwise there is a gap.
func (c *Compactor) without(ctx context.Context, r *Report, lost *lostError) error {
	inputs, err := c.inputsOf(ctx, lost.file)
	if err != nil {
		return fmt.Errorf("look for the inputs of a lost file: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key, at := lost.file.Object.Key, c.when(lost.file)
	c.lost[key] = lost.file
	c.forgetLocked(func(f store.LTXFile) bool { return f.Object.Key == key })
	r.Useless = append(r.Useless, key)
	if len(inputs) == 0 {
		c.o.Logger.Error("the replica's past has a gap where a file was", "err", lost)
		r.Lost = append(r.Lost, lost.file)
		return nil
	}
	c.o.Logger.Warn("a merged file is of no use: its inputs are merged in its place", "inputs", len(inputs), "err", lost)
	for _, f := range inputs {
		c.times[f.Object.Key] = at // they belong to its window
		c.remember(f)
	}
	return nil
}

// inputsOf returns the files in the store that together hold what the merged file f holds, nil if some are gone.
func (c *Compactor) inputsOf(ctx context.Context, f store.LTXFile) (inputs []store.LTXFile, err error) {
	var found []store.LTXFile
	for level := range f.Level {
		after := store.LTXKey(level, f.MinTXID-1, math.MaxUint64)
		for object, err := range c.o.Store.List(ctx, store.LevelPrefix(level), after) {
			if err != nil {
				return nil, err
			}
			l, min, max, err := store.ParseLTXKey(object.Key)
			if err == nil && min > f.MaxTXID {
				break
			}
			if err == nil && max <= f.MaxTXID {
				found = append(found, store.LTXFile{Level: l, MinTXID: min, MaxTXID: max, Object: object})
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found = slices.DeleteFunc(found, func(f store.LTXFile) bool { return c.lost[f.Object.Key].Object.Key != "" })
	for at := f.MinTXID - 1; at < f.MaxTXID; at = inputs[len(inputs)-1].MaxTXID {
		next := catalog.Joining(found, f.Level, at)
		if next == nil {
			return nil, nil
		}
		inputs = append(inputs, *next)
	}
	return inputs, nil
}

// when returns the time that assigns a file to a window: that of its newest batch if known,
// else that of its upload.
func (c *Compactor) when(f store.LTXFile) time.Time {
	t, ok := c.times[f.Object.Key]
	if !ok {
		if t, ok = store.MetadataTime(f.Object.Metadata); !ok {
			t = f.Object.Modified
		}
	}
	if past := catalog.Past(c.o.Clock(), t, f); past != t {
		t, c.times[f.Object.Key] = past, past // remember it, or the file's window would move with the clock
	}
	return t
}
