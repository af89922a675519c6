package catalog

import (
	"context"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// FuzzListing makes plans for replicas with arbitrary keys: a plan reaches exactly the TXID that
// was asked for, from a snapshot, without a gap. The contents of the files do not matter.
func FuzzListing(f *testing.F) {
	f.Add([]byte{9, 1, 0, 0, 2, 0, 0, 3, 0, 1, 2, 1}, uint16(3), "")
	f.Add([]byte{9, 1, 4, 1, 6, 2, 0, 9, 0, 0, 5, 3}, uint16(9), "ltx/0000/x\nlineage.json\n../up\nltx//")
	f.Add([]byte{0, 1, 0}, uint16(0), "generations/0123456789abcdef/wal/00000000_00000000.wal.lz4")
	f.Fuzz(func(t *testing.T, files []byte, asked uint16, name string) {
		ctx := context.Background()
		m := storetest.NewMemory()
		put := func(key string) {
			// A store may refuse the name; then it is not in the replica.
			m.Put(ctx, key, storetest.Bytes([]byte("contents")), store.PutOptions{}) //nolint:errcheck // see above
		}
		for ; len(files) >= 3; files = files[3:] {
			low := ltx.TXID(files[1]) + 1
			high := low + ltx.TXID(files[2]%32)
			if level := int(files[0] % 10); level == store.SnapshotLevel {
				put(store.LTXKey(level, 1, high))
			} else {
				put(store.LTXKey(level, low, high))
			}
		}
		put(name)
		plan, err := MakePlan(ctx, m, Target{TXID: ltx.TXID(asked)})
		if err != nil {
			return
		}
		if len(plan.Files) == 0 || plan.Files[0].MinTXID != 1 {
			t.Fatalf("the plan does not begin with a snapshot: %+v", plan.Files)
		}
		reached := ltx.TXID(0)
		for _, file := range plan.Files {
			if file.MinTXID > reached+1 || file.MaxTXID <= reached {
				t.Fatalf("after txid %d comes %+v", reached, file)
			}
			reached = file.MaxTXID
		}
		if reached != plan.TXID || asked != 0 && plan.TXID != ltx.TXID(asked) {
			t.Fatalf("asked for %d, the plan says %d and reaches %d", asked, plan.TXID, reached)
		}
	})
}
