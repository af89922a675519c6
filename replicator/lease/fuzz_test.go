package lease

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// FuzzRead reads arbitrary bytes as a lease. The result is a note with a bounded life, or an error
// that says the bytes are corrupt.
func FuzzRead(f *testing.F) {
	whole, err := json.Marshal(Note{Fence: 7, Nonce: "n", Owner: "host", Life: 30, Expires: time.Unix(1e9, 0)})
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range []string{string(whole), `{"life_seconds":1e300}`, `{"life_seconds":-1}`, `{"fence":-1}`, "", "[]",
		"null"} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := storetest.NewMemory()
		if _, err := m.Put(context.Background(), Key, storetest.Bytes(data), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		note, etag, found, err := Read(context.Background(), m)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%q: %v, want store.ErrCorrupt", data, err)
			}
			return
		}
		if !found || etag == "" {
			t.Errorf("%q: found %v, ETag %q", data, found, etag)
		}
		if life := note.life(); life < busyLife || life > time.Hour {
			t.Errorf("%q: other hosts would wait for %v", data, life)
		}
	})
}
