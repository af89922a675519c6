package replicator_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// stateAt restores the state of a moment.
func stateAt(t *testing.T, s store.Store, at time.Time, exact bool) (content string, doubt *catalog.Doubt, err error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "then.db")
	result, err := restore.Run(t.Context(), s, restore.Options{Output: out, Target: catalog.Target{Timestamp: at},
		Exact: exact})
	if err != nil {
		return "", nil, err
	}
	return dump(t, out), result.Doubt, nil
}

// TestShip_R21_whileDown: sqlwatch was stopped while the application continued. The states of that
// time are unknown: a restore of such a moment gives a warning, or an error if an exact state is
// wanted.
func TestShip_R21_whileDown(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	s := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", s))
	h.skew.Store(int64(-2 * time.Minute)) // so that the test ends at the real time
	h.begin()
	w.commit(3)
	h.synced()
	before := dump(t, path)
	known := h.clock()
	h.eventually("a poll after it", func() bool { return h.r.Replicas()[0].CaughtUp.After(known) })
	h.halt()
	h.skew.Store(int64(-time.Minute))
	w.commit(5)
	unknown := h.clock()
	h.skew.Store(0)
	h.begin()
	w.commit(1)
	h.synced()
	if got, doubt, err := stateAt(t, s, known, true); err != nil || doubt != nil || got != before {
		t.Errorf("before the stop: %q, %v, %v; want %q", got, doubt, err, before)
	}
	got, doubt, err := stateAt(t, s, unknown, false)
	if err != nil || doubt == nil || got != before {
		t.Errorf("meanwhile: %q, %v, %v; want %q and a doubt", got, doubt, err, before)
	}
	if doubt != nil && (doubt.After.TXID != doubt.Before.TXID+1 || doubt.Since == nil || doubt.Since.After(unknown) ||
		doubt.After.Timestamp.Before(unknown)) {
		t.Errorf("the restore points around it: %+v", doubt)
	}
	if _, _, err := stateAt(t, s, unknown, true); !errors.As(err, &doubt) {
		t.Errorf("exactly then: %v", err)
	}
}

// TestShip_R21_clockWasAhead: the clock was ten years ahead for one commit. Moments of the days
// after that are not answered with states from before it.
func TestShip_R21_clockWasAhead(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	s := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", s))
	h.begin()
	h.skew.Store(int64(10 * 365 * 24 * time.Hour))
	w.commit(1)
	h.synced()
	h.halt()
	h.skew.Store(0)
	h.begin()
	moments := map[time.Time]string{}
	for i := range 3 {
		h.skew.Store(int64(i) * int64(time.Minute))
		w.commit(2)
		h.synced()
		moments[h.clock().Add(30*time.Second)] = dump(t, path)
	}
	h.skew.Store(int64(4 * time.Minute))
	w.commit(1)
	h.synced()
	for at, want := range moments {
		got, doubt, err := stateAt(t, s, at, false)
		if err != nil || got != want || doubt == nil || !doubt.Clock {
			t.Errorf("%s: %q, %v, %v; want %q and a doubt because of the clock", at, got, doubt, err, want)
		}
	}
}
