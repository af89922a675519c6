package custody

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// known is a claimant whose spool holds segments 5 to 7, together with the parts that the tests
// look at.
type known struct {
	*Claimant
	o        ClaimantOptions
	spool    *spool.Spool
	sums     map[ltx.TXID]ltx.Checksum
	path     string // of the database
	compared int
	judged   []lineage.Verdict
}

func newKnown(t *testing.T) *known {
	t.Helper()
	dir := t.TempDir()
	k := &known{sums: map[ltx.TXID]ltx.Checksum{}, path: filepath.Join(dir, "app.db")}
	if err := os.WriteFile(k.path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := spool.Begin(dir, spool.Position{TXID: 4, PageSize: 512, Pages: 1, Lineage: "chain"}); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.spool, _, err = spool.Open(dir); err != nil {
		t.Fatal(err)
	}
	for txid := ltx.TXID(5); txid <= 7; txid++ {
		k.add(t, txid)
	}
	k.o = ClaimantOptions{
		Replica: "s3.main", Store: storetest.NewMemory(), Custody: New(dir), Saved: NewStateFile(dir, "s3.main"),
		Lease: lease.New(lease.Options{}), Original: &Original{}, Owner: "us", Boot: "boot", Keep: time.Hour,
		Spool:   func() *spool.Spool { return k.spool },
		Compare: func(context.Context) error { k.compared++; return nil },
		Judged:  func(v lineage.Verdict, _ string) { k.judged = append(k.judged, v) },
		Claimed: func(lineage.Lineage) {}, Logger: slog.New(slog.DiscardHandler), Clock: time.Now,
	}
	k.Claimant = NewClaimant(k.o)
	return k
}

func (k *known) add(t *testing.T, txid ltx.TXID) {
	t.Helper()
	w, err := k.spool.Create(ltx.Header{PageSize: 512, Commit: 1, MinTXID: txid, MaxTXID: txid, Timestamp: int64(txid)})
	if err != nil {
		t.Fatal(err)
	}
	page := []byte(strings.Repeat(string(rune('a'+txid%26)), 512))
	if err := w.Add(1, page); err != nil {
		t.Fatal(err)
	}
	k.sums[txid] = ltx.ChecksumFlag | ltx.ChecksumPage(1, page)
	p := spool.Position{TXID: txid, PageSize: 512, Pages: 1, Checksum: k.sums[txid], Lineage: "chain"}
	r, err := w.Finish(p, "")
	if err == nil {
		err = w.Commit(r)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tip returns the tip of a replica that reaches txid. sum is its checksum, "" if the tip has none.
func tip(txid ltx.TXID, sum string) catalog.Tip { return catalog.Tip{TXID: txid, Checksum: sum} }

// of returns the sight of a replica of the lineage id ("" for a replica that names none), whose
// lease belongs to another host and has not ended.
func of(id string, t catalog.Tip) Sight {
	s := Sight{Tip: t, Taken: true, Line: lineage.Stored{Lineage: lineage.Lineage{ID: id}, Found: id != ""}}
	s.Lease = lease.Finding{Found: true, Note: lease.Note{Owner: "them", Boot: "theirs", File: "theirs"}}
	return s
}

// ours returns s with the lease that our state directory remembers.
func ours(s Sight) Sight { s.Lease.Continuous = true; return s }

// after returns s with a lineage that succeeded the lineage id.
func after(s Sight, id string) Sight {
	s.Line.Predecessors = []lineage.Predecessor{{ID: id, Until: 8}}
	return s
}

// TestJudge_C14_sight: the verdict that follows from the replica, the state directory and the
// database together.
func TestJudge_C14_sight(t *testing.T) {
	t.Parallel()
	const elsewhere = "8000000000000001" // a checksum that no state here has
	nothing := Sight{Tip: catalog.Tip{}}
	for name, tt := range map[string]struct {
		know func(t *testing.T, k *known) // adds to what the spool knows
		see  func(k *known) Sight
		want lineage.Verdict
	}{
		"an empty place": {nil, func(*known) Sight { return nothing }, lineage.Begin},
		"a restart": {takes("line"),
			func(k *known) Sight { return ours(of("line", tip(6, k.sums[6].String()))) }, lineage.Continue},
		"a restart, and the tip is none of ours: a clone wrote under the lease": {takes("line"),
			func(*known) Sight { return ours(of("line", tip(6, elsewhere))) }, lineage.Diverged},
		"a restart, and the replica is ahead": {takes("line"),
			func(*known) Sight { return ours(of("line", tip(9, elsewhere))) }, lineage.Diverged},
		"another has the lease and stored nothing": {takes("line"),
			func(k *known) Sight { return of("line", tip(6, k.sums[6].String())) }, lineage.Continue},
		"another has the lease and went on": {takes("line"),
			func(*known) Sight { return of("line", tip(8, elsewhere)) }, lineage.Diverged},
		"our number, another state": {takes("line"),
			func(*known) Sight { return of("line", tip(6, elsewhere)) }, lineage.Diverged},
		"an older state than we reached once": {reaches("line", 6),
			func(*known) Sight { return of("line", tip(3, elsewhere)) }, lineage.Continue},
		"an older state, and ours is the last writer": {reaches("line", 6),
			func(*known) Sight {
				s := of("line", tip(3, elsewhere))
				s.Lease.Note.Owner = "us"
				return s
			}, lineage.Continue},
		"as old, but somebody went on there whom nobody here knows: it is a copy": {reaches("line", 6),
			func(*known) Sight {
				s := of("line", tip(3, elsewhere))
				s.Lease.Note.Owner = "who has a copy"
				return s
			}, lineage.Diverged},
		"another lineage": {takes("line"),
			func(*known) Sight { return of("other", tip(6, elsewhere)) }, lineage.Foreign},
		"another lineage of the same state": {takes("line"),
			func(k *known) Sight { return of("other", tip(99, k.sums[7].String())) }, lineage.Continue},
		"another lineage, that we were told to follow once": {follows("other"),
			func(*known) Sight { return of("other", tip(6, elsewhere)) }, lineage.Succeed},
		"that lineage came after ours in the meantime": {follows("other"),
			func(*known) Sight { return after(of("other", tip(6, elsewhere)), "line") }, lineage.Diverged},
		"another came after ours and stored nothing": {takes("line"),
			func(k *known) Sight { return after(of("other", tip(6, k.sums[6].String())), "line") }, lineage.Diverged},
		"another came after ours, and we are what it has stored": {takes("line"),
			func(k *known) Sight { return after(of("other", tip(99, k.sums[7].String())), "line") }, lineage.Continue},
		"another came after a third one and stored nothing, and we are what that one had": {nil,
			func(k *known) Sight { return after(of("other", tip(6, k.sums[6].String())), "third") }, lineage.Foreign},
		"another came after ours, and a late renewal of ours is there": {
			func(t *testing.T, k *known) { identified(t, k); takes("line")(t, k) },
			func(k *known) Sight {
				s := ours(after(of("other", tip(6, elsewhere)), "line"))
				s.Lease.Note.File, s.Lease.Note.Boot, s.Lease.Note.Lineage = k.o.Original.Get().File, "boot", "line"
				return s
			}, lineage.Diverged},
		"a late renewal of a host that has lost its state directory since": {identified,
			func(k *known) Sight {
				s := of("other", tip(6, elsewhere))
				s.Lease.Note.File, s.Lease.Note.Lineage = k.o.Original.Get().File, "line"
				return s
			}, lineage.Foreign},
		"we took the lease and ended before we had settled": {identified,
			func(k *known) Sight {
				s := of("other", tip(6, elsewhere))
				s.Lease.Note.File, s.Lease.Unsettled = k.o.Original.Get().File, true
				return s
			}, lineage.Foreign},
		"a state directory that was lost, the same file": {identified,
			func(k *known) Sight {
				s := of("other", tip(6, elsewhere))
				s.Lease.Note.File = k.o.Original.Get().File
				return s
			}, lineage.Continue},
		"the same inode after a start of the machine, and we know a lineage": {
			func(t *testing.T, k *known) { identified(t, k); takes("line")(t, k) },
			func(k *known) Sight {
				s := of("other", tip(6, elsewhere))
				s.Lease.Note.File = k.o.Original.Get().File
				return s
			}, lineage.Foreign},
		"restored from its tip": {noted("other", 6),
			func(*known) Sight { return of("other", tip(6, elsewhere)) }, lineage.Continue},
		"restored from an older state of it": {noted("other", 5),
			func(*known) Sight { return of("other", tip(6, elsewhere)) }, lineage.Foreign},
		"another program's": {nil,
			func(*known) Sight { return Sight{Tip: tip(6, elsewhere), Taken: true} }, lineage.Stranger},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKnown(t)
			if tt.know != nil {
				tt.know(t, k)
			}
			got, err := k.Judge(t.Context(), tt.see(k))
			if got != tt.want || len(k.judged) != 1 || k.judged[0] != got {
				t.Errorf("%s, told %v, want %s", got, k.judged, tt.want)
			}
			var claim *ClaimError
			switch refused := errors.As(err, &claim); {
			case got.Writes() && err != nil, !got.Writes() && !refused:
				t.Errorf("verdict %s, error %v", got, err)
			case got == lineage.Diverged && !errors.Is(err, lease.ErrFenced), (got == lineage.Foreign ||
				got == lineage.Stranger) && !errors.Is(err, ErrForeign):
				t.Errorf("verdict %s, error %v", got, err)
			}
		})
	}
}

func takes(id string) func(*testing.T, *known) { return reaches(id, 0) }

// reaches makes the state directory know a lineage, and that a replica of it once reached txid.
func reaches(id string, txid ltx.TXID) func(*testing.T, *known) {
	return func(t *testing.T, k *known) {
		if _, err := k.o.Custody.Take(lineage.Continue, id, txid, "them"); err != nil {
			t.Fatal(err)
		}
	}
}

func follows(id string) func(*testing.T, *known) {
	return func(t *testing.T, k *known) {
		takes("line")(t, k)
		if _, err := k.o.Custody.Take(lineage.Succeed, id, 0, "them"); err != nil {
			t.Fatal(err)
		}
	}
}

func identified(t *testing.T, k *known) {
	if k.o.Original.Identify(k.path); k.o.Original.Get().File == "" {
		t.Error("the file system has no birth times: the test proves nothing")
	}
}

func noted(id string, txid ltx.TXID) func(*testing.T, *known) {
	return func(t *testing.T, k *known) {
		if err := lineage.Leave(k.path, id, txid); err != nil {
			t.Fatal(err)
		}
		identified(t, k)
	}
}

// TestJudge_C14_doubt: if continuity is in doubt, the database is compared before its replica is
// called foreign. If it is still unknown then, the error is a transient one, not one that needs an
// operator.
func TestJudge_C14_doubt(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	takes("line")(t, k)
	at := k.spool.Position()
	at.Doubt = "a crash"
	if err := k.spool.Restate(at); err != nil {
		t.Fatal(err)
	}
	s := of("other", tip(8, "8000000000000001"))
	if _, err := k.Judge(t.Context(), s); k.compared != 1 || !errors.Is(err, lease.ErrConfirming) || len(k.judged) != 0 {
		t.Errorf("compared %d times, %v, told %v", k.compared, err, k.judged)
	}
	at.Doubt = ""
	if err := k.spool.Restate(at); err != nil {
		t.Fatal(err)
	}
	k.add(t, 8) // what the comparison captured
	s.Tip.Checksum = k.sums[8].String()
	if v, err := k.Judge(t.Context(), s); v != lineage.Continue || err != nil {
		t.Errorf("after the comparison: %s, %v", v, err)
	}
}

// TestAgrees: the next file joins the replica's tip if the tip is the state that we know by its
// TXID, or if none of our waiting segments follows it.
func TestAgrees(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	for name, tt := range map[string]struct {
		tip  catalog.Tip
		from ltx.TXID
		want bool
	}{
		"nothing there":                      {catalog.Tip{}, 0, true},
		"the state of that number":           {tip(6, k.sums[6].String()), 0, true},
		"another state of that number":       {tip(6, k.sums[5].String()), 0, false},
		"that number, and it does not tell":  {tip(6, ""), 0, false},
		"where capture's position came from": {tip(6, k.sums[5].String()), 6, true},
		"before what waits, the same chain":  {catalog.Tip{TXID: 4, Lineage: "chain"}, 0, true},
		"before what waits, another chain":   {catalog.Tip{TXID: 4, Lineage: "another"}, 0, false},
		"far behind: a snapshot is next":     {catalog.Tip{TXID: 2, Lineage: "another"}, 0, true},
	} {
		if got := k.Agrees(tt.tip, tt.from); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestTake: the state directory's lineage is chosen once at random, or taken over from the first
// replica that is proven ours, and is kept over a restart.
func TestTake(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := New(dir)
	if err := c.Load(); err != nil {
		t.Fatal(err)
	}
	id, err := c.Take(lineage.Continue, "theirs", 7, "them")
	if err != nil || id != "theirs" {
		t.Fatalf("%q, %v", id, err)
	}
	if id, err = c.Take(lineage.Succeed, "another", 3, "whom it follows"); err != nil || id != "theirs" {
		t.Errorf("%q, %v", id, err)
	}
	again := New(dir)
	if err := again.Load(); err != nil || LineageOf(dir) != "theirs" {
		t.Errorf("%v; lineage %q", err, LineageOf(dir))
	}
	if s := again.Get(); s.Reached != 7 || len(s.Succeeds) != 1 || s.Succeeds[0] != "another" ||
		!slices.Equal(s.Writers, []string{"them"}) {
		t.Errorf("%+v", s)
	}
	for i := range 2 * maxWriters {
		if _, err := c.Take(lineage.Continue, "theirs", 7, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if w := c.Get().Writers; len(w) != maxWriters || w[maxWriters-1] != fmt.Sprint(2*maxWriters-1) {
		t.Errorf("the writers known, of many: %q", w)
	}
	first, second := New(t.TempDir()), New(t.TempDir())
	a, aerr := first.Take(lineage.Begin, "", 0, "")
	b, berr := second.Take(lineage.Begin, "", 0, "")
	if aerr != nil || berr != nil || a == "" || a == b {
		t.Errorf("two new lineages are %q and %q, %v, %v", a, b, aerr, berr)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.Load(); err == nil {
		t.Error("a file of a later version was read")
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"version`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.Load(); err != nil || again.Get().ID != "" {
		t.Errorf("a corrupt file: %v, %+v; want none", err, again.Get())
	}
}

// TestUnread: files that were sent are remembered over a restart until they were read back.
func TestUnread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := NewStateFile(dir, "s3/main")
	for _, u := range []Unread{{Key: "a"}, {Key: "b", Size: 1, Ending: []byte("x")}, {Key: "a", Size: 2}} {
		if err := f.Sent(u); err != nil {
			t.Fatal(err)
		}
	}
	again := NewStateFile(dir, "s3/main")
	if err := again.Load(); err != nil {
		t.Fatal(err)
	}
	if got := again.Get().Unread; len(got) != 2 || got[0].Key != "b" || got[1].Size != 2 {
		t.Errorf("%+v", got)
	}
	again.ReadBack("b")
	if got := again.Get().Unread; len(got) != 1 || got[0].Key != "a" {
		t.Errorf("%+v", got)
	}
}

// TestBehind_C14: our chain begins behind everything that another writer may still have under way,
// even if that writer has begun a chain of its own of which nothing has arrived.
func TestBehind_C14(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	takes("line")(t, k)
	began := after(of("other", tip(6, "")), "before")
	began.Line.Predecessors[0].Until = LeapOver(6)
	own := began
	own.Line.ID = "line"
	for name, tt := range map[string]struct {
		see  Sight
		want ltx.TXID
	}{
		"the first lineage":               {of("other", tip(6, "")), LeapOver(6)},
		"one that has stored nothing":     {began, LeapOver(LeapOver(6))},
		"ours, named, and nothing stored": {own, LeapOver(6)},
		"one that has stored its first files": {after(of("other", tip(LeapOver(6)+2, "")), "before"),
			LeapOver(LeapOver(6) + 2)},
	} {
		if got := k.Behind(tt.see); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
