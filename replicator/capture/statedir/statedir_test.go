package statedir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const pageSize = 512

// keeper is a state directory and the database that it describes, page by page.
type keeper struct {
	t     *testing.T
	dir   *Dir
	path  string
	now   time.Time
	pages map[uint32]byte // what each page is filled with
	asked int             // how often the replica was asked
}

func newKeeper(t *testing.T) *keeper {
	return &keeper{t: t, path: t.TempDir(), now: time.Unix(1e9, 0), pages: map[uint32]byte{}}
}

// fromReplica returns the state that every keeper's replica reports.
func fromReplica() (ltx.TXID, store.PageSums) {
	return 100, store.PageSums{PageSize: pageSize, Lineage: "of the replica", Timestamp: time.Unix(9e8, 0),
		Sums: []ltx.Checksum{1 << 63, 1<<63 | 7}}
}

// open opens the directory, as a process does when it starts.
func (k *keeper) open() Origin {
	k.t.Helper()
	k.dir = &Dir{Path: k.path, Clock: func() time.Time { return k.now }, Log: slog.New(slog.DiscardHandler),
		Recover: func(context.Context) (ltx.TXID, store.PageSums, error) {
			k.asked++
			txid, sums := fromReplica()
			return txid, sums, nil
		}}
	from, err := k.dir.Open(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	return from
}

// begin makes the state directory of a database of n pages after its first capture, which made no
// segment.
func (k *keeper) begin(n uint32) {
	k.t.Helper()
	k.dir = &Dir{Path: k.path, Clock: func() time.Time { return k.now }, Log: slog.New(slog.DiscardHandler)}
	if from, err := k.dir.Open(k.t.Context()); err != nil || from != FromNothing {
		k.t.Fatalf("an empty directory: %v, %v", from, err)
	}
	for page := range n {
		k.pages[page+1] = 1
	}
	p, w := k.compared()
	if err := k.dir.AdoptWhole(p, w, true); err != nil {
		k.t.Fatal(err)
	}
}

// compared returns the position and the map that a comparison of the whole database adopts.
func (k *keeper) compared() (spool.Position, *pagesums.Writer) {
	k.t.Helper()
	w, err := k.dir.CreateSums()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, page := range slices.Sorted(maps.Keys(k.pages)) {
		if err := w.Add(k.sum(page)); err != nil {
			k.t.Fatal(err)
		}
	}
	p := k.dir.Following(k.dir.Position(), false)
	p.PageSize, p.Pages, p.Checksum = pageSize, uint32(len(k.pages)), k.checksum()
	return p, w
}

func (k *keeper) sum(page uint32) ltx.Checksum {
	return ltx.ChecksumPage(page, bytes.Repeat([]byte{k.pages[page]}, pageSize))
}

// checksum returns the checksum of the database, computed as it is defined.
func (k *keeper) checksum() ltx.Checksum {
	sum := ltx.ChecksumFlag
	for page := range k.pages {
		sum = ltx.ChecksumFlag | (sum ^ k.sum(page))
	}
	return sum
}

// segment makes a durable segment of the changed pages, after which the database has commit pages,
// and returns what is to be adopted.
func (k *keeper) segment(commit uint32, changed map[uint32]byte) (spool.Position, []pagesums.Change) {
	k.t.Helper()
	for page := range k.pages {
		if page > commit {
			delete(k.pages, page)
		}
	}
	maps.Copy(k.pages, changed)
	p := k.dir.Following(k.dir.Position(), true)
	p.Pages, p.Checksum = commit, k.checksum()
	w, err := k.dir.Spool().Create(ltx.Header{PageSize: pageSize, Commit: commit, MinTXID: p.TXID, MaxTXID: p.TXID,
		Timestamp: p.Timestamp})
	if err != nil {
		k.t.Fatal(err)
	}
	var changes []pagesums.Change
	for _, page := range slices.Sorted(maps.Keys(changed)) {
		if err := w.Add(page, bytes.Repeat([]byte{changed[page]}, pageSize)); err != nil {
			k.t.Fatal(err)
		}
		changes = append(changes, pagesums.Change{Page: page, Sum: k.sum(page)})
	}
	r, err := w.Finish(p, "")
	if err == nil {
		err = w.Commit(r)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return p, changes
}

// adopted makes a segment and adopts it.
func (k *keeper) adopted(commit uint32, changed map[uint32]byte) {
	k.t.Helper()
	p, changes := k.segment(commit, changed)
	if err := k.dir.Adopt(p, changes); err != nil {
		k.t.Fatal(err)
	}
}

// wrong describes how position and map differ from the database, or returns "".
func (k *keeper) wrong() string {
	k.t.Helper()
	p := k.dir.Position()
	if p.Pages != uint32(len(k.pages)) || p.Checksum != k.checksum() || p.PageSize != pageSize {
		return fmt.Sprintf("position %+v of a database of %d pages, checksum %s", p, len(k.pages), k.checksum())
	}
	next := k.dir.Sums().Entries()
	for page := range uint32(len(k.pages)) + 1 {
		sum, err := next()
		want := ltx.Checksum(0)
		if page < uint32(len(k.pages)) {
			want = k.sum(page + 1)
		}
		if err != nil || sum != want {
			return fmt.Sprintf("page %d: %s, %v; want %s", page+1, sum, err, want)
		}
	}
	return ""
}

func (k *keeper) want(what string, from, wanted Origin) {
	k.t.Helper()
	if wrong := k.wrong(); from != wanted || wrong != "" {
		k.t.Errorf("%s: opened from %v, want %v; %s", what, from, wanted, wrong)
	}
}

// history makes a database that grows, shrinks and grows again.
func (k *keeper) history() {
	k.t.Helper()
	k.begin(9)
	k.adopted(9, map[uint32]byte{2: 5, 9: 5})
	k.adopted(12, map[uint32]byte{1: 6, 10: 6, 11: 6, 12: 6})
	k.adopted(4, map[uint32]byte{1: 7})
	k.adopted(6, map[uint32]byte{2: 8, 5: 8, 6: 8})
}

// TestOpen_P1: the process is killed between storing a segment and updating the page-checksum map.
// The segments in the spool are the map's redo log.
func TestOpen_P1(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		leave func(*keeper) // does what the process did last
		want  Origin
	}{
		"ended in order":            {func(k *keeper) { k.close() }, FromHere},
		"before the map was synced": {func(k *keeper) { k.abandon() }, FromHere},
		"after a segment was durable": {func(k *keeper) {
			k.segment(8, map[uint32]byte{3: 9, 7: 9, 8: 9})
			k.abandon()
		}, FromHere},
		"in the middle of the map": {func(k *keeper) {
			_, changes := k.segment(8, map[uint32]byte{3: 9, 7: 9, 8: 9})
			if err := k.dir.Sums().Put(changes[1:]); err != nil {
				k.t.Fatal(err)
			}
			k.abandon()
		}, FromHere},
		"the map was cut before a segment was durable": {func(k *keeper) {
			k.abandon()
			k.file(func(b []byte) []byte { return b[:len(b)-8] }, sumsName)
		}, FromHere},
		"the map is gone": {func(k *keeper) {
			k.abandon()
			k.file(nil, sumsName)
		}, FromReplica}, // no segment has what the first comparison read
		"between a comparison's map and its position": {func(k *keeper) {
			k.pages[2] = 99
			p, w := k.compared()
			if err := w.Commit(p.TXID, p.PageSize); err != nil {
				k.t.Fatal(err)
			}
			k.abandon()
		}, FromReplica},
		"after a comparison": {func(k *keeper) {
			k.pages[2] = 99
			p, w := k.compared()
			if err := k.dir.AdoptWhole(p, w, false); err != nil {
				k.t.Fatal(err)
			}
			k.abandon()
		}, FromHere},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeeper(t)
			k.history()
			tc.leave(k)
			from := k.open()
			if from == FromReplica && tc.want == FromReplica {
				k.wantReplica()
			} else {
				k.want(name, from, tc.want)
			}
			k.close()
		})
	}
}

// close closes the directory in order; abandon leaves it as a killed process does.
func (k *keeper) close()   { k.t.Helper(); k.fatal(k.dir.Close()) }
func (k *keeper) abandon() { k.t.Helper(); k.fatal(k.dir.Abandon()) }

func (k *keeper) fatal(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// file rewrites a file of the directory with change; if change is nil, it removes the file.
func (k *keeper) file(change func([]byte) []byte, name string) {
	k.t.Helper()
	path := filepath.Join(k.path, name)
	if change == nil {
		k.fatal(os.Remove(path))
		return
	}
	b, err := os.ReadFile(path)
	k.fatal(err)
	k.fatal(os.WriteFile(path, change(b), 0o600))
}

// wantReplica checks that the state is the replica's, and that it does not count as proven.
func (k *keeper) wantReplica() {
	k.t.Helper()
	txid, sums := fromReplica()
	p, m := k.dir.Position(), k.dir.Sums()
	sum, err := m.Checksum()
	if p.TXID != txid || p.Lineage != sums.Lineage || p.Doubt == "" || p.Timestamp <= sums.Timestamp.UnixMilli() ||
		err != nil || sum != p.Checksum || m.Pages() != uint32(len(sums.Sums)) || len(k.dir.Spool().List()) != 0 {
		k.t.Errorf("position %+v, map of %d pages, %v; want the replica's", p, m.Pages(), err)
	}
}

// TestDamage_P12: whatever is wrong in the directory, it is either repaired from what is left or
// not trusted at all. A wrong map is never taken for that of the database.
func TestDamage_P12(t *testing.T) {
	t.Parallel()
	for _, released := range []bool{false, true} {
		template := newKeeper(t)
		template.history()
		if released {
			template.fatal(template.dir.Spool().Release(template.dir.Spool().Last()))
		}
		template.close()
		var names []string
		template.fatal(filepath.WalkDir(template.path, func(path string, e os.DirEntry, err error) error {
			if name, relErr := filepath.Rel(template.path, path); err == nil && relErr == nil && !e.IsDir() &&
				name != "capture.lock" {
				names = append(names, name)
			}
			return err
		}))
		for _, name := range names {
			for how, change := range map[string]func([]byte) []byte{
				"removed": nil,
				"emptied": func([]byte) []byte { return nil },
				"cut":     func(b []byte) []byte { return b[:len(b)-9] },
				"longer":  func(b []byte) []byte { return append(b, make([]byte, 8)...) },
				"first":   func(b []byte) []byte { b[0] ^= 1; return b },
				"middle":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
				"last":    func(b []byte) []byte { b[len(b)-3] ^= 1; return b },
			} {
				t.Run(fmt.Sprintf("%s %s, released %v", name, how, released), func(t *testing.T) {
					k := &keeper{t: t, path: t.TempDir(), now: template.now, pages: template.pages}
					k.fatal(os.CopyFS(k.path, os.DirFS(template.path)))
					k.file(change, name)
					switch from := k.open(); {
					case from == FromReplica && k.asked == 1:
						k.wantReplica()
					case from == FromHere && k.asked == 0:
						if wrong := k.wrong(); wrong != "" {
							t.Errorf("opened from the directory although it is wrong: %s", wrong)
						}
					default:
						t.Errorf("from %v, and the replica was asked %d times", from, k.asked)
					}
					k.close()
					if from := k.open(); from != FromHere { // what was repaired stays so
						t.Errorf("opened again from %v", from)
					}
					k.close()
				})
			}
		}
	}
}

// TestMend_S20: if the map could not be written, it counts as broken until it is made again.
func TestMend_S20(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.history()
	p, changes := k.segment(8, map[uint32]byte{3: 9, 7: 9, 8: 9})
	k.fatal(k.dir.Sums().Close()) // from now on writes to it fail
	if err := k.dir.Adopt(p, changes); err == nil || !k.dir.Broken() {
		t.Fatalf("the map was not written: %v, broken %v", err, k.dir.Broken())
	}
	k.dir.sums.current.Store(nil)
	k.fatal(k.dir.Mend())
	if wrong := k.wrong(); wrong != "" || k.dir.Broken() {
		t.Errorf("mended: %s, broken %v", wrong, k.dir.Broken())
	}
	k.adopted(8, map[uint32]byte{1: 10})
	k.close()
	k.want("after all", k.open(), FromHere)
	k.close()
}

// TestFollowing_R21: from which time on a segment covers commits. A failed attempt to store it does
// not change that, and what was not proven does not count.
func TestFollowing_R21(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.history()
	look := func(settled bool) time.Time {
		k.now = k.now.Add(time.Minute)
		k.dir.Look()
		k.dir.Seen(settled)
		return k.now
	}
	settled := look(true)
	met := look(false)
	k.now = k.now.Add(time.Minute)
	failed := k.dir.Following(k.dir.Position(), true)
	if since := failed.Taken.Since; !since.Equal(settled) {
		t.Errorf("covers since %v, want %v, when everything was in the spool", since, settled)
	}
	k.now = k.now.Add(time.Minute)
	k.adopted(6, map[uint32]byte{2: 11})
	if p := k.dir.Position(); p.TXID != failed.TXID || !p.Taken.Since.Equal(settled) || p.Timestamp <= failed.Timestamp {
		t.Errorf("after an attempt that failed: %+v, covers since %v, want %v", p, p.Taken.Since, settled)
	}
	if next := k.dir.Following(k.dir.Position(), true); !next.Taken.Since.Equal(met) {
		t.Errorf("the one after it covers since %v, want %v: what was committed before was seen", next.Taken.Since, met)
	}
	look(true)
	if next := k.dir.Following(k.dir.Position(), false); !next.Taken.Since.Equal(met) {
		t.Errorf("without proven continuity it covers since %v, want %v: commits may have come after", next.Taken.Since, met)
	}
	was := k.dir.Position()
	k.now = k.now.Add(-time.Hour)
	if next := k.dir.Following(was, true); next.Timestamp <= was.Timestamp || next.TXID != was.TXID+1 {
		t.Errorf("the clock was set back: %d after %d", next.Timestamp, was.Timestamp)
	}
	k.close()
	k.open()
	if next := k.dir.Following(k.dir.Position(), true); !next.Taken.Since.Equal(met) && !next.Taken.Since.Before(met) {
		t.Errorf("after a restart it covers since %v, want %v or before", next.Taken.Since, met)
	}
	k.close()
}

// TestOpen_P14: two processes that use one directory would each write their own history into it, so
// the second is refused.
func TestOpen_P14(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.history()
	held := (*durable.HeldError)(nil)
	second := &Dir{Path: k.path, Clock: time.Now, Log: k.dir.Log}
	if _, err := second.Open(t.Context()); !errors.As(err, &held) {
		t.Errorf("opened twice: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	k.adopted(6, map[uint32]byte{3: 12})
	k.close()
	k.want("after it", k.open(), FromHere)
	k.close()
}
