package replicator_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// unanswered is a store that stores objects below a prefix, corrupting the first one if damage is
// set, but never answers those writes, as if sqlwatch had crashed at that point.
type unanswered struct {
	*storetest.Memory
	prefix string
	damage bool
	away   atomic.Bool
}

func (u *unanswered) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	object, err := u.Memory.Put(ctx, key, body, o)
	if err == nil && strings.HasPrefix(key, u.prefix) && u.away.CompareAndSwap(false, true) && u.damage {
		u.Tamper(key, func(data []byte) []byte { data[len(data)-1] ^= 1; return data })
	}
	if u.away.Load() && strings.HasPrefix(key, u.prefix) {
		<-ctx.Done()
		return object, errors.Join(store.ErrUnavailable, ctx.Err())
	}
	return object, err
}

// TestSnapshot_S16_crashBeforeReadBack: sqlwatch ends after a snapshot is stored and before it is
// read back. The next process reads it before it builds on it: a corrupt one is deleted and stored
// again, an intact one stays.
func TestSnapshot_S16_crashBeforeReadBack(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]bool{"whole": false, "corrupt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			m := storetest.NewMemory()
			r := replica("memory.a", m)
			h := newHost(t, path, r)
			h.options.FinalSync = quick
			h.begin()
			w.commit(3)
			h.synced()
			h.halt()
			u := &unanswered{Memory: m, prefix: store.LevelPrefix(store.SnapshotLevel), damage: damage}
			h.options.Replicas = []replicator.ReplicaOptions{replica("memory.a", u)}
			h.begin()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			w.commit(3)
			go func() { done <- h.r.SnapshotNow(ctx) }()
			h.eventually("a snapshot is stored", u.away.Load)
			cancel()
			if err := <-done; err == nil {
				t.Fatal("the snapshot succeeded: the test proves nothing")
			}
			h.halt()
			before := count(m.Keys(), "0009/")
			h.options.Replicas = []replicator.ReplicaOptions{r}
			h.begin()
			h.synced()
			var corrupt []string
			for _, key := range m.Keys() {
				level, min, max, err := store.ParseLTXKey(key)
				if err != nil || level != store.SnapshotLevel {
					continue
				}
				f := store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: store.Object{Key: key}}
				if _, err := restore.VerifyObject(t.Context(), m, f); err != nil {
					corrupt = append(corrupt, key)
				}
			}
			if len(corrupt) > 0 {
				t.Errorf("corrupt snapshots stay: %q", corrupt)
			}
			if n := count(m.Keys(), "0009/"); !damage && n != before {
				t.Errorf("%d snapshots, %d before the restart", n, before)
			}
			wantRestored(t, m, path)
		})
	}
}
