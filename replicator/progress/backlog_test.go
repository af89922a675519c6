package progress

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// add stores the segment txid, of one page; the first is a snapshot.
func add(t *testing.T, s *spool.Spool, txid ltx.TXID) {
	t.Helper()
	page := []byte(strings.Repeat(string(rune('a'+txid%26)), 512))
	w, err := s.Create(ltx.Header{PageSize: 512, Commit: 1, MinTXID: txid, MaxTXID: txid, Timestamp: int64(txid)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(1, page); err != nil {
		t.Fatal(err)
	}
	p := spool.Position{TXID: txid, PageSize: 512, Pages: 1, Checksum: ltx.ChecksumFlag | ltx.ChecksumPage(1, page)}
	r, err := w.Finish(p, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(r); err != nil {
		t.Fatal(err)
	}
}

// served returns a backlog of n segments, the first a snapshot, and one replica for each cursor.
func served(
	t *testing.T, clock func() time.Time, limit int64, n ltx.TXID, cursors ...ltx.TXID,
) (*Backlog, []*Progress) {
	t.Helper()
	s, _, err := spool.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.AfterSync(func() (ltx.TXID, error) { return s.Last(), nil })
	b := NewBacklog(limit, clock)
	var replicas []*Progress
	for i, cursor := range cursors {
		p := New(slog.New(slog.DiscardHandler), clock, fmt.Sprint("r", i), time.Second)
		b.Serve(p)
		p.Found(catalog.Tip{TXID: cursor, Base: 1}, cursor)
		replicas = append(replicas, p)
	}
	b.Captured(s)
	for txid := ltx.TXID(1); txid <= n; txid++ {
		add(t, s, txid)
	}
	return b, replicas
}

func held(b *Backlog) (all []ltx.TXID) {
	for _, segment := range b.Spool().List() {
		all = append(all, segment.MaxTXID)
	}
	return all
}

// TestRelease: a segment stays until every replica has it. If there is little room, a replica that
// fails is not waited for, unless all of them fail.
func TestRelease(t *testing.T) {
	t.Parallel()
	const plenty = 1 << 30
	away := errors.New("away")
	for name, tt := range map[string]struct {
		limit int64
		full  bool
		fails []int
		want  []ltx.TXID
	}{
		"all work":                       {plenty, false, nil, []ltx.TXID{4, 5}},
		"one fails, and there is room":   {plenty, false, []int{0}, []ltx.TXID{4, 5}},
		"the slow one fails, crowded":    {1, false, []int{0}, nil},
		"the slow one fails, full":       {plenty, true, []int{0}, nil},
		"the fast one fails, crowded":    {1, false, []int{1}, []ltx.TXID{4, 5}},
		"crowded, and all work":          {1, false, nil, []ltx.TXID{4, 5}},
		"crowded, and all fail: none is": {1, false, []int{0, 1}, []ltx.TXID{1, 2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, replicas := served(t, time.Now, tt.limit, 5, 3, 5)
			for _, i := range tt.fails {
				replicas[i].Record(away)
			}
			b.SetFull(tt.full)
			if err := b.Release(); err != nil {
				t.Fatal(err)
			}
			if got := held(b); !slices.Equal(got, tt.want) {
				t.Errorf("the spool holds %v, want %v", got, tt.want)
			}
		})
	}
}

// TestRelease_doubt: while a replica is being examined again, its position is unknown, and nothing
// is released, however far it was before.
func TestRelease_doubt(t *testing.T) {
	t.Parallel()
	b, replicas := served(t, time.Now, 1<<30, 3, 3)
	b.DoubtAfter(replicas[0], fmt.Errorf("look: %w", store.ErrUnavailable))
	if _, known := replicas[0].Position(); !known {
		t.Error("an unreachable endpoint makes the replica's position unknown")
	}
	b.DoubtAfter(replicas[0], fmt.Errorf("renew: %w", lease.ErrFenced))
	if err := b.Release(); err != nil {
		t.Fatal(err)
	}
	if got := held(b); len(got) != 3 {
		t.Errorf("the spool holds %v, want all", got)
	}
}

// TestLetGo: segments are released every ten seconds, or sooner once there are many.
func TestLetGo(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	b, replicas := served(t, func() time.Time { return now }, 1<<30, 2, 1)
	for i, tt := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {letGoEvery - 1, 1}, {1, 0}} {
		now = now.Add(tt.after)
		if i == 1 {
			replicas[0].Advance(store.LTXFile{MinTXID: 2, MaxTXID: 2}, now, now, false)
		}
		if err := b.LetGo(); err != nil {
			t.Fatal(err)
		}
		if got := held(b); len(got) != tt.want {
			t.Errorf("step %d: the spool holds %v, want %d", i, got, tt.want)
		}
	}
	add(t, b.Spool(), 3)
	replicas[0].Advance(store.LTXFile{MinTXID: 3, MaxTXID: 3}, now, now, false)
	b.Limit = 8 // more than an eighth of it is in use
	if err := b.LetGo(); err != nil || len(held(b)) != 0 {
		t.Errorf("many bytes: the spool holds %v, %v", held(b), err)
	}
}

// TestCaughtUp: a replica has caught up to the time of the newest mark that its cursor has passed.
// When marks were dropped because there were too many, that time may be too old, but never too new.
func TestCaughtUp(t *testing.T) {
	t.Parallel()
	b := NewBacklog(1<<30, time.Now)
	p := New(slog.New(slog.DiscardHandler), time.Now, "r", time.Second)
	b.Serve(p)
	at := func(txid ltx.TXID) time.Time { return time.Unix(int64(txid), 0) }
	for txid := ltx.TXID(1); txid <= 10; txid++ {
		b.Mark(txid, at(txid))
	}
	b.Mark(10, at(20)) // nothing new
	b.Mark(9, at(30))  // ignored: marks do not go back
	if got := b.CaughtUp(9); !got.Equal(at(9)) {
		t.Errorf("of 9: %v", got)
	}
	if got := b.CaughtUp(11); !got.Equal(at(20)) {
		t.Errorf("of 11: %v", got)
	}
	if got := b.CaughtUp(0); !got.IsZero() {
		t.Errorf("of 0: %v", got)
	}
	for txid := ltx.TXID(11); txid <= 5000; txid++ {
		b.Mark(txid, at(txid))
	}
	b.forget()
	if len(b.marks) > 4096 {
		t.Errorf("%d marks are kept", len(b.marks))
	}
	for txid := ltx.TXID(20); txid <= 5000; txid += 7 {
		if got := b.CaughtUp(txid); got.After(at(txid)) {
			t.Errorf("of %d: %v is too new", txid, got)
		}
	}
	if got := b.CaughtUp(5000); !got.Equal(at(5000)) {
		t.Errorf("of the newest: %v", got)
	}
}

// TestAdvance: a snapshot beyond the segments that still wait does not move the cursor until those
// are shipped.
func TestAdvance(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b, replicas := served(t, time.Now, 1<<30, 5, 2)
	p := replicas[0]
	_, moved, _ := p.Awaited(5)
	b.Advance(p, store.LTXFile{Level: store.SnapshotLevel, MinTXID: 1, MaxTXID: 5}, now)
	if cursor, _ := p.Position(); cursor != 2 || p.Snapshot() != 5 || b.Pass(p) {
		t.Errorf("cursor %d, snapshot %d", cursor, p.Snapshot())
	}
	select {
	case <-moved:
	default:
		t.Error("the waiting caller was not notified")
	}
	for txid := ltx.TXID(3); txid <= 5; txid++ {
		b.Advance(p, store.LTXFile{MinTXID: txid, MaxTXID: txid}, now)
	}
	if done, _, _ := p.Awaited(5); !done || p.Behind(5) || !p.Behind(6) {
		t.Error("the replica does not reach 5 after everything was shipped")
	}
	// The segments are gone from the spool: the snapshot replaces them.
	b, replicas = served(t, time.Now, 1<<30, 1, 1)
	p = replicas[0]
	b.Advance(p, store.LTXFile{Level: store.SnapshotLevel, MinTXID: 1, MaxTXID: 9}, now)
	if cursor, _ := p.Position(); cursor != 9 {
		t.Errorf("cursor %d, want 9", cursor)
	}
}

// TestShipped: a replica whose tip is a snapshot need not have the segments that the spool holds
// from before it.
func TestShipped(t *testing.T) {
	t.Parallel()
	b, _ := served(t, time.Now, 1<<30, 5, 0)
	levels := map[int]ltx.TXID{0: 3, store.SnapshotLevel: 5}
	if got := b.Shipped(catalog.Tip{TXID: 5, Base: 5, Levels: levels}); got != 3 {
		t.Errorf("shipped to %d, want 3", got)
	}
	levels[1] = 5
	if got := b.Shipped(catalog.Tip{TXID: 5, Base: 5, Levels: levels}); got != 5 {
		t.Errorf("shipped to %d, want 5", got)
	}
	// The tip begins a chain: segments from before it would continue no file.
	levels = map[int]ltx.TXID{0: 1, store.SnapshotLevel: 5}
	if got := b.Shipped(catalog.Tip{TXID: 5, Base: 5, After: 1, Levels: levels}); got != 5 {
		t.Errorf("shipped to %d, want 5: nothing holds what 2 to 4 would change", got)
	}
	if got := b.Shipped(catalog.Tip{TXID: 5, Base: 5, After: 3, Levels: levels}); got != 1 {
		t.Errorf("shipped to %d, want 1: 2 and 3 are of the chain before", got)
	}
}

// TestReconsider: an older state directory was put back. Replicas that are ahead of it are examined
// again, and so are those behind it, because the chain is a different one now.
func TestReconsider(t *testing.T) {
	t.Parallel()
	b, replicas := served(t, time.Now, 1<<30, 5, 5, 4)
	b.Reconsider(false, 5)
	for _, p := range replicas {
		if _, known := p.Position(); !known {
			t.Fatal("a position became unknown although nothing changed")
		}
	}
	b.Reconsider(false, 4)
	if _, known := replicas[0].Position(); known {
		t.Error("the position of a replica that is ahead is still trusted")
	}
	if _, known := replicas[1].Position(); known {
		t.Error("the position of the other replica, which is behind, is still trusted")
	}
}

// TestRecord: a failure has a reason and the time it began; the next failure keeps that time, and a
// success ends it.
func TestRecord(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	p := New(slog.New(slog.DiscardHandler), func() time.Time { return now }, "r", time.Second)
	began := now
	for _, err := range []error{store.ErrUnavailable, lease.ErrHeld, store.ErrAuth} {
		p.Record(fmt.Errorf("put: %w", err))
		now = now.Add(time.Minute)
	}
	if st, _, _ := p.Status(); st.Healthy || st.Reason != "auth" || !st.FailingSince.Equal(began) || p.Failure() == nil {
		t.Errorf("%+v", st)
	}
	p.Record(nil)
	if st, _, _ := p.Status(); !st.Healthy || st.Err != "" || !st.FailingSince.IsZero() || p.Failure() != nil {
		t.Errorf("%+v", st)
	}
}
