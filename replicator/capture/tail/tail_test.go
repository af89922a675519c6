package tail

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// TestProves_I6: when it is proven that no commit was missed, and when not. A wrong proof would be
// a replica that lacks commits and claims to have them.
func TestProves_I6(t *testing.T) {
	t.Parallel()
	head := spool.Position{PageSize: 4096, Change: 100}
	for _, tc := range []struct {
		name string
		x    dbfile.WALIndex
		want Reason
	}{
		{"nothing happened", dbfile.WALIndex{PageSize: 4096, Change: 100, MaxFrame: 7}, ""},
		{"commits that are in the wal", dbfile.WALIndex{PageSize: 4096, Change: 103, MaxFrame: 9}, ""},
		{"another page size", dbfile.WALIndex{PageSize: 8192, Change: 103, MaxFrame: 9}, ReasonPageSize},
		{"a wal-index that counts anew", dbfile.WALIndex{PageSize: 4096, Change: 99, MaxFrame: 9}, ReasonWALIndex},
		{"commits that are gone", dbfile.WALIndex{PageSize: 4096, Change: 103}, ReasonWALReset},
	} {
		tail := &Tail{Head: head}
		err := tail.Proves(tc.x)
		lost := (*DiscontinuityError)(nil)
		if tc.want == "" && err != nil || tc.want != "" && (!errors.As(err, &lost) || lost.Reason != tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	over := &Tail{Head: spool.Position{PageSize: 4096, Change: math.MaxUint32}}
	if err := over.Proves(dbfile.WALIndex{PageSize: 4096, Change: 1, MaxFrame: 2}); err != nil {
		t.Errorf("the counter overflows: %v", err)
	}
}

// TestCounted_I6: the number of commit frames must agree with the commit counter. A frame that
// repeats the one before may be padding of a sector, which is no commit, or a commit of its own.
func TestCounted_I6(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		commits, frames, repeats uint32
		want                     bool
	}{
		{3, 3, 0, true},
		{3, 2, 0, false},  // a commit was missed
		{2, 3, 0, false},  // more commit frames than commits
		{1, 3, 2, true},   // padding
		{3, 3, 2, true},   // the same row written three times
		{0, 3, 2, false},  // fewer commits than if all repeats were padding
		{4, 3, 2, false},  // more commits than commit frames
		{0, 0, 0, true},   // nothing
		{1, 1, 1, true},   // repeats a frame that was read before
		{2, 10, 9, true},  // padding and a commit
		{0, 10, 10, true}, // only padding, read in a second portion
	} {
		if got := counted(tc.commits, tc.frames, tc.repeats); got != tc.want {
			t.Errorf("%d commits, %d commit frames, %d repeats: %v", tc.commits, tc.frames, tc.repeats, got)
		}
	}
}

// TestTakes: the estimate uses a default rate until something was measured.
func TestTakes(t *testing.T) {
	t.Parallel()
	tail := &Tail{}
	const frames, size = 1000, 4096
	if got, want := tail.Takes(frames, size), 41*time.Millisecond; (got - want).Abs() > time.Millisecond {
		t.Errorf("unmeasured: %v, want about %v", got, want)
	}
	tail.Measure(time.Hour) // an empty batch says nothing about the rate
	if tail.Rate != 0 {
		t.Errorf("an empty batch has a rate: %v", tail.Rate)
	}
	tail.Rate = 10e6
	if got, want := tail.Takes(frames, size), 412*time.Millisecond; (got - want).Abs() > time.Millisecond {
		t.Errorf("measured: %v, want about %v", got, want)
	}
}

// TestRewind: after Rewind, what was read and is not in the spool is read again; after Restart it
// is not.
func TestRewind(t *testing.T) {
	t.Parallel()
	tail := New(nil, time.Now)
	tail.Restart(spool.Position{Change: 5})
	tail.Head.Change, tail.Pending = 9, time.Now()
	tail.Met(time.Now().Add(time.Hour))
	if time.Until(tail.Pending) > time.Minute {
		t.Error("Pending is not the time at which the oldest waiting commit was seen")
	}
	tail.Rewind()
	if tail.Head.Change != 5 || !tail.Pending.IsZero() || !tail.Batch.Empty() {
		t.Errorf("after a rewind: %+v", tail)
	}
	tail.Restart(spool.Position{Change: 9})
	if tail.Rewind(); tail.Head.Change != 9 {
		t.Errorf("after a restart the head is at %d", tail.Head.Change)
	}
}
