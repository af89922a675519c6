package lease

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"
)

// overtaken is a scene with two hosts and a store without conditional writes. A renewal by a was
// delayed for long; meanwhile b took the lease and named the replica for another lineage; then a's
// late note replaced b's.
type overtaken struct {
	c     *cell
	now   time.Time
	named string // the lineage that the replica is named for
	late  Note
	a, b  *party
}

func overtake(t *testing.T, ignores string) *overtaken {
	t.Helper()
	w := &overtaken{c: &cell{ignores: ignores}, now: time.Unix(1_700_000_000, 0), named: "one", a: &party{machine: "A"},
		b: &party{machine: "B"}}
	w.boot(w.a, "a")
	w.boot(w.b, "b")
	if err := errors.Join(w.a.look(), w.a.hold(&w.now)); err != nil {
		t.Fatal(err)
	}
	w.a.Serve("one")
	if err := w.a.Settle(); err != nil {
		t.Fatal(err)
	}
	w.late = w.a.next(w.now, busyLife)
	w.a.nonces = append([]string{w.late.Nonce}, w.a.nonces...) // saved before it is sent
	w.takes(t, w.b)
	w.named = "two"
	w.b.Serve("two")
	if err := w.b.Settle(); err != nil {
		t.Fatal(err)
	}
	w.arrives(t, w.late)
	return w
}

func (w *overtaken) boot(p *party, owner string) {
	p.boot(w.c, owner, func() time.Time { return w.now })
	p.o.Named = func(context.Context) (string, error) { return w.named, nil }
}

// takes makes a party watch the lease for its whole life and then take it.
func (w *overtaken) takes(t *testing.T, p *party) {
	t.Helper()
	if err := errors.Join(p.look(), p.Hold(t.Context())); !errors.Is(err, ErrHeld) {
		t.Fatalf("%v, want ErrHeld", err)
	}
	w.now = w.now.Add(busyLife + margin + time.Second)
	if err := p.Hold(t.Context()); !errors.Is(err, ErrMoved) {
		t.Fatalf("%v, want ErrMoved", err)
	}
	want := ErrConfirming
	if w.c.ignores == "" {
		want = nil
	}
	if err := errors.Join(p.look(), p.Hold(t.Context())); !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	w.now = w.now.Add(claimUnguarded + margin)
	if err := p.confirmed(); err != nil {
		t.Fatal(err)
	}
}

// arrives replaces the stored note with n.
func (w *overtaken) arrives(t *testing.T, n Note) {
	t.Helper()
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	w.c.data, w.c.version = data, w.c.version+1
}

// TestLease_C14_lapsed: a host that finds its own note, but has not renewed it in time, examines
// the replica; if it may write, it waits until another owner must have noticed, and examines it
// again.
func TestLease_C14_lapsed(t *testing.T) {
	t.Parallel()
	for _, ignores := range []string{"match", "all"} {
		w := overtake(t, ignores)
		if err := w.a.Hold(t.Context()); !errors.Is(err, ErrMoved) || errors.Is(err, ErrConfirming) {
			t.Errorf("a, which comes back: %v, want ErrMoved", err)
		}
		if err := w.a.look(); err != nil || !w.a.continuous {
			t.Fatalf("%v; its own note: %v", err, w.a.continuous)
		}
		if w.a.Vacant() {
			t.Error("the replica counts as final although b may still write")
		}
		for range 2 {
			if err := w.a.Hold(t.Context()); !errors.Is(err, ErrConfirming) || errors.Is(err, ErrMoved) {
				t.Errorf("a: %v, want it to wait", err)
			}
			w.now = w.now.Add(confirmAfter)
		}
		w.now = w.now.Add(claimUnguarded - 2*confirmAfter)
		if err := w.b.Hold(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("b, at its next renewal: %v, want ErrFenced", err)
		}
		w.now = w.now.Add(margin)
		if err := w.a.Hold(t.Context()); !errors.Is(err, errUnseen) {
			t.Errorf("a: %v, want errUnseen", err)
		}
		if err := errors.Join(w.a.look(), w.a.Hold(t.Context())); err != nil || !w.a.Vacant() {
			t.Errorf("a: %v", err)
		}
	}
}

// TestLease_C14_overwritten: the host for whose lineage the replica is named takes the lease
// back at once when a late write has replaced it, during its work or after a restart; a host
// that finds the replica named for another lineage does not.
func TestLease_C14_overwritten(t *testing.T) {
	t.Parallel()
	for _, ignores := range []string{"match", "all"} {
		w := overtake(t, ignores)
		w.now = w.now.Add(claimUnguarded)
		if err := w.b.Hold(t.Context()); err != nil {
			t.Errorf("b, in the middle of its work: %v", err)
		}
		if w.c.nonce() != w.b.note.Nonce || slices.Contains(w.b.nonces, w.late.Nonce) {
			t.Errorf("the lease is %s; b remembers %q", w.c.nonce(), w.b.nonces)
		}
		w.arrives(t, w.late)
		w.boot(w.b, "b")
		if err := w.b.look(); err != nil || w.b.continuous {
			t.Fatalf("%v; its own note: %v", err, w.b.continuous)
		}
		w.b.Serve("two")
		if err := w.b.hold(&w.now); err != nil {
			t.Errorf("b, after a restart: %v", err)
		}
		if err := w.b.Settle(); err != nil {
			t.Fatal(err)
		}
		w.arrives(t, w.late)
		w.named = "three"
		w.now = w.now.Add(claimUnguarded)
		if err := w.b.Hold(t.Context()); !errors.Is(err, ErrMoved) {
			t.Errorf("b, when the replica is named for another lineage: %v, want ErrMoved", err)
		}
	}
}

// TestLease_C14_named: on an unguarded store, each renewal reads which lineage the replica is named
// for.
func TestLease_C14_named(t *testing.T) {
	t.Parallel()
	for ignores, want := range map[string]error{"": nil, "match": ErrMoved, "all": ErrMoved} {
		w := &overtaken{c: &cell{ignores: ignores}, now: time.Unix(1_700_000_000, 0), named: "one", a: &party{}}
		w.boot(w.a, "a")
		if err := errors.Join(w.a.look(), w.a.hold(&w.now)); err != nil {
			t.Fatal(err)
		}
		w.a.Serve("one")
		w.named = "two"
		w.now = w.now.Add(claimUnguarded)
		if w.a.guarded() {
			w.now = w.now.Add(claimGuarded)
		}
		if err := w.a.Hold(t.Context()); !errors.Is(err, want) {
			t.Errorf("%q ignored: %v, want %v", ignores, err, want)
		}
	}
}

// TestLease_C14_adrift: a lease is not released while an upload may still arrive.
func TestLease_C14_adrift(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		now := time.Unix(1_700_000_000, 0)
		c, p := &cell{}, &party{}
		p.boot(c, "a", func() time.Time { return now })
		for _, adrift := range []bool{true, false} {
			if err := errors.Join(p.look(), p.Hold(t.Context())); adrift && err != nil {
				t.Fatal(err)
			}
			p.mine = true
			p.Uploads.Note(whole, adrift)
			if err := p.Release(t.Context()); (err != nil) != adrift {
				t.Errorf("adrift %v: %v", adrift, err)
			}
			if note, _, _, err := Read(t.Context(), c); err != nil || note.Released == adrift {
				t.Errorf("adrift %v: released %v, %v", adrift, note.Released, err)
			}
		}
	}
}

// TestLease_C14_slowUpload: an upload that ends after the claim has expired counts only if the
// lease can still be renewed.
func TestLease_C14_slowUpload(t *testing.T) {
	t.Parallel()
	for ignores, want := range map[string]error{"": ErrFenced, "match": ErrMoved, "all": ErrMoved} {
		w := &overtaken{c: &cell{ignores: ignores}, now: time.Unix(1_700_000_000, 0), a: &party{}}
		w.boot(w.a, "a")
		if err := errors.Join(w.a.look(), w.a.hold(&w.now)); err != nil {
			t.Fatal(err)
		}
		err := w.a.During(t.Context(), func(context.Context) error {
			w.a.mu.Lock() // keeps it from being renewed
			defer w.a.mu.Unlock()
			w.now = w.now.Add(time.Hour)
			w.arrives(t, Note{Nonce: "x", Owner: "b"})
			return nil
		})
		if !errors.Is(err, want) {
			t.Errorf("%q ignored: %v, want %v", ignores, err, want)
		}
	}
}

// TestLease_P4_suspended: the monotonic clock stands still while a machine is suspended, and another host may
// have taken the lease. After waking up, the host reads the lease before it writes, on every kind of store.
func TestLease_P4_suspended(t *testing.T) {
	t.Parallel()
	for _, ignores := range []string{"", "match", "all"} {
		w := &overtaken{c: &cell{ignores: ignores}, now: time.Unix(1_700_000_000, 0), named: "one",
			a: &party{machine: "A"}, b: &party{machine: "B"}}
		w.boot(w.a, "a")
		w.boot(w.b, "b")
		asleep, clock := time.Duration(0), w.a.o.Clock
		w.a.o.Clock = func() time.Time { return clock().Add(-asleep) }
		if err := errors.Join(w.a.look(), w.a.hold(&w.now)); err != nil {
			t.Fatal(err)
		}
		renewed := w.now
		w.a.Serve("one")
		if err := errors.Join(w.a.Settle(), w.a.Hold(t.Context())); err != nil {
			t.Fatal(err)
		}
		w.takes(t, w.b)
		w.named = "two"
		w.b.Serve("two")
		asleep = w.now.Sub(renewed)
		w.a.o.Asleep = func(time.Time, time.Time) time.Duration { return asleep }
		for name, write := range map[string]func() error{
			"a file":       func() error { return w.a.Hold(t.Context()) },
			"a long write": func() error { return w.a.During(t.Context(), func(context.Context) error { return nil }) },
		} {
			if err := write(); err == nil {
				t.Errorf("conditions ignored: %q: a wakes up after %v, and %s is acknowledged", ignores, asleep, name)
			}
		}
		if err := w.b.Hold(t.Context()); err != nil {
			t.Errorf("b: %v", err)
		}
	}
}

// TestAsleep: if both clocks have advanced equally, the machine was not suspended.
func TestAsleep(t *testing.T) {
	t.Parallel()
	from := time.Now()
	time.Sleep(time.Millisecond)
	now := time.Now()
	if got := asleep(from, now); got > time.Second {
		t.Errorf("asleep for %v", got)
	}
}
