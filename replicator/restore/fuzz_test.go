package restore_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// FuzzRestore mutates the newest file of a small replica. A restore that succeeds must yield the
// right state.
func FuzzRestore(f *testing.F) {
	m, h := small(f, true)
	key := store.LTXKey(1, 2, 3)
	m.Tamper(key, func(data []byte) []byte { f.Add(bytes.Clone(data)); return data })
	f.Add([]byte(ltx.Magic))
	snapshot := h.encode(1, 1, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := storetest.NewMemory()
		for k, v := range map[string][]byte{store.LTXKey(0, 1, 1): snapshot, key: data} {
			if _, err := m.Put(context.Background(), k, storetest.Bytes(v), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got, _, err := restored(t, m, catalog.Target{}); err == nil && !bytes.Equal(got, h.states[3]) &&
			!ltxChecksumHolds(data) {
			t.Error("success with other contents")
		}
	})
}

// ltxChecksumHolds reports whether data is an intact LTX file: if its contents are others, only
// metadata could reveal it. Call it only with data that a restore has accepted, because ltx
// allocates as much memory as a corrupt file claims to need.
func ltxChecksumHolds(data []byte) bool {
	return ltx.NewDecoder(bytes.NewReader(data)).Verify() == nil
}

// FuzzLitestream03 mutates a segment of a replica of Litestream 0.3. A restore that succeeds must
// yield the newest state.
func FuzzLitestream03(f *testing.F) {
	m, states := v3Replica(f)
	keys := m.Keys()
	segment := keys[len(keys)-2]
	m.Tamper(segment, func(data []byte) []byte { f.Add(bytes.Clone(data)); return data })
	f.Add([]byte{0x04, 0x22, 0x4d, 0x18})
	f.Fuzz(func(t *testing.T, data []byte) {
		m.Tamper(segment, func([]byte) []byte { return bytes.Clone(data) })
		if got, _, err := restored(t, m, catalog.Target{}); err == nil && !bytes.Equal(got, states[2]) {
			t.Error("success with other contents than the newest state")
		}
	})
}
