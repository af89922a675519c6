package replicator_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// unanswering is a store that, while hung is set, does not answer uploads of merged files and
// snapshots. It reads the whole body before that if takes is set, and nothing of it otherwise.
type unanswering struct {
	*storetest.Memory
	takes bool
	hung  atomic.Bool
	held  atomic.Int32
}

func (u *unanswering) Put(
	ctx context.Context, key string, body store.Body, o store.PutOptions,
) (store.Object, error) {
	level, _, _, err := store.ParseLTXKey(key)
	if err != nil || level == 0 || !u.hung.Load() {
		return u.Memory.Put(ctx, key, body, o)
	}
	if u.takes {
		if r, err := body.Open(); err == nil {
			_, _ = io.Copy(io.Discard, r)
			_ = r.Close()
		}
	}
	u.held.Add(1)
	defer u.held.Add(-1)
	<-ctx.Done()
	return store.Object{}, ctx.Err()
}

// TestShip_S36_hungUploads: four uploads of snapshots and merged files hang and occupy all places
// of the endpoint. The commits of a busy database are uploaded nevertheless: on their own, while a
// snapshot of the database waits for a place, and while that snapshot's upload hangs as well.
func TestShip_S36_hungUploads(t *testing.T) {
	t.Parallel()
	for name, takes := range map[string]bool{"nothing is taken": false, "the answer is late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			budget := store.NewBudget(0, 0).At("endpoint")
			path, w := database(t)
			own := &unanswering{Memory: storetest.NewMemory(), takes: takes}
			h := newHost(t, path, replica("memory.a", store.Through(own, budget, nil)))
			h.begin()
			h.commits(w, 3, 1)

			ctx, end := context.WithCancel(t.Context())
			others := &unanswering{Memory: storetest.NewMemory(), takes: takes}
			others.hung.Store(true)
			var all sync.WaitGroup
			for i := range store.DefaultUploads {
				level, size := 1+8*(i%2), int64(100<<10)
				body := store.Body{Size: size, Open: func() (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader(strings.Repeat("x", int(size)))), nil
				}}
				all.Go(func() {
					_, _ = store.Through(others, budget, nil).Put(ctx, store.LTXKey(level, 1, 7), body, store.PutOptions{})
				})
			}
			defer all.Wait()
			defer end()
			h.eventually("four uploads hang", func() bool { return others.held.Load() == store.DefaultUploads })
			h.commits(w, 5, 1)

			own.hung.Store(true)
			asked, give := context.WithCancel(t.Context())
			defer give()
			snapshot := make(chan error, 1)
			go func() { snapshot <- h.r.SnapshotNow(asked) }()
			h.commits(w, 20, 1)
			end()
			h.eventually("the snapshot hangs", func() bool { return own.held.Load() > 0 })
			h.commits(w, 5, 1)
			own.hung.Store(false)
			give()
			if err := <-snapshot; err == nil {
				t.Error("the snapshot succeeded: the test proves nothing")
			}
			h.commits(w, 1, 1)
			wantRestored(t, own, path)
		})
	}
}
