package replicator

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/progress"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestNeeded: a full copy is needed because of the amount of changes, the age of the last one, or
// missing files, but not because something was uploaded during the check.
func TestNeeded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	m := storetest.NewMemory()
	put := func(level int, min, max ltx.TXID, size int) store.LTXFile {
		t.Helper()
		body := store.Body{Size: int64(size), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(make([]byte, size))), nil
		}}
		object, err := m.Put(t.Context(), store.LTXKey(level, min, max), body, store.PutOptions{
			Metadata: map[string]string{store.MetaTimestamp: now.UTC().Format(time.RFC3339Nano)}})
		if err != nil {
			t.Fatal(err)
		}
		return store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object}
	}
	clock := func() time.Time { return now }
	p := progress.New(slog.New(slog.DiscardHandler), clock, "memory.a", time.Second)
	var meanwhile func()
	s := &snapshotter{
		name: "memory.a", log: slog.New(slog.DiscardHandler), every: time.Hour, full: 24 * time.Hour, progress: p,
		store: storetest.NewFaulty(m, func(op, _ string, _ int) storetest.Fault {
			if f := meanwhile; op == "list" && f != nil {
				meanwhile = nil
				f()
			}
			return storetest.None
		}),
	}
	want := func(what string, want bool) {
		t.Helper()
		if got, err := s.needed(t.Context(), now); got != want || err != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	p.Found(catalog.Tip{TXID: 1, Base: 1}, 1)
	p.Snapshots(now, now)
	put(store.SnapshotLevel, 1, 1, 1000)
	p.Advance(put(0, 2, 2, 100), now, now, false)
	want("little changed", false)
	seen := 0
	meanwhile = func() { // after the listing in which the file would have been
		seen++
		p.Advance(store.LTXFile{MinTXID: 3, MaxTXID: 3}, now, now, false)
	}
	want("an upload meanwhile", false)
	if seen != 1 {
		t.Error("nothing was uploaded meanwhile")
	}
	want("txid 3 is missing", true)
	put(0, 3, 3, 100)
	want("it is there", false)
	p.Advance(put(0, 4, 4, 400), now, now, false)
	want("more than half changed", true)
	p.Found(catalog.Tip{TXID: 5, Base: 5}, 5)
	put(store.SnapshotLevel, 1, 5, 1000)
	want("a new one", false)
	now = now.Add(24 * time.Hour)
	want("its age", true)
}
