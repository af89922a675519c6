package tail

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// What proves that nothing was missed, and what does not: a wrong answer is a replica that
// lacks commits and says that it has them.
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
		t.Errorf("the counter runs over: %v", err)
	}
}

// Commit frames and the commit counter must agree; a frame that fills a sector up counts for none,
// and may count for one.
func TestCounted_I6(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		commits, frames, repeats uint32
		want                     bool
	}{
		{3, 3, 0, true},
		{3, 2, 0, false},  // one came and went
		{2, 3, 0, false},  // frames of somebody else's
		{1, 3, 2, true},   // padding
		{3, 3, 2, true},   // the same row written thrice
		{0, 3, 2, false},  // less than can be padding
		{4, 3, 2, false},  // more than there are
		{0, 0, 0, true},   // nothing
		{1, 1, 1, true},   // a repeat of what was read before
		{2, 10, 9, true},  // both
		{0, 10, 10, true}, // padding alone, read in two portions
	} {
		if got := counted(tc.commits, tc.frames, tc.repeats); got != tc.want {
			t.Errorf("%d commits, %d commit frames, %d repeats: %v", tc.commits, tc.frames, tc.repeats, got)
		}
	}
}

// A rate is believed once something was measured; a slow moment counts at once.
func TestTakes(t *testing.T) {
	t.Parallel()
	tail := &Tail{}
	const frames, size = 1000, 4096
	if got, want := tail.Takes(frames, size), 41*time.Millisecond; (got - want).Abs() > time.Millisecond {
		t.Errorf("unmeasured: %v, want about %v", got, want)
	}
	tail.Measure(time.Hour) // of nothing: tells nothing
	if tail.Rate != 0 {
		t.Errorf("an empty batch has a rate: %v", tail.Rate)
	}
	tail.Rate = 10e6
	if got, want := tail.Takes(frames, size), 412*time.Millisecond; (got - want).Abs() > time.Millisecond {
		t.Errorf("measured: %v, want about %v", got, want)
	}
}

// What was read and is not in the spool is read again after a rewind, and no more after a restart.
func TestRewind(t *testing.T) {
	t.Parallel()
	tail := New(nil, time.Now)
	tail.Restart(spool.Position{Change: 5})
	tail.Head.Change, tail.Pending = 9, time.Now()
	tail.Met(time.Now().Add(time.Hour))
	if time.Until(tail.Pending) > time.Minute {
		t.Error("the oldest commit that waits is the first that was met")
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
