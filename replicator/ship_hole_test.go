package replicator_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// away returns a store that is unreachable while down is set.
func away(m *storetest.Memory, down *atomic.Bool) *storetest.Faulty {
	return storetest.NewFaulty(m, func(string, string, int) storetest.Fault {
		if down.Load() {
			return storetest.NotStored
		}
		return storetest.None
	})
}

// soon is the SyncEvery with which these tests restore. It is so short that even a short hole
// leaves a doubt.
const soon = 20 * time.Millisecond

// stateThen restores the state of a moment, with a tolerance of a few times soon.
func stateThen(t *testing.T, st *storetest.Memory, at time.Time, exact bool) (content string, doubt *catalog.Doubt,
	err error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "then.db")
	result, err := restore.Run(t.Context(), st, restore.Options{Output: out, Target: catalog.Target{Timestamp: at},
		Exact: exact, SyncEvery: soon})
	if err != nil {
		return "", nil, err
	}
	return dump(t, out), result.Doubt, nil
}

// wantHole checks that a restore of the moment at, of which the replica has nothing, yields the
// state before it with a doubt, and fails if an exact state is wanted.
func wantHole(t *testing.T, st *storetest.Memory, at time.Time) {
	t.Helper()
	wantHoleOr(t, st, at, "")
}

// wantHoleOr is wantHole for a replica that may have got the state of that moment, then, after all.
func wantHoleOr(t *testing.T, st *storetest.Memory, at time.Time, then string) {
	t.Helper()
	got, doubt, err := stateThen(t, st, at, false)
	var gap *catalog.GapError
	if err == nil && doubt == nil && then != "" && got == then {
		return
	}
	if err == nil && doubt == nil {
		t.Errorf("%v is in the hole, and was restored without a doubt", at)
	}
	if err != nil && !errors.As(err, &gap) {
		t.Errorf("%v: %v", at, err)
	}
	if _, _, err := stateThen(t, st, at, true); !errors.As(err, &doubt) && !errors.As(err, &gap) {
		t.Errorf("exactly %v: %v", at, err)
	}
}

// watched waits until everything up to now, and a little more, is known to be captured.
func (h *host) watched(i int) {
	h.t.Helper()
	now := h.clock()
	h.eventually("a poll after the last commit", func() bool {
		h.r.Wake()
		return h.r.Replicas()[i].CaughtUp.After(now)
	})
}

// pass lets time go by, so that two moments can be told apart.
func (h *host) pass(d time.Duration) {
	h.t.Helper()
	until := h.clock().Add(d)
	h.eventually("time passes", func() bool { return h.clock().After(until) })
}

// TestShip_S2_hole: while the spool is full, commits are not captured. sqlwatch reports that while
// it lasts, and the replica's lag counts from before it. Afterwards no moment of that time is
// restored without a doubt, even if sqlwatch was restarted in the middle.
func TestShip_S2_hole(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			st := storetest.NewMemory().Enforce(t)
			var down atomic.Bool
			h := newHost(t, path, replica("memory.a", away(st, &down)))
			h.options.Capture.SpoolLimit, h.options.FinalSync = 200_000, quick
			h.begin()
			before := dump(t, path)
			h.watched(0)
			known := h.r.Replicas()[0].CaughtUp
			down.Store(true)
			outage := h.clock()
			full := func() bool { _, err := h.r.Captured(); return errors.Is(err, capture.ErrSpoolFull) }
			h.eventually("a full spool", func() bool { w.commit(30); h.r.Wake(); return full() })
			if restart {
				h.halt()
				h.start()
			}
			h.pass(50 * soon)
			hole := h.clock()
			h.pass(10 * soon)
			w.commit(30)
			h.eventually("the full spool is reported, and the replica is caught up only to before it", func() bool {
				s, ago := h.r.Replicas()[0], h.clock().Sub(outage)
				return full() && s.LagSeconds > (ago-20*soon).Seconds() && s.CaughtUp.Before(hole)
			})
			down.Store(false)
			h.eventually("recovery", func() bool { return h.sync() == nil && h.r.Replicas()[0].LagSeconds == 0 })
			w.commit(3)
			h.eventually("sync", func() bool { return h.sync() == nil })
			wantRestored(t, st, path)
			if got, doubt, err := stateThen(t, st, known, true); err != nil || got != before || doubt != nil {
				t.Errorf("before it: %q, %v, %v; want %q", got, doubt, err, before)
			}
			wantHole(t, st, hole)
			wantHole(t, st, hole.Add(5*soon))
		})
	}
}

// TestShip_S2_holeOfOne: the spool no longer waits for one replica, while another one has got
// everything. The first has a hole, which is reported; the other one has every moment.
func TestShip_S2_holeOfOne(t *testing.T) {
	t.Parallel()
	d := newDownReplica(t)
	d.down.Store(false)
	d.w.commit(1)
	if err := d.sync(); err != nil {
		t.Fatal(err)
	}
	d.down.Store(true)
	var at time.Time
	var then string
	for i := range 60 {
		d.w.commit(30)
		d.awaitA()
		if i == 20 {
			then = dump(t, d.path)
			d.pass(5 * soon)
			d.watched(0)
			at = d.r.Replicas()[0].CaughtUp
		}
	}
	d.down.Store(false)
	d.eventually("b is back", func() bool { return d.sync() == nil })
	// On a busy machine the snapshot that ends the hole may be of that very state.
	wantHoleOr(t, d.b, at, then)
	if got, doubt, err := stateThen(t, d.a, at, true); err != nil || got != then {
		t.Errorf("a: %q, %v, %v; want %q", got, doubt, err, then)
	}
}
