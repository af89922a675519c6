package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// start is when the generated replicas begin; batch n is taken n seconds after it.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func batchTime(txid ltx.TXID) time.Time { return start.Add(time.Duration(txid) * time.Second) }

// putEmpty stores a file that has only a key and a header.
func putEmpty(t testing.TB, m *storetest.Memory, level int, min, max ltx.TXID, metadata bool) {
	t.Helper()
	header := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: min,
		MaxTXID: max, Timestamp: batchTime(max).UnixMilli()}
	data, err := header.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var meta map[string]string
	if metadata {
		meta = map[string]string{store.MetaTimestamp: batchTime(max).Format(time.RFC3339Nano)}
	}
	if _, err := m.Put(context.Background(), store.LTXKey(level, min, max), storetest.Bytes(data),
		store.PutOptions{Metadata: meta}); err != nil {
		t.Fatal(err)
	}
}

// busyReplica returns a replica of n batches, compacted to files of 30, 300 and 3600, with one
// snapshot a day.
func busyReplica(t testing.TB, n ltx.TXID, metadata bool) *storetest.Memory {
	t.Helper()
	m := storetest.NewMemory()
	for level, span := range []ltx.TXID{1, 30, 300, 3600} {
		for max := span; max <= n; max += span {
			putEmpty(t, m, level, max-span+1, max, metadata)
		}
	}
	for max := ltx.TXID(10_007); max <= n; max += 86_400 {
		putEmpty(t, m, store.SnapshotLevel, 1, max, metadata)
	}
	return m
}

func TestPlan_S30_requests(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	n := ltx.TXID(100_000)
	m := busyReplica(t, n, true)
	rnd := rand.New(rand.NewPCG(1, 2))
	count := func(target catalog.Target) (*catalog.Plan, int) {
		t.Helper()
		before := m.Requests()
		plan, err := catalog.MakePlan(ctx, m, target)
		if err != nil {
			t.Fatal(err)
		}
		after := m.Requests()
		return plan, after["list"] + after["get"] + after["head"] - before["list"] - before["get"] - before["head"]
	}
	most := 0
	for i := range 60 {
		txid := 1 + ltx.TXID(rnd.Uint64N(uint64(n)-1))
		target, kind := catalog.Target{TXID: txid}, "txid"
		if i%2 == 0 {
			target, kind = catalog.Target{Timestamp: batchTime(txid).Add(300 * time.Millisecond)}, "timestamp"
		}
		plan, requests := count(target)
		if plan.TXID != txid {
			t.Fatalf("%s %d: planned %d", kind, txid, plan.TXID)
		}
		checkChain(t, plan)
		if requests > 96 {
			t.Errorf("%s %d: %d requests", kind, txid, requests)
		}
		most = max(most, requests)
	}
	plan, requests := count(catalog.Target{})
	if plan.TXID != n || requests > 96 {
		t.Errorf("latest: txid %d, %d requests", plan.TXID, requests)
	}
	t.Logf("%d objects: latest in %d requests, a txid or timestamp in at most %d; the plan has %d files", len(m.Keys()),
		requests, most, len(plan.Files))
}

func checkChain(t *testing.T, plan *catalog.Plan) {
	t.Helper()
	at := ltx.TXID(0)
	for i, f := range plan.Files {
		if i == 0 && f.MinTXID != 1 || f.MinTXID > at+1 || f.MaxTXID <= at {
			t.Fatalf("file %d of the plan, %s, does not follow %d", i, f.Object.Key, at)
		}
		at = f.MaxTXID
	}
	if at != plan.TXID {
		t.Fatalf("the plan ends at %d, not at %d", at, plan.TXID)
	}
}

func TestPlan_S29_timesOfTheHeader(t *testing.T) {
	m := busyReplica(t, 20_000, false) // without metadata, and Object.Modified is today
	for _, txid := range []ltx.TXID{1, 2, 9_999, 10_006, 10_007, 10_008, 15_000, 19_999, 20_000} {
		plan, err := catalog.MakePlan(context.Background(), m, catalog.Target{Timestamp: batchTime(txid)})
		if err != nil || plan.TXID != txid || !plan.Timestamp.Equal(batchTime(txid)) {
			t.Errorf("time of txid %d: %+v, %v", txid, plan, err)
		}
	}
}

func TestPlan_R13_strangersKeys(t *testing.T) {
	ctx := context.Background()
	m := storetest.NewMemory()
	for txid := ltx.TXID(1); txid <= 3; txid++ {
		putEmpty(t, m, 0, txid, txid, true)
	}
	for i := range 2500 {
		for _, format := range []string{"0000/../../etc/passwd%d", "0000/0000000000000002-x%d.ltx", "000a/%d",
			"0000/0000000000000002-0000000000000003.ltx.tmp%d", "a%d", "0001/%d"} {
			if _, err := m.Put(ctx, fmt.Sprintf(format, i), storetest.Bytes(nil), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	plan, err := catalog.MakePlan(ctx, m, catalog.Target{})
	if err != nil || len(plan.Files) != 3 || plan.TXID != 3 {
		t.Errorf("among strangers: %+v, %v", plan, err)
	}
}

// TestPlanAgainstBruteForce compares plans with a search over the whole listing.
func TestPlanAgainstBruteForce(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m := storetest.NewMemory()
		m.ListMetadata = seed%2 == 0
		type span struct{ min, max ltx.TXID }
		var spans []span
		for range 1 + rnd.IntN(40) {
			s := span{min: 1 + ltx.TXID(rnd.IntN(30))}
			if rnd.IntN(6) == 0 {
				s.min = 1
			}
			s.max = s.min + ltx.TXID(rnd.IntN(6)*rnd.IntN(4))
			putEmpty(t, m, rnd.IntN(4), s.min, s.max, true)
			spans = append(spans, s)
		}
		reachable := map[ltx.TXID]bool{0: true}
		last := ltx.TXID(0)
		for range spans {
			for _, s := range spans {
				for at := range reachable {
					if s.min == 1 || at > 0 && s.min <= at+1 && s.max > at {
						reachable[s.max] = true
					}
				}
				last = max(last, s.max)
			}
		}
		for txid := ltx.TXID(1); txid <= last+1; txid++ {
			plan, err := catalog.MakePlan(ctx, m, catalog.Target{TXID: txid})
			if (err == nil) != reachable[txid] {
				t.Fatalf("seed %d: txid %d can be reached: %v; plan: %v", seed, txid, reachable[txid], err)
			}
			if err == nil {
				checkChain(t, plan)
			}
		}
		plan, err := catalog.MakePlan(ctx, m, catalog.Target{})
		if (err == nil) != reachable[last] || err == nil && plan.TXID != last {
			t.Fatalf("seed %d: the newest state %d can be reached: %v; plan: %+v, %v", seed, last, reachable[last], plan, err)
		}
	}
}

// TestPlan_R2_momentInAHole: a moment in a hole is an error that names the hole, and does not yield
// the state before. The moment of the last batch before the hole is no error, and neither is a
// moment that a remaining file covers.
func TestPlan_R2_momentInAHole(t *testing.T) {
	t.Parallel()
	const between = 500 * time.Millisecond
	type file struct {
		level    int
		min, max ltx.TXID
	}
	for name, tt := range map[string]struct {
		files []file
		at    time.Time
		want  ltx.TXID
		gap   *catalog.GapError
	}{
		"before it": {[]file{{9, 1, 1}, {0, 2, 2}, {0, 3, 3}, {0, 5, 5}}, batchTime(2).Add(between), 2,
			nil},
		"at its edge": {[]file{{9, 1, 1}, {0, 2, 2}, {0, 3, 3}, {0, 5, 5}}, batchTime(3), 3, nil},
		"in it": {[]file{{9, 1, 1}, {0, 2, 2}, {0, 3, 3}, {0, 5, 5}}, batchTime(3).Add(between), 0,
			&catalog.GapError{From: 4, To: 4, Reached: 3}},
		"behind it": {[]file{{9, 1, 1}, {0, 2, 2}, {0, 3, 3}, {0, 5, 5}}, batchTime(5), 0,
			&catalog.GapError{From: 4, To: 4, Reached: 3}},
		"thinned out": {[]file{{9, 1, 1}, {0, 2, 2}, {1, 2, 9}, {0, 10, 10}}, batchTime(4), 2, nil},
		"a chain kept for itself": {[]file{{9, 1, 10}, {2, 11, 20}, {9, 1, 500}, {0, 501, 501}}, batchTime(100), 0,
			&catalog.GapError{From: 21, To: 499, Reached: 20}},
		"the same with no file behind": {[]file{{9, 1, 10}, {2, 11, 20}, {9, 1, 500}}, batchTime(100), 0,
			&catalog.GapError{From: 21, To: 499, Reached: 20}},
		"in a kept chain":         {[]file{{9, 1, 10}, {2, 11, 20}, {9, 1, 500}, {0, 501, 501}}, batchTime(15), 10, nil},
		"before a whole database": {[]file{{9, 1, 1}, {0, 2, 2}, {9, 1, 3}, {0, 4, 4}}, batchTime(2).Add(between), 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := storetest.NewMemory()
			for _, f := range tt.files {
				putEmpty(t, m, f.level, f.min, f.max, true)
			}
			plan, err := catalog.MakePlan(context.Background(), m, catalog.Target{Timestamp: tt.at})
			var gap *catalog.GapError
			switch {
			case tt.gap == nil && (err != nil || plan.TXID != tt.want):
				t.Errorf("planned %+v, %v; want txid %d", plan, err, tt.want)
			case tt.gap != nil && (!errors.As(err, &gap) || *gap != *tt.gap):
				t.Errorf("planned %+v, %v; want %v", plan, err, tt.gap)
			}
		})
	}
}

// TestPlan_momentBetweenChains: no file is missing between two chains. The last state of the first
// chain is the state until the next chain begins.
func TestPlan_momentBetweenChains(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	for txid := ltx.TXID(1); txid <= 3; txid++ {
		putEmpty(t, m, 0, txid, txid, true)
	}
	putEmpty(t, m, 0, 1, 2*catalog.ChainStep, true)
	putEmpty(t, m, 0, 2*catalog.ChainStep+1, 2*catalog.ChainStep+1, true)
	plan, err := catalog.MakePlan(context.Background(), m, catalog.Target{Timestamp: batchTime(100)})
	if err != nil || plan.TXID != 3 {
		t.Errorf("between chains: %+v, %v; want txid 3", plan, err)
	}
}
