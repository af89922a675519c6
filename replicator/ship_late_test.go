package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// parted is two hosts with the same configuration and different databases. The first one's packets
// get lost, and the second has taken over the replica with --adopt.
type parted struct {
	*testing.T
	m    *storetest.Memory
	late *storetest.Late
	a, b *host
	w, v *writer // a's and b's

	waited chan error // the result of a's sync that was under way
}

// part loses a's packets from the next write of a key for which holds returns true, and lets b take
// over.
func part(
	t *testing.T, of func(*storetest.Memory) store.Store, waits bool, holds func(key string) bool,
) *parted {
	t.Helper()
	p := &parted{T: t, m: storetest.NewMemory().Enforce(t)}
	if p.late = storetest.NewLate(of(p.m)); waits {
		p.late.Waiting()
	}
	path, w := database(t)
	p.w, p.a = w, newHost(t, path, replica("s3.main", p.late))
	p.a.owner = "production"
	p.a.options.FinalSync = time.Second
	p.a.begin()
	p.a.commits(w, 3, 1)
	p.late.CutAt(holds)
	p.a.skew.Add(int64(100 * time.Second)) // the claim has expired
	w.commit(1)
	if holds(store.LTXKey(store.SnapshotLevel, 1, 1)) {
		go func() { _ = p.a.r.SnapshotNow(t.Context()) }()
	}
	p.a.eventually("a write stays under way", func() bool { return p.late.UnderWay() > 0 })

	ctx, cancel := context.WithCancel(t.Context())
	p.waited = make(chan error, 1)
	go func() { p.waited <- p.a.r.SyncNow(ctx) }()
	t.Cleanup(cancel)

	other, v := database(t)
	if out, err := exec.Command("sqlite3", other, "create table staging(x)").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := replica("s3.main", of(p.m))
	o.Adopt = true
	p.v, p.b = v, newHost(t, other, o)
	p.b.owner, p.b.boot = "staging", "another"
	p.b.start()
	p.takesOver(p.b)
	return p
}

// takesOver waits until a host has taken over the replica from the holder of the lease.
func (p *parted) takesOver(h *host) {
	p.Helper()
	said, at := "", time.Time{}
	h.eventually("it takes over", func() bool {
		s := h.r.Replicas()[0]
		for _, wait := range []error{lease.ErrHeld, lease.ErrConfirming} { // one after the other
			text := wait.Error()
			if strings.Contains(s.Err, text) && (said != text || time.Since(at) > 5*time.Second) {
				said, at = text, time.Now()
				if h != p.a {
					p.a.skew.Add(int64(3 * time.Minute))
				}
				h.skew.Add(int64(3 * time.Minute))
			}
		}
		ctx, cancel := context.WithTimeout(p.Context(), 300*time.Millisecond)
		defer cancel()
		return h.r.SyncNow(ctx) == nil // a sync also shortens the waits
	})
}

// fenced checks that a's error names the host that took over the replica, and that a acknowledges
// nothing more, while b continues.
func (p *parted) fenced() {
	p.Helper()
	for range 3 {
		p.w.commit(1)
		p.a.skew.Add(int64(40 * time.Second))
		p.a.eventually("production reports who took over", func() bool {
			ctx, cancel := context.WithTimeout(p.Context(), time.Second)
			defer cancel()
			err := p.a.r.SyncNow(ctx)
			s := p.a.r.Replicas()[0]
			if err == nil {
				p.Fatalf("production's commits are acknowledged: %+v", s)
			}
			select {
			case err := <-p.waited:
				if p.waited = nil; err == nil {
					p.Fatal("the commits that were under way are acknowledged")
				}
			default:
			}
			return errors.Is(err, lease.ErrFenced) && p.waited == nil && s.Custody == lineage.Diverged &&
				strings.Contains(s.Err, "staging")
		})
	}
	for range 3 {
		p.v.commit(1)
		p.b.skew.Add(int64(40 * time.Second))
		p.b.eventually("staging goes on", func() bool { return p.b.sync() == nil })
		if s := p.b.r.Replicas()[0]; s.Custody != lineage.Continue && s.Custody != lineage.Succeed {
			p.Errorf("staging's verdict is %q: %s", s.Custody, s.Err)
		}
	}
	wantRestored(p.T, p.m, p.b.path)
	if err := p.b.r.VerifyNow(p.Context()); err != nil {
		p.Errorf("a drill of staging's history: %v", err)
	}
}

func isLease(key string) bool { return key == lease.Key }

// TestShip_C14_lateRenewal: a renewal of production's lease arrives after staging has taken over
// the replica, and replaces staging's lease if the store does not compare ETags. Production learns
// whose replica it is, and staging takes its lease back.
func TestShip_C14_lateRenewal(t *testing.T) {
	t.Parallel()
	for guard, of := range guards {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			p := part(t, of, false, isLease)
			before := noteOf(t, p.m)
			if err := p.late.Deliver(); (err != nil) != (guard == lease.GuardConditional) {
				t.Fatalf("the late write: %v", err)
			}
			if replaced := noteOf(t, p.m).Nonce != before.Nonce; replaced != (guard != lease.GuardConditional) {
				t.Fatalf("staging's lease was replaced: %v", replaced)
			}
			p.late.Mend()
			p.fenced()
		})
	}
}

// TestShip_C14_lateFile: a file that production sent arrives after staging has taken over the
// replica, and the store may even confirm it to production. Production does not acknowledge it, and
// staging's history is intact.
func TestShip_C14_lateFile(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(string) bool{
		"commits":  func(key string) bool { return strings.HasPrefix(key, "0000/") },
		"snapshot": func(key string) bool { return strings.HasPrefix(key, "0009/") },
	}
	for guard, of := range guards {
		for kind, holds := range kinds {
			for _, waits := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/answered %v", guard, kind, waits), func(t *testing.T) {
					t.Parallel()
					p := part(t, of, waits, holds)
					p.late.Mend()
					if err := p.late.Deliver(); err != nil {
						t.Fatalf("the late write: %v", err)
					}
					p.fenced()
				})
			}
		}
	}
}

// TestShip_C14_notReleased: a host ends while an upload has no reply yet. It leaves its lease to
// expire, because a host that finds a released lease would join the replica's tip at once.
func TestShip_C14_notReleased(t *testing.T) {
	t.Parallel()
	for _, stored := range []bool{false, true} {
		path, w := database(t)
		m := storetest.NewMemory().Enforce(t)
		var lost atomic.Bool
		a := newHost(t, path, replica("s3.main", storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
			if lost.Load() && op == "put" && strings.HasPrefix(key, "0000/") {
				return storetest.NotStored // at least not yet, as far as a knows
			}
			return storetest.None
		})))
		a.options.FinalSync = time.Second
		a.begin()
		lost.Store(true)
		w.commit(1)
		a.eventually("an upload fails", func() bool { return !a.r.Replicas()[0].Healthy })
		if stored {
			lost.Store(false)
			a.synced()
		}
		a.halt()
		if got := noteOf(t, m).Released; got != stored {
			t.Errorf("stored after all: %v; the lease is released: %v", stored, got)
		}
	}
}

// TestShip_C14_adoptedBack: --adopt counts once. When production takes the replica back with --adopt,
// staging does not succeed it again on its own, although it was started with --adopt and
// production's lease is free.
func TestShip_C14_adoptedBack(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} { // whether staging was restarted without the option
		p := part(t, guards[lease.GuardConditional], false, isLease)
		p.late.Mend()
		p.a.halt()
		p.a.options.Replicas[0].Adopt = true
		p.a.start()
		p.takesOver(p.a)
		p.a.halt() // releases its lease
		if restarted {
			p.b.halt()
			p.b.options.Replicas[0].Adopt = false
			p.b.start()
		}
		for range 3 {
			p.v.commit(1)
			p.b.skew.Add(int64(20 * time.Minute))
			p.b.eventually("staging reports that it was succeeded", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := p.b.r.SyncNow(ctx)
				if err == nil {
					t.Fatalf("staging follows again: %+v", p.b.r.Replicas()[0])
				}
				return errors.Is(err, lease.ErrFenced) && p.b.r.Replicas()[0].Custody == lineage.Diverged
			})
		}
		wantRestored(t, p.m, p.a.path)
	}
}
