package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Replicas of Litestream 0.3 hold generations: a copy of the database file for
// some WAL indexes, and each index's WAL in segments, all LZ4 frames.
//
//	generations/<16 hex>/snapshots/<index %08x>.snapshot.lz4
//	generations/<16 hex>/wal/<index %08x>_<offset, 8 to 16 digits>.wal.lz4
//
// An index ends where the WAL restarts. The state is the copy, with the WAL of its index and
// of all later ones applied as SQLite's recovery would. There are no TXIDs; the times are those
// at which the store received the objects. The format does not state how long an index is, so
// that the last segment of one was removed is only noticed if the segment does not begin at a
// transaction.

var (
	v3Snapshot = regexp.MustCompile(`^generations/([0-9a-f]{16})/snapshots/([0-9a-f]{8,16})\.snapshot\.lz4$`)
	v3Segment  = regexp.MustCompile(`^generations/([0-9a-f]{16})/wal/([0-9a-f]{8,16})_([0-9a-f]{8,16})\.wal\.lz4$`)
	v3Inside   = regexp.MustCompile(`^generations/[0-9a-f]{16}/(wal|snapshots)/`)
)

// GenerationObject is a snapshot, whose offset is -1, or a WAL segment.
type GenerationObject struct {
	Index, Offset int64
	Object        store.Object
}

// generation is an unbroken history, its objects in the order of index and offset.
type generation struct {
	id      string
	objects []GenerationObject
}

// first returns the time of the oldest snapshot, which is the first state.
func (g generation) first() (t time.Time, ok bool) {
	for _, o := range g.objects {
		if o.Offset < 0 && (!ok || o.Object.Modified.Before(t)) {
			t, ok = o.Object.Modified, true
		}
	}
	return t, ok
}

// around returns when the store received the last object up to a moment, and the first one after it.
func (g generation) around(at time.Time) (before, after time.Time) {
	for _, o := range g.objects {
		switch got := o.Object.Modified; {
		case !got.After(at) && got.After(before):
			before = got
		case got.After(at) && (after.IsZero() || got.Before(after)):
			after = got
		}
	}
	return before, after
}

func (g generation) last() (t time.Time) {
	for _, o := range g.objects {
		if o.Object.Modified.After(t) {
			t = o.Object.Modified
		}
	}
	return t
}

// generations lists the generations of Litestream 0.3 by the time of their newest object, oldest first.
func generations(ctx context.Context, st store.Store) ([]generation, error) {
	var all []generation
	for obj, err := range st.List(ctx, "generations/", "") {
		if err != nil {
			return nil, fmt.Errorf("list generations: %w", err)
		}
		id, o, ok := parseV3(obj)
		if !ok && v3Inside.MatchString(obj.Key) && !strings.HasSuffix(obj.Key, ".tmp") {
			// It may be a part of the history, which would be wrong without it.
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
		slices.SortFunc(g.objects, func(a, b GenerationObject) int {
			return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Offset, b.Offset))
		})
	}
	slices.SortStableFunc(all, func(a, b generation) int { return a.last().Compare(b.last()) })
	return all, nil
}

func parseV3(obj store.Object) (id string, o GenerationObject, ok bool) {
	o = GenerationObject{Offset: -1, Object: obj}
	m := v3Snapshot.FindStringSubmatch(obj.Key)
	if m == nil {
		if m = v3Segment.FindStringSubmatch(obj.Key); m == nil {
			return "", o, false
		}
		var err error
		if o.Offset, err = strconv.ParseInt(m[3], 16, 64); err != nil {
			return "", o, false // beyond 63 bits
		}
	}
	var err error
	o.Index, err = strconv.ParseInt(m[2], 16, 64)
	return m[1], o, err == nil
}

// GenerationPlan is a snapshot and the segments to apply to it.
type GenerationPlan struct {
	Generation string
	Snapshot   GenerationObject
	Segments   []GenerationObject
	Next       time.Time // when the store received the first object after the moment asked for
}

// Objects returns all objects that the state is made of.
func (p *GenerationPlan) Objects() []store.Object {
	objects := []store.Object{p.Snapshot.Object}
	for _, s := range p.Segments {
		objects = append(objects, s.Object)
	}
	return objects
}

// PlanGenerations plans the newest state at or before the target's time, in the generation that
// has the newest object up to then. If that has no snapshot, it is an error: an older generation's
// state would be another one. A moment before the first or after the last object is a *RangeError;
// after the last, the plan of the newest state is returned with the error.
func PlanGenerations(ctx context.Context, st store.Store, target Target) (*GenerationPlan, error) {
	all, err := generations(ctx, st)
	if err != nil {
		return nil, err
	}
	switch at := target.Timestamp; {
	case len(all) == 0:
		return nil, ErrEmpty
	case target.TXID != 0:
		return nil, errors.New("a replica of Litestream 0.3 has no txids: choose a state by --timestamp")
	case at.IsZero():
		return all[len(all)-1].plan(time.Time{})
	}
	var of generation
	var newest, next, oldest time.Time
	for _, g := range all {
		first, whole := g.first()
		if whole && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
		before, after := g.around(target.Timestamp)
		if !after.IsZero() && (next.IsZero() || after.Before(next)) {
			next = after
		}
		if (!whole || !first.After(target.Timestamp)) && before.After(newest) {
			of, newest = g, before
		}
	}
	if oldest.IsZero() {
		return all[0].plan(time.Time{}) // an error: no generation has a snapshot
	}
	var out error
	if last := all[len(all)-1].last(); newest.IsZero() || target.Timestamp.After(last) {
		out = &RangeError{Target: target, First: RestorePoint{Timestamp: oldest},
			Last: RestorePoint{Timestamp: last}}
	}
	if newest.IsZero() {
		return nil, out
	}
	p, err := of.plan(target.Timestamp)
	if err != nil {
		return nil, err
	}
	p.Next = next
	return p, out
}

// plan takes the newest snapshot up to a time (zero: any) and all segments that follow it up to
// then, which must have no gap.
func (g generation) plan(until time.Time) (*GenerationPlan, error) {
	early := func(o GenerationObject) bool { return until.IsZero() || !o.Object.Modified.After(until) }
	p := &GenerationPlan{Generation: g.id, Snapshot: GenerationObject{Index: -1}}
	for _, o := range g.objects {
		if o.Offset < 0 && early(o) {
			p.Snapshot = o
		}
	}
	if p.Snapshot.Index < 0 {
		return nil, fmt.Errorf("generation %s: the snapshots that %s needs are missing: choose an older state by "+
			"--timestamp, if there is one", g.id, g.objects[0].Object.Key)
	}
	index := p.Snapshot.Index - 1
	for _, o := range g.objects {
		if o.Offset < 0 || o.Index < p.Snapshot.Index || !early(o) {
			continue
		}
		if o.Index > index+1 || o.Index == index+1 && o.Offset != 0 {
			return nil, fmt.Errorf("generation %s: the wal segments before %s are missing", g.id, o.Object.Key)
		}
		index = o.Index
		p.Segments = append(p.Segments, o)
	}
	return p, nil
}

// Time returns when the store received the newest of the plan's objects.
func (p *GenerationPlan) Time() (t time.Time) {
	for _, obj := range p.Objects() {
		if obj.Modified.After(t) {
			t = obj.Modified.UTC()
		}
	}
	return t
}
