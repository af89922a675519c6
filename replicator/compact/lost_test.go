package compact

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestCompact_S16_lostOutput: a merged file that is corrupt or gone costs no restore point while its inputs are in the
// store: they are merged in its place. If one of them is gone too, there is a gap.
func TestCompact_S16_lostOutput(t *testing.T) {
	t.Parallel()
	lost := store.LTXKey(1, 2, 4)
	input := store.LTXKey(0, 3, 3)
	for name, tt := range map[string]struct {
		harm func(t *testing.T, m *storetest.Memory)
		lost []string
		keys []string // that are to be there at the end
	}{
		"corrupt": {func(_ *testing.T, m *storetest.Memory) {
			m.Tamper(lost, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
		}, nil, []string{store.LTXKey(2, 2, 7)}},
		"gone": {func(t *testing.T, m *storetest.Memory) {
			t.Helper()
			if err := m.Delete(t.Context(), lost); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{store.LTXKey(2, 2, 7)}},
		"with an input": {func(t *testing.T, m *storetest.Memory) {
			t.Helper()
			if err := m.Delete(t.Context(), lost, input); err != nil {
				t.Fatal(err)
			}
		}, []string{lost}, []string{store.LTXKey(1, 5, 7)}},
		"with a corrupt input": {func(t *testing.T, m *storetest.Memory) {
			t.Helper()
			m.Tamper(input, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
			if err := m.Delete(t.Context(), lost); err != nil {
				t.Fatal(err)
			}
		}, []string{input}, []string{store.LTXKey(2, 4, 7)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := storetest.NewMemory()
			now := time.Unix(1_700_000_000, 0).Truncate(5 * time.Minute)
			c := New(Options{
				ReadBack: func(string) {}, Store: m, Scratch: t.TempDir(), Clock: func() time.Time { return now },
				Logger: slog.New(slog.DiscardHandler), Hold: func(context.Context) error { return nil },
				Create: func(ctx context.Context, key string, body store.Body, notes map[string]string) (store.Object, error) {
					return m.Put(ctx, key, body, store.PutOptions{Metadata: notes})
				},
			})
			for txid := ltx.TXID(2); txid <= 7; txid++ {
				if txid == 5 {
					now = now.Add(time.Minute)
				}
				object, err := m.Put(t.Context(), store.LTXKey(0, txid, txid), storetest.Bytes(file(t, txid)), store.PutOptions{})
				if err != nil {
					t.Fatal(err)
				}
				c.Add(store.LTXFile{MinTXID: txid, MaxTXID: txid, Object: object}, now)
			}
			now = now.Add(time.Minute)
			if r, err := c.Run(t.Context()); err != nil || len(r.Useless) > 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			tt.harm(t, m)
			now = now.Add(5 * time.Minute)
			r, err := c.Run(t.Context())
			var got []string
			for _, f := range r.Lost {
				got = append(got, f.Object.Key)
			}
			if err != nil || !slices.Equal(got, tt.lost) || !slices.Contains(r.Useless, lost) {
				t.Errorf("lost %q, useless %q, %v; want %q", got, r.Useless, err, tt.lost)
			}
			for _, key := range tt.keys {
				if !slices.Contains(m.Keys(), key) {
					t.Errorf("%s is not there: %q", key, m.Keys())
				}
			}
		})
	}
}
