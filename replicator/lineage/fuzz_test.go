package lineage

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// FuzzRead reads arbitrary bytes as a lineage. The result is a lineage with an id, or an error that
// says the bytes are corrupt.
func FuzzRead(f *testing.F) {
	for _, data := range []string{`{"id":"a"}`,
		`{"id":"a","predecessors":[{"id":"b","until":"00ff","keep_seconds":1e300}]}`,
		`{"id":1}`, `{}`, "", "null", `{"id":"a","made":"0001-01-01T00:00:00Z"}`} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := storetest.NewMemory()
		if _, err := m.Put(context.Background(), Key, storetest.Bytes(data), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := Read(context.Background(), m)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%q: %v, want store.ErrCorrupt", data, err)
			}
			return
		}
		if !got.Found || got.ID == "" || !got.Follows(got.ID) {
			t.Errorf("%q: %+v", data, got)
		}
		got.Spared(ltx.TXID(len(data)), time.Unix(1e9, 0))
	})
}
