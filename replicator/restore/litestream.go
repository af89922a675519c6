package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Replicas of Litestream 0.3 hold generations: a copy of the database file for
// some WAL indexes, and each index's WAL in segments, all LZ4 frames.
//
//	generations/<16 hex>/snapshots/<index %08x>.snapshot.lz4
//	generations/<16 hex>/wal/<index %08x>_<offset, 8 to 16 digits>.wal.lz4
//
// An index ends where the WAL restarts. The state is the copy, with the
// WAL of its index and of all later ones applied as SQLite's recovery would.
// There are no TXIDs, and times are those at which the store got the objects.
// The format does not tell how long an index is: a last segment of one that
// somebody removed is missed only where it does not begin with a transaction.

var (
	v3Snapshot = regexp.MustCompile(`^generations/([0-9a-f]{16})/snapshots/([0-9a-f]{8,16})\.snapshot\.lz4$`)
	v3Segment  = regexp.MustCompile(`^generations/([0-9a-f]{16})/wal/([0-9a-f]{8,16})_([0-9a-f]{8,16})\.wal\.lz4$`)
	v3Inside   = regexp.MustCompile(`^generations/[0-9a-f]{16}/(wal|snapshots)/`)
)

// v3Object is a snapshot, whose offset is -1, or a WAL segment.
type v3Object struct {
	index, offset int64
	obj           store.Object
}

// generation is an unbroken history, its objects in the order of index and offset.
type generation struct {
	id      string
	objects []v3Object
}

// first returns the time of the oldest snapshot, from which on there are states.
func (g generation) first() (t time.Time, ok bool) {
	for _, o := range g.objects {
		if o.offset < 0 && (!ok || o.obj.Modified.Before(t)) {
			t, ok = o.obj.Modified, true
		}
	}
	return t, ok
}

func (g generation) last() (t time.Time) {
	for _, o := range g.objects {
		if o.obj.Modified.After(t) {
			t = o.obj.Modified
		}
	}
	return t
}

// generations lists what Litestream 0.3 left, by age of the newest object.
func generations(ctx context.Context, st store.Store) ([]generation, error) {
	var all []generation
	for obj, err := range st.List(ctx, "generations/", "") {
		if err != nil {
			return nil, fmt.Errorf("list generations: %w", err)
		}
		id, o, ok := parseV3(obj)
		if !ok && v3Inside.MatchString(obj.Key) && !strings.HasSuffix(obj.Key, ".tmp") {
			// It may be a part of the history, and what lacks a part is another one.
			return nil, fmt.Errorf("list generations: %s is not a name that Litestream 0.3 gives: move it away if it is "+
				"nothing of a replica's", obj.Key)
		}
		if !ok {
			continue
		}
		if n := len(all); n == 0 || all[n-1].id != id {
			all = append(all, generation{id: id})
		}
		g := &all[len(all)-1]
		g.objects = append(g.objects, o)
	}
	for _, g := range all {
		slices.SortFunc(g.objects, func(a, b v3Object) int {
			return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.offset, b.offset))
		})
	}
	slices.SortStableFunc(all, func(a, b generation) int { return a.last().Compare(b.last()) })
	return all, nil
}

func parseV3(obj store.Object) (id string, o v3Object, ok bool) {
	o = v3Object{offset: -1, obj: obj}
	m := v3Snapshot.FindStringSubmatch(obj.Key)
	if m == nil {
		if m = v3Segment.FindStringSubmatch(obj.Key); m == nil {
			return "", o, false
		}
		var err error
		if o.offset, err = strconv.ParseInt(m[3], 16, 64); err != nil {
			return "", o, false // beyond 63 bits
		}
	}
	var err error
	o.index, err = strconv.ParseInt(m[2], 16, 64)
	return m[1], o, err == nil
}

// v3Plan is a snapshot and the segments to apply to it.
type v3Plan struct {
	generation string
	snapshot   v3Object
	segments   []v3Object
}

func (p *v3Plan) objects() []store.Object {
	objects := []store.Object{p.snapshot.obj}
	for _, s := range p.segments {
		objects = append(objects, s.obj)
	}
	return objects
}

// planGenerations finds the newest state at or before the target's time, in the
// newest generation that has one.
func planGenerations(ctx context.Context, st store.Store, target catalog.Target) (*v3Plan, error) {
	all, err := generations(ctx, st)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(g generation) bool { _, ok := g.first(); return !ok })
	switch {
	case len(all) == 0:
		return nil, catalog.ErrEmpty
	case target.TXID != 0:
		return nil, errors.New("a replica of Litestream 0.3 has no txids: choose a state by --timestamp")
	case target.Timestamp.IsZero():
		return all[len(all)-1].plan(time.Time{})
	}
	out := &catalog.RangeError{Target: target}
	for i := len(all) - 1; i >= 0; i-- {
		first, _ := all[i].first()
		if !target.Timestamp.Before(first) && !target.Timestamp.After(all[i].last()) {
			return all[i].plan(target.Timestamp)
		}
		if i == len(all)-1 || target.Timestamp.Before(first) { // the nearest range is named
			out.First, out.Last = catalog.RestorePoint{Timestamp: first}, catalog.RestorePoint{Timestamp: all[i].last()}
		}
	}
	return nil, out
}

// plan takes the newest snapshot until a time, zero being any, and all that
// follows it until then. It must follow without a gap.
func (g generation) plan(until time.Time) (*v3Plan, error) {
	early := func(o v3Object) bool { return until.IsZero() || !o.obj.Modified.After(until) }
	p := &v3Plan{generation: g.id, snapshot: v3Object{index: -1}}
	for _, o := range g.objects {
		if o.offset < 0 && early(o) {
			p.snapshot = o
		}
	}
	index := p.snapshot.index - 1
	for _, o := range g.objects {
		if o.offset < 0 || o.index < p.snapshot.index || !early(o) {
			continue
		}
		if o.index > index+1 || o.index == index+1 && o.offset != 0 {
			return nil, fmt.Errorf("generation %s: the wal segments before %s are missing", g.id, o.obj.Key)
		}
		index = o.index
		p.segments = append(p.segments, o)
	}
	return p, nil
}

// time returns when the store got the newest of the plan's objects.
func (p *v3Plan) time() (t time.Time) {
	for _, obj := range p.objects() {
		if obj.Modified.After(t) {
			t = obj.Modified.UTC()
		}
	}
	return t
}

// plan plans in both histories that one place may hold: LTX files, and generations of
// Litestream 0.3 from before an upgrade or after one was taken back. Of two states the
// newer one is meant, as long as it is not behind the moment asked for.
func (r *restorer) plan(ctx context.Context, target catalog.Target, excluded map[string]bool) (*catalog.Plan, *v3Plan,
	error) {
	plan, err := catalog.PlanWithout(ctx, r.store, target, excluded)
	if target.TXID != 0 && !errors.Is(err, catalog.ErrEmpty) {
		return plan, nil, err
	}
	old, oldErr := planGenerations(ctx, r.store, target)
	var outside *catalog.RangeError
	switch {
	case errors.Is(oldErr, catalog.ErrEmpty):
		return plan, nil, err
	case errors.Is(err, catalog.ErrEmpty):
		return nil, old, oldErr
	case oldErr != nil && !errors.As(oldErr, &outside):
		if err == nil && r.newer(ctx, plan.Time()) {
			err = oldErr // what is wrong there may have been the newer state
		}
		return plan, nil, err
	case oldErr == nil && (errors.As(err, &outside) || err == nil && old.time().After(plan.Time())):
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf(
			"this place holds two histories: the state of %s is of Litestream 0.3's generation %s; the other one's states are "+
				"chosen by --txid",
			old.time().Format(time.RFC3339Nano), old.generation))
		return nil, old, nil
	}
	return plan, nil, err
}

// newer reports whether Litestream 0.3 may have stored anything after t.
func (r *restorer) newer(ctx context.Context, t time.Time) bool {
	for obj, err := range r.store.List(ctx, "generations/", "") {
		if err != nil || obj.Modified.After(t) {
			return true
		}
	}
	return false
}

func (r *restorer) describeV3(p *v3Plan) {
	r.result.Lineage, r.result.Objects, r.result.ObjectBytes, r.result.Timestamp = p.generation, nil, 0, p.time()
	for _, obj := range p.objects() {
		r.result.Objects = append(r.result.Objects, obj.Key)
		r.result.ObjectBytes += obj.Size
	}
}

// buildGenerations fills the stage from a replica of Litestream 0.3.
func (r *restorer) buildGenerations(ctx context.Context, p *v3Plan) error {
	start := time.Now()
	defer func() { r.result.ApplyTime = time.Since(start) }()
	r.describeV3(p)
	if err := r.stage.Forget(); err != nil {
		return err
	}
	v := v3Restore{restorer: r}
	if err := v.copySnapshot(ctx, p.snapshot.obj); err != nil {
		return err
	}
	for i := 0; i < len(p.segments); {
		end := i
		for end < len(p.segments) && p.segments[end].index == p.segments[i].index {
			end++
		}
		if err := v.replay(ctx, p.segments[i:end]); err != nil {
			return err
		}
		i = end
	}
	r.result.PageSize, r.result.Pages = v.pageSize, v.pages
	return r.stage.Truncate(r.result.Size())
}

// v3Restore applies one v3Plan to the stage.
type v3Restore struct {
	*restorer
	pageSize int
	pages    uint32
	done     int64
}

// fetch decompresses one object into w.
func (v *v3Restore) fetch(ctx context.Context, obj store.Object, w io.Writer) (int64, error) {
	r, got, err := v.store.Get(ctx, obj.Key, 0, -1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if got.Size != obj.Size {
		return 0, &store.CorruptError{Key: obj.Key, Err: fmt.Errorf("it has %d bytes, the listing said %d", got.Size,
			obj.Size)}
	}
	counted := &io.LimitedReader{R: r, N: math.MaxInt64}
	n, err := io.CopyBuffer(&roomy{w, v.stage}, struct{ io.Reader }{lz4.NewReader(counted)}, make([]byte, 1<<20))
	if err == nil && n == 0 {
		err = errors.New("it is empty")
	}
	if read := math.MaxInt64 - counted.N; err == nil && read != obj.Size {
		err = fmt.Errorf("only %d of %d bytes are one lz4 frame", read, obj.Size)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, unix.ENOSPC) {
		err = &store.CorruptError{Key: obj.Key, Err: err}
	}
	if v.done += obj.Size; v.o.Progress != nil {
		v.o.Progress(v.done, v.result.ObjectBytes)
	}
	return n, err
}

// roomy writes while the disk has room to leave: a compressed object does not tell how
// large it is.
type roomy struct {
	io.Writer
	stage *stage.Stage
}

// Write implements io.Writer.
func (w *roomy) Write(p []byte) (int, error) {
	if err := w.stage.Room(int64(len(p))); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (v *v3Restore) copySnapshot(ctx context.Context, obj store.Object) error {
	if err := v.stage.Truncate(0); err != nil {
		return err
	}
	if _, err := v.stage.Seek(0, io.SeekStart); err != nil {
		return err
	}
	size, err := v.fetch(ctx, obj, v.stage)
	if err != nil {
		return err
	}
	head := make([]byte, 100)
	if _, err := v.stage.ReadAt(head, 0); err != nil {
		return &store.CorruptError{Key: obj.Key, Err: err}
	}
	h, err := dbfile.ParseDatabaseHeader(head)
	if err == nil && (size%int64(h.PageSize) != 0 || size/int64(h.PageSize) > math.MaxUint32) {
		err = fmt.Errorf("%d bytes are no whole pages of %d", size, h.PageSize)
	}
	if err != nil {
		return &store.CorruptError{Key: obj.Key, Err: err}
	}
	v.pageSize, v.pages = h.PageSize, uint32(size/int64(h.PageSize))
	return nil
}

// replay applies the WAL of one index.
func (v *v3Restore) replay(ctx context.Context, segments []v3Object) error {
	name := v.stage.Name() + "-segments"
	wal, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer wal.Close()
	if err := os.Remove(name); err != nil { // it lives as long as its descriptor
		return err
	}
	var size int64
	for _, s := range segments {
		if s.offset != size {
			return fmt.Errorf("wal index %08x: the segment at offset %d is missing before %s", s.index, size, s.obj.Key)
		}
		n, err := v.fetch(ctx, s.obj, wal)
		if err != nil {
			return err
		}
		size += n
	}
	if err := v.applyWAL(wal, size); err != nil {
		return &store.CorruptError{Key: segments[0].obj.Key, Err: fmt.Errorf("the wal of this index: %w", err)}
	}
	return nil
}

// applyWAL writes the pages of the committed frames: first it finds the last
// commit, verifying every frame on the way, then it copies up to there.
func (v *v3Restore) applyWAL(wal *os.File, size int64) error {
	head := make([]byte, dbfile.WALHeaderSize)
	if _, err := wal.ReadAt(head, 0); err != nil {
		return err
	}
	h, err := dbfile.ParseWALHeader(head)
	if err != nil {
		return err
	}
	if v.pageSize != 0 && h.PageSize != v.pageSize {
		return fmt.Errorf("its pages have %d bytes, the database's %d", h.PageSize, v.pageSize)
	}
	v.pageSize = h.PageSize
	frame := int64(dbfile.FrameHeaderSize + h.PageSize)
	if (size-dbfile.WALHeaderSize)%frame != 0 || (size-dbfile.WALHeaderSize)/frame > math.MaxUint32 {
		return fmt.Errorf("%d bytes are no whole frames", size)
	}
	start := dbfile.Position{Checksum: h.Checksum}
	scan := dbfile.NewFrameScanner(wal, h, start, uint32((size-dbfile.WALHeaderSize)/frame))
	var last uint32
	for scan.Next() {
		if scan.Frame().Commit != 0 {
			last = scan.Position().Frame
		}
	}
	if err := scan.Err(); err != nil {
		return err
	}
	if last != scan.Position().Frame { // Litestream cuts at commits: a segment is missing
		return fmt.Errorf("it ends %d frames after its last commit", scan.Position().Frame-last)
	}
	scan = dbfile.NewFrameScanner(wal, h, start, last)
	for scan.Next() {
		f := scan.Frame()
		if _, err := v.stage.WriteAt(scan.Page(), int64(f.Page-1)*int64(v.pageSize)); err != nil {
			return err
		}
		if f.Commit != 0 {
			v.pages = f.Commit
		}
	}
	return scan.Err()
}
