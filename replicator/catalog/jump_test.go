package catalog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// put stores an empty file of the TXIDs from min to max, whose batch was taken at
// batchTime(second). If after is not 0, the file's metadata says that its chain follows that TXID.
func put(t *testing.T, m *storetest.Memory, level int, min, max ltx.TXID, second ltx.TXID, after ltx.TXID) {
	t.Helper()
	notes := map[string]string{store.MetaTimestamp: batchTime(second).Format(time.RFC3339Nano)}
	if after > 0 {
		notes[store.MetaAfter] = after.String()
	}
	if _, err := m.Put(t.Context(), store.LTXKey(level, min, max), storetest.Bytes(nil),
		store.PutOptions{Metadata: notes}); err != nil {
		t.Fatal(err)
	}
}

// TestPlan_R2_chainTellsWhatItFollows: the first states of a chain may be in no file, because the
// whole database is read a little later. That is no gap if the chain's first snapshot says which
// TXID it follows, and the replica has everything up to there: a moment in between yields the state
// before, with a doubt. It is a gap if some of that is missing, if the snapshot does not say what
// it follows, or if the chain could have stored those states.
func TestPlan_R2_chainTellsWhatItFollows(t *testing.T) {
	t.Parallel()
	const next = 10 * catalog.ChainStep // where the chain begins
	type file struct {
		level    int
		min, max ltx.TXID
		second   ltx.TXID
		after    ltx.TXID
	}
	before := []file{{9, 1, 1, 1, 0}, {0, 2, 2, 2, 0}, {0, 3, 3, 3, 0}}
	behind := []file{{0, next + 3, next + 3, 23, 0}, {0, next + 4, next + 4, 24, 0}}
	with := func(files ...file) []file { return append(append(files, before...), behind...) }
	gap := func(from, to, reached ltx.TXID) *catalog.GapError {
		return &catalog.GapError{From: from, To: to, Reached: reached}
	}
	first := file{9, 1, next + 2, 22, 3}
	for name, tt := range map[string]struct {
		files   []file
		second  ltx.TXID
		want    ltx.TXID
		next    ltx.TXID
		missing *catalog.GapError
	}{
		"told":                     {with(first), 12, 3, next + 2, nil},
		"told, of the time before": {with(first), 2, 2, 3, nil},
		"told, of the chain":       {with(first), 23, next + 3, next + 4, nil},
		"not told":                 {with(file{9, 1, next + 2, 22, 0}), 12, 0, 0, gap(4, next+1, 3)},
		"the end before is lost":   {with(file{9, 1, next + 2, 22, 5}), 12, 0, 0, gap(4, 5, 3)},
		"the end before is lost, of the very first TXID": {
			with(file{9, 1, next, 22, 5}, file{0, next + 1, next + 1, 22, 0},
				file{0, next + 2, next + 2, 22, 0}), 12, 0, 0, gap(4, 5, 3)},
		"files that rest on nothing": {
			with(first, file{0, next + 1, next + 1, 11, 0}, file{0, next + 2, next + 2, 22, 0}), 12,
			3, next + 2, nil},
		"files that rest on nothing, of a time before them": {
			with(first, file{0, next + 1, next + 1, 11, 0}), 10, 3, next + 2,
			nil},
		"they rest on a snapshot that came later": {
			with(file{9, 1, next + 3, 22, 3}, file{9, 1, next, 10, 0},
				file{0, next + 1, next + 1, 11, 0}), 12, 0, 0, gap(next+2, next+2, next+1)},
		"within one step": {[]file{{9, 1, 1, 1, 0}, {0, 2, 2, 2, 0}, {9, 1, 4, 22, 2}, {0, 5, 5, 23, 0}}, 12, 2, 4, nil},
		"a file is lost within one step": {
			[]file{{9, 1, 1, 1, 0}, {0, 2, 2, 2, 0}, {9, 1, 6, 22, 4}, {0, 7, 7, 23, 0}}, 12, 0,
			0, gap(3, 4, 2)},
	} {
		for _, listed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				m := storetest.NewMemory()
				m.ListMetadata = listed
				for _, f := range tt.files {
					put(t, m, f.level, f.min, f.max, f.second, f.after)
				}
				asked := batchTime(tt.second).Add(500 * time.Millisecond)
				plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: asked})
				if tt.missing != nil {
					var gap *catalog.GapError
					if !errors.As(err, &gap) || *gap != *tt.missing {
						t.Errorf("planned %+v, %v; want %v", plan, err, tt.missing)
					}
					return
				}
				if err != nil || plan.TXID != tt.want || plan.Next == nil || plan.Next.TXID != tt.next {
					t.Fatalf("planned %+v, %v; want txid %d before %d", plan, err, tt.want, tt.next)
				}
				doubt := plan.Doubt(3*time.Second, batchTime(100))
				if between := tt.second > 3 && tt.second < 22; between && doubt == nil {
					t.Error("no doubt, although there may have been another state")
				}
			})
		}
	}
	t.Run("by txid", func(t *testing.T) {
		m := storetest.NewMemory()
		for _, f := range with(first) {
			put(t, m, f.level, f.min, f.max, f.second, f.after)
		}
		_, err := catalog.MakePlan(t.Context(), m, catalog.Target{TXID: next})
		var between *catalog.RangeError
		if !errors.As(err, &between) || !between.Never || between.First.TXID != 3 || between.Last.TXID != next+2 ||
			!strings.Contains(err.Error(), "never stored") {
			t.Errorf("a txid that is in no file: %v", err)
		}
	})
}

// TestPlan_R2_holeBeforeAnotherChain: a file of the previous chain is lost. Moments of the next
// chain can still be restored.
func TestPlan_R2_holeBeforeAnotherChain(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	const next = 2 * catalog.ChainStep
	put(t, m, 9, 1, 1, 1, 0)
	put(t, m, 0, 3, 3, 3, 0)
	put(t, m, 9, 1, next, 1000, 0)
	put(t, m, 0, next+1, next+1, 2000, 0)
	put(t, m, 0, next+2, next+2, 2010, 0)
	plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: batchTime(2001)})
	if err != nil || plan.TXID != next+1 {
		t.Errorf("a moment of the next chain: %+v, %v; want txid %d", plan, err, next+1)
	}
	var gap *catalog.GapError
	plan, err = catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: batchTime(3)})
	if !errors.As(err, &gap) || gap.From != 2 || gap.To != 2 {
		t.Errorf("a moment after the hole: %+v, %v; want an error that names the hole", plan, err)
	}
}
