package replicator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// createOnly honours If-None-Match and ignores If-Match.
type createOnly struct{ *storetest.Memory }

func (c createOnly) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	o.Match = ""
	return c.Memory.Put(ctx, key, body, o)
}

// ignoring accepts both conditions and honours none.
type ignoring struct{ *storetest.Memory }

func (i ignoring) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	o.Match, o.Create = "", false
	return i.Memory.Put(ctx, key, body, o)
}

// guards maps each guard to a store that offers only that much protection against a second writer.
var guards = map[lease.Guard]func(*storetest.Memory) store.Store{
	lease.GuardConditional: func(m *storetest.Memory) store.Store { return m },
	lease.GuardCreate:      func(m *storetest.Memory) store.Store { return createOnly{m} },
	lease.GuardNone:        func(m *storetest.Memory) store.Store { return ignoring{m} },
}

// TestShip_C14_anotherDatabase: staging runs with production's configuration, on every kind of
// store, whether production is busy or has long been quiet, and whatever the clocks show. Staging
// stores nothing and reports whose history it found; production continues. With
// SQLWATCH_TEST_CUSTODY set, every combination is tried.
func TestShip_C14_anotherDatabase(t *testing.T) {
	t.Parallel()
	for guard, of := range guards {
		for _, idle := range []time.Duration{0, 10 * time.Minute, 72 * time.Hour} {
			for _, skew := range []time.Duration{0, 3 * time.Minute, -3 * time.Minute} {
				if all := os.Getenv("SQLWATCH_TEST_CUSTODY") != ""; !all && (idle != 72*time.Hour || skew != 3*time.Minute) {
					continue
				}
				t.Run(fmt.Sprintf("%s/idle %v/clock %v", guard, idle, skew), func(t *testing.T) {
					t.Parallel()
					path, w := database(t)
					m := storetest.NewMemory().Enforce(t)
					production := newHost(t, path, replica("s3.main", of(m)))
					production.owner = "production"
					production.begin()
					w.commit(3)
					if err := production.sync(); err != nil {
						t.Fatal(err)
					}
					if got := production.r.Replicas()[0].Guard; got != guard {
						t.Errorf("guard is %q, want %q", got, guard)
					}
					production.skew.Store(int64(idle))
					other, ow := database(t)
					staging := newHost(t, other, replica("s3.main", of(m)))
					staging.owner, staging.boot = "staging", "another"
					staging.skew.Store(int64(idle + skew))
					staging.start()
					ow.commit(2)
					staging.refused(lineage.Foreign, "production")
					staging.skew.Add(int64(time.Hour)) // production stays quiet for that long
					if err := staging.sync(); !errors.Is(err, custody.ErrForeign) {
						t.Errorf("staging's sync: %v, want ErrForeign", err)
					}
					wantRestored(t, m, path)
					w.commit(1)
					production.eventually("production continues", func() bool {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						err := production.r.SyncNow(ctx)
						if errors.Is(err, lease.ErrConfirming) { // its lease has lapsed, so it waits for a minute
							production.skew.Add(int64(time.Minute))
						}
						return err == nil
					})
					wantRestored(t, m, path)
				})
			}
		}
	}
}

// TestShip_C14_restoredElsewhere: a machine is lost, the database is restored on a new machine from
// the replica, and sqlwatch is started there. Once the lost machine's lease has expired, the new
// one continues the history without --adopt, on every kind of store. When the lost machine comes
// back, it stops writing and says so.
func TestShip_C14_restoredElsewhere(t *testing.T) {
	t.Parallel()
	for guard, of := range guards {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			m := storetest.NewMemory().Enforce(t)
			a := newHost(t, path, replica("s3.main", of(m)))
			a.begin()
			w.commit(3)
			if err := a.sync(); err != nil {
				t.Fatal(err)
			}
			restored := filepath.Join(t.TempDir(), "app.db")
			if _, err := restore.Run(t.Context(), m, restore.Options{Output: restored, Note: true}); err != nil {
				t.Fatal(err)
			}
			wb := startWriter(t, restored) // the application is started before sqlwatch
			wb.commit(2)
			b := newHost(t, restored, replica("s3.main", of(m)))
			b.owner, b.boot = "the new machine", "another"
			b.start()
			b.eventually("the new machine waits", func() bool {
				return strings.Contains(b.r.Replicas()[0].Err, lease.ErrHeld.Error())
			})
			b.skew.Store(int64(3 * time.Minute))
			waited := false
			b.eventually("a's lease is watched to its end", func() bool {
				s := b.r.Replicas()[0]
				if !waited && strings.Contains(s.Err, lease.ErrConfirming.Error()) {
					waited = true
					b.skew.Add(int64(time.Minute + time.Second))
				}
				return s.Healthy && s.Custody == lineage.Continue
			})
			b.eventually("the new machine continues", func() bool { return b.sync() == nil })
			wantRestored(t, m, restored)
			if _, found := lineage.Find(restored); found {
				t.Error("the note of the restore is still there")
			}
			a.skew.Store(int64(10 * time.Minute))
			w.commit(1)
			a.refused(lineage.Diverged, "the new machine")
			if err := a.sync(); !errors.Is(err, lease.ErrFenced) {
				t.Errorf("sync of the machine that came back: %v, want ErrFenced", err)
			}
			wb.commit(1)
			if err := b.sync(); err != nil {
				t.Errorf("the new machine, beside the old one: %v", err)
			}
			wantRestored(t, m, restored)
		})
	}
}

// TestShip_C14_copied: a database that equals the replica's tip is recognized by its checksum,
// without a note; one restored to an older moment is not, and the error says so.
func TestShip_C14_copied(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("s3.main", m))
	a.begin()
	first := a.r.Replicas()[0].TXID
	w.commit(3)
	if err := a.sync(); err != nil {
		t.Fatal(err)
	}
	a.halt() // releases its lease
	older, newest := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "app.db")
	_, err := restore.Run(t.Context(), m, restore.Options{Output: older, Note: true, Target: catalog.Target{TXID: first}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restore.Run(t.Context(), m, restore.Options{Output: newest}); err != nil {
		t.Fatal(err)
	}
	b := newHost(t, older, replica("s3.main", m))
	b.owner = "of the older moment"
	b.start()
	b.refused(lineage.Foreign, "but not its newest state")
	b.halt()
	c := newHost(t, newest, replica("s3.main", m))
	c.owner = "of the newest state"
	c.begin()
	startWriter(t, newest).commit(1)
	if err := c.sync(); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, m, newest)
}

// TestShip_C14_spared: a lineage that succeeded another with --adopt, and has a shorter retention,
// deletes none of the other's files before the other's own retention ends.
func TestShip_C14_spared(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("s3.main", m))
	m.SetClock(a.clock)
	a.begin()
	for range 3 {
		w.commit(3)
		if err := a.sync(); err != nil {
			t.Fatal(err)
		}
	}
	end := a.r.Replicas()[0].TXID
	a.halt()
	other, ow := database(t)
	o := replica("s3.main", m)
	o.Retention.Keep, o.SnapshotEvery, o.Adopt = time.Hour, time.Hour, true
	b := newHost(t, other, o)
	b.owner = "staging"
	b.start()
	ow.commit(2)
	b.eventually("b follows", func() bool { return b.sync() == nil })
	begun := b.r.Replicas()[0].TXID
	b.eventually("b's own old files are deleted", func() bool {
		b.skew.Add(int64(10 * time.Minute))
		a.skew.Store(b.skew.Load())
		ow.commit(1)
		if err := b.sync(); err != nil {
			return false
		}
		return b.r.Replicas()[0].TXID > begun+20 && !strings.Contains(strings.Join(m.Keys(), " "),
			fmt.Sprintf("0000/%s", begun+1))
	})
	out := filepath.Join(t.TempDir(), "a.db")
	if _, err := restore.Run(t.Context(), m, restore.Options{Output: out, Target: catalog.Target{TXID: end}}); err != nil {
		t.Errorf("the predecessor's last state, %v after it ended: %v", time.Duration(b.skew.Load()), err)
	}
}

// TestShip_C15_longUpload: a lease is renewed during an upload that takes longer than the
// lease's life.
func TestShip_C15_longUpload(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := storetest.NewMemory().Enforce(t)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	slow := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
		if op == "put" && strings.HasPrefix(key, "0009/") {
			<-gate
		}
		return storetest.None
	})
	a := newHost(t, path, replica("s3.main", slow))
	t.Cleanup(open)
	a.start()
	w.commit(1)
	a.eventually("the lease is taken", func() bool { return count(m.Keys(), "sqlwatch/lineage") > 0 })
	for range 4 {
		before := noteOf(t, m)
		a.skew.Add(int64(80 * time.Second))
		a.eventually("the lease is renewed", func() bool { return noteOf(t, m).Nonce != before.Nonce })
	}
	open()
	a.eventually("the upload ends", func() bool { return a.sync() == nil })
	wantRestored(t, m, path)
}

func noteOf(t *testing.T, m *storetest.Memory) lease.Note {
	t.Helper()
	note, _, _, err := lease.Read(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// TestShip_C14_unnamed: a replica written by an earlier version names no lineage. It gets one from
// the database whose state directory knows its position, and from no other.
func TestShip_C14_unnamed(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("s3.main", m))
	a.begin()
	a.halt()
	unname := func() {
		if err := errors.Join(m.Delete(t.Context(), lineage.Key),
			os.RemoveAll(filepath.Join(a.state, "lineage.json"))); err != nil {
			t.Fatal(err)
		}
	}
	unname()
	other, ow := database(t)
	ow.commit(1)
	b := newHost(t, other, replica("s3.main", m))
	b.owner = "another"
	b.start()
	b.refused(lineage.Foreign, "host-a")
	b.halt()
	w.commit(1)
	a.begin()
	body, _, err := m.Get(t.Context(), lineage.Key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(body)
	var line lineage.Lineage
	if err := json.Unmarshal(data, &line); err != nil || line.By != "host-a" || line.PageSize != 4096 {
		t.Errorf("the replica is named %s, %v", data, err)
	}
	wantRestored(t, m, path)
}
