package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// party is a process with its state directory.
type party struct {
	*Lease
	machine    string
	nonces     []string
	continuous bool // no other party has written since this one did
}

func (p *party) boot(c *cell, owner string, now func() time.Time) {
	p.Lease = New(Options{Store: c, Owner: owner, Boot: p.machine, Clock: now, Save: func(nonces ...string) error {
		p.nonces = slices.Clone(nonces)
		return nil
	}})
}

// look reads the lease, as opening a replica does.
func (p *party) look() error {
	got, err := p.Inspect(context.Background(), p.nonces)
	p.continuous = err == nil && got.Continuous
	return err
}

// hold is Hold without the waits that a store without conditional writes needs.
func (p *party) hold(now *time.Time) error {
	err := p.Hold(context.Background())
	if errors.Is(err, ErrConfirming) {
		*now = now.Add(confirmAfter)
		err = p.confirmed()
	}
	return err
}

// confirmed calls Hold for a lease that is due to be confirmed. If Hold asks for another
// inspection, it inspects the lease and calls Hold again.
func (p *party) confirmed() error {
	err := p.Hold(context.Background())
	if errors.Is(err, errUnseen) {
		err = errors.Join(p.look(), p.Hold(context.Background()))
	}
	return err
}

// world is one random history of parties that share a lease.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	seed    uint64
	now     time.Time
	cell    *cell
	parties []*party
	busy    map[*party]bool // in a request now
	writer  int             // the party that wrote last
	clones  bool
	losing  bool // a party may lose its state directory

	takeovers, fenced int
}

func newWorld(t *testing.T, seed uint64) *world {
	rnd := rand.New(rand.NewPCG(seed, 2))
	w := &world{t: t, rnd: rnd, seed: seed, now: time.Unix(1_700_000_000, 0), busy: map[*party]bool{}, writer: -1}
	w.cell = &cell{rnd: rnd, faults: seed%3 > 0}
	switch seed % 7 {
	case 1:
		w.cell.ignores = "all"
	case 2:
		w.cell.refuses = "all"
	case 3:
		w.cell.ignores = "match"
	case 4:
		w.cell.form = func(etag string) string { return `"` + etag + `"` }
	case 5:
		w.cell.form = func(string) string { return "" }
	}
	if seed%2 == 0 {
		w.cell.between = w.between
	}
	w.cell.delays = seed%5 == 0
	w.clones, w.losing = seed%4 == 0, seed%4 == 1
	w.parties = make([]*party, 3)
	for i := range w.parties {
		w.parties[i] = &party{machine: fmt.Sprintf("boot-%d", i)}
		w.boot(i, fmt.Sprintf("host-%d", i))
	}
	if w.losing { // two containers on one machine, each with its own state directory
		w.parties[1].machine = w.parties[0].machine
		w.boot(1, w.parties[0].o.Owner)
	}
	return w
}

func (w *world) boot(i int, owner string) {
	w.parties[i].boot(w.cell, owner, func() time.Time { return w.now })
}

// between lets time pass and other parties act while a request is under way.
func (w *world) between() {
	switch w.rnd.IntN(12) {
	case 0:
		w.now = w.now.Add(time.Duration(w.rnd.IntN(100)) * time.Second)
	case 1, 2:
		if len(w.busy) < 2 {
			w.write(w.rnd.IntN(len(w.parties)))
		}
	}
	w.check()
}

// write lets a party try to write once.
func (w *world) write(i int) {
	p := w.parties[i]
	if w.busy[p] {
		return
	}
	w.busy[p] = true
	defer delete(w.busy, p)
	was := p.mine
	if (!p.mine || p.unseen) && p.look() != nil {
		return
	}
	claimed := p.continuous && !was
	if err := p.Hold(context.Background()); err != nil {
		if errors.Is(err, ErrFenced) {
			w.fenced++
			if w.cell.between == nil && slices.Contains(p.nonces, w.cell.nonce()) {
				w.t.Fatalf("seed %d: party %d was fenced off by its own note", w.seed, i)
			}
		}
		return
	}
	if w.rnd.IntN(8) == 0 { // crash before Settle
		w.boot(i, p.o.Owner)
		return
	}
	if err := p.Settle(); err != nil {
		w.t.Fatal(err)
	}
	if claimed && !w.clones && w.writer >= 0 && w.writer != i {
		w.t.Fatalf("seed %d: party %d was told that nobody wrote since, but %d did", w.seed, i, w.writer)
	}
	if w.writer != i {
		w.takeovers++
	}
	w.writer = i
}

// step runs one random event of a history.
func (w *world) step(n int) {
	i := w.rnd.IntN(len(w.parties))
	p := w.parties[i]
	switch w.rnd.IntN(12) {
	case 0: // crash and restart, of the process or the machine
		if w.rnd.IntN(3) == 0 {
			p.machine = fmt.Sprintf("boot-%d-%d", i, n)
		}
		w.boot(i, p.o.Owner)
	case 1: // in some histories, i becomes a clone of another, with its state directory and name, or loses its own
		k := w.rnd.IntN(len(w.parties))
		switch {
		case w.clones:
			p.nonces = slices.Clone(w.parties[k].nonces)
			w.boot(i, w.parties[k].o.Owner)
		case w.losing:
			p.nonces = nil
			w.boot(i, p.o.Owner)
		}
	case 2, 3:
		w.now = w.now.Add(time.Duration(w.rnd.IntN(100)) * time.Second)
	case 4:
		w.now = w.now.Add(time.Duration(w.rnd.IntN(20)) * time.Minute)
	case 5:
		w.busy[p] = true
		_ = p.Release(context.Background())
		delete(w.busy, p)
	case 6:
		w.busy[p] = true
		_, _ = p.Idle(context.Background())
		delete(w.busy, p)
	default:
		w.write(i)
	}
	w.check()
}

// check fails the test if two parties believe that they may write.
func (w *world) check() {
	believers := 0
	for _, q := range w.parties {
		if q.mine && q.confirmAt.IsZero() && w.now.Before(q.until) {
			believers++
		}
	}
	if believers > 1 {
		w.t.Fatalf("seed %d (%s): %d parties believe that they may write", w.seed, w.parties[0].Guard(), believers)
	}
}

// TestLease_C2_C3_interleavings: in random order, processes start, write, are idle, crash, sleep,
// come back, are cloned with their state directory, have a namesake on their machine, lose their
// state directory, and lose replies. In half of the histories others act, and time passes, between
// any two requests. Unconditional writes may arrive long after their sender gave up. The store
// honours conditions, ignores or refuses some or all of them, or spells ETags in two ways. No two
// parties ever believe at the same time that they may write, and a party that is told that no other
// wrote since is right. With SQLWATCH_TEST_LEASE_SEEDS set, fifty times as many histories are run.
func TestLease_C2_C3_interleavings(t *testing.T) {
	t.Parallel()
	takeovers, fenced := 0, 0
	seeds := uint64(4_000)
	if os.Getenv("SQLWATCH_TEST_LEASE_SEEDS") != "" {
		seeds = 200_000
	}
	for seed := range seeds {
		w := newWorld(t, seed)
		for n := range 60 {
			w.step(n)
		}
		takeovers, fenced = takeovers+w.takeovers, fenced+w.fenced
	}
	t.Logf("%d takeovers, %d fenced", takeovers, fenced)
	if takeovers < 3_000 || fenced < 150 {
		t.Errorf("too little happened: %d takeovers, %d fenced", takeovers, fenced)
	}
}

// TestLease_S13_guard: it is detected which conditions a store ignores or refuses.
func TestLease_S13_guard(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cell *cell
		want Guard
	}{
		"honours":       {&cell{}, GuardConditional},
		"ignores all":   {&cell{ignores: "all"}, GuardNone},
		"refuses all":   {&cell{refuses: "all"}, GuardNone},
		"ignores match": {&cell{ignores: "match"}, GuardCreate},
		"refuses match": {&cell{refuses: "match"}, GuardCreate},
	} {
		now := time.Unix(1_700_000_000, 0)
		clock := func() time.Time { return now }
		c := tt.cell
		p, q := &party{}, &party{}
		p.boot(c, "host", clock)
		if err := errors.Join(p.look(), p.hold(&now)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := p.Guard(); got != tt.want {
			t.Errorf("%s: guard is %q, want %q", name, got, tt.want)
		}
		if err := p.Release(context.Background()); err != nil {
			t.Errorf("%s: release: %v", name, err)
		}
		q.boot(c, "other host", clock)
		if err := errors.Join(q.look(), q.hold(&now)); err != nil {
			t.Errorf("%s: after a release: %v", name, err)
		}
	}
}

// TestLease_S13_twoWriters: on a store that does not honour If-Match, only one of two hosts that
// begin at the same moment may write. If a host overwrites the other's lease, as an older version
// does, the owner notices at its next renewal.
func TestLease_S13_twoWriters(t *testing.T) {
	t.Parallel()
	for _, ignores := range []string{"all", "match"} {
		now := time.Unix(1_700_000_000, 0)
		clock := func() time.Time { return now }
		c := &cell{ignores: ignores}
		a, b := &party{}, &party{}
		a.boot(c, "a", clock)
		b.boot(c, "b", clock)
		if err := errors.Join(a.look(), b.look()); err != nil {
			t.Fatal(err)
		}
		c.between = func() { // a has read the lease, and is about to write
			if c.between = nil; b.Hold(context.Background()) == nil {
				t.Error("b may write at once")
			}
		}
		if err := a.Hold(context.Background()); err == nil {
			t.Error("a may write at once")
		}
		now = now.Add(confirmAfter)
		errA, errB := a.confirmed(), b.confirmed()
		if (errA == nil) == (errB == nil) {
			t.Errorf("conditions ignored: %s: a %v, b %v: want one writer", ignores, errA, errB)
		}
		winner, other := a, b
		if errB == nil {
			winner, other = b, a
		}
		if err := errors.Join(other.look(), other.Hold(context.Background())); !errors.Is(err, ErrHeld) {
			t.Errorf("the loser: %v, want ErrHeld", err)
		}
		other.look()
		other.mine, other.note.Nonce = true, "of another" // writes without reading the lease first
		if err := other.write(context.Background(), other.next(now, busyLife)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(claimUnguarded)
		if err := winner.Hold(context.Background()); !errors.Is(err, ErrFenced) {
			t.Errorf("the owner, at its next renewal: %v, want ErrFenced", err)
		}
	}
}

// TestLease_S13_together: a store that honours conditions otherwise accepts two creations that
// arrive at the same moment. Only the host whose note is stored in the end writes.
func TestLease_S13_together(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return time.Unix(1_700_000_000, 0) }
	c := &cell{together: 2}
	a, b := &party{}, &party{}
	a.boot(c, "a", clock)
	b.boot(c, "b", clock)
	if err := errors.Join(a.look(), b.look()); err != nil {
		t.Fatal(err)
	}
	requests := 0
	var errB error
	c.between = func() {
		if requests++; requests == 3 { // a has read and stored its note; b's creation was checked at the same moment
			c.between = nil
			errB = b.write(context.Background(), b.next(clock(), busyLife))
		}
	}
	errA := a.Hold(context.Background())
	if errB == nil {
		errB = b.acquired(context.Background(), clock(), true)
	}
	if !errors.Is(errA, ErrMoved) || errB != nil {
		t.Errorf("a %v, b %v: want a to find that b came, and b to write", errA, errB)
	}
	if got := a.Guard(); got != GuardConditional {
		t.Errorf("guard is %q: the test would prove nothing", got)
	}
}

// TestLease_S13_etags: if a store spells an object's ETag in two ways, or sends none in the reply
// to a write, no host takes its own note for another's.
func TestLease_S13_etags(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(string) string{
		"quoted": func(etag string) string { return `"` + etag + `"` },
		"none":   func(string) string { return "" },
	} {
		now := time.Unix(1_700_000_000, 0)
		p := &party{}
		p.boot(&cell{form: form}, "host", func() time.Time { return now })
		if err := errors.Join(p.look(), p.hold(&now)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 3 {
			now = now.Add(busyLife)
			if err := p.hold(&now); err != nil {
				t.Errorf("%s: renewal: %v", name, err)
			}
		}
		if p.Guard() != GuardConditional {
			t.Errorf("%s: guard is %q", name, p.Guard())
		}
	}
}

// TestLease_C15_clocks: the clocks of other hosts are not trusted. A host whose clock is ahead or
// behind does not take the lease of a live writer, busy or idle, and gets the lease of a dead one
// once it has watched it for its whole life.
func TestLease_C15_clocks(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{3 * time.Minute, -3 * time.Minute, 240 * time.Hour, -240 * time.Hour} {
		for _, ignores := range []string{"", "match", "all"} {
			now := time.Unix(1_700_000_000, 0)
			c := &cell{ignores: ignores}
			a, b := &party{}, &party{}
			a.boot(c, "a", func() time.Time { return now })
			b.boot(c, "b", func() time.Time { return now.Add(skew) })
			if err := errors.Join(a.look(), a.hold(&now), b.look()); err != nil {
				t.Fatal(err)
			}
			for i := range 120 { // half an hour busy, half an hour idle, half an hour busy
				now = now.Add(45 * time.Second)
				var err error
				if busy := i/40 != 1; busy {
					err = a.hold(&now)
				} else {
					_, err = a.Idle(context.Background())
				}
				if err != nil {
					t.Fatalf("clock %v, %q ignored: a at %d: %v", skew, ignores, i, err)
				}
				if err := b.Hold(context.Background()); !errors.Is(err, ErrHeld) {
					t.Fatalf("clock %v, %q ignored: b at %d beside a: %v, want ErrHeld", skew, ignores, i, err)
				}
			}
			now = now.Add(busyLife + margin + time.Second)
			if err := b.Hold(context.Background()); !errors.Is(err, ErrMoved) {
				t.Errorf("b, after a's lease has ended: %v, want ErrMoved", err)
			}
			err := errors.Join(b.look(), b.Hold(context.Background()))
			if errors.Is(err, ErrConfirming) {
				now = now.Add(claimUnguarded + margin)
				err = b.confirmed()
			}
			if err != nil {
				t.Errorf("b, having watched a's lease for its whole life: %v", err)
			}
			want := ErrMoved // the store would let a overwrite b's lease, so a has to inspect the replica first
			if ignores == "" {
				want = ErrFenced
			}
			if err := a.Hold(context.Background()); !errors.Is(err, want) {
				t.Errorf("a: %v, want %v", err, want)
			}
		}
	}
}

// TestLease_C15_during: a lease is renewed during a long operation, and the operation is cancelled if
// the lease is lost.
func TestLease_C15_during(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cell{}
		a, b := &party{}, &party{}
		a.boot(c, "a", time.Now)
		b.boot(c, "b", time.Now)
		if err := errors.Join(a.look(), a.Hold(t.Context()), b.look()); err != nil {
			t.Fatal(err)
		}
		err := a.During(t.Context(), func(ctx context.Context) error {
			for range 60 {
				time.Sleep(time.Minute)
				if err := b.Hold(ctx); !errors.Is(err, ErrHeld) {
					t.Fatalf("b, while a uploads: %v, want ErrHeld", err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = a.During(t.Context(), func(ctx context.Context) error {
			c.mu.Lock()
			c.data, c.version = []byte(`{"nonce":"x","owner":"b"}`), c.version+1
			c.mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, ErrFenced) {
			t.Errorf("a, when b took the lease in the middle of its upload: %v, want ErrFenced", err)
		}
	})
}

// TestLease_P18_panic: a fault of sqlwatch while the lease is renewed in the background ends the operation, and one in
// the operation ends the renewals: each is an error, and nothing else goes on or ends.
func TestLease_P18_panic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cell{}
		a := &party{}
		a.boot(c, "a", time.Now)
		if err := errors.Join(a.look(), a.Hold(t.Context())); err != nil {
			t.Fatal(err)
		}
		c.between = func() { panic("in a renewal") }
		err := a.During(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if bug := fault.Of(err); bug == nil || bug.Cause != "in a renewal" {
			t.Errorf("got %v", err)
		}
		requests := 0
		c.between = func() { requests++ }
		err = fault.Guard(func() error {
			return a.During(t.Context(), func(context.Context) error { panic("in an upload") })
		})
		if bug := fault.Of(err); bug == nil || bug.Cause != "in an upload" {
			t.Errorf("got %v", err)
		}
		requests = 0
		if time.Sleep(time.Hour); requests > 0 {
			t.Errorf("%d requests after the end", requests)
		}
	})
}

// TestLease_S16_gone: the lease object was deleted while the lease was ours. That does not count as
// another writer, but the replica has to be inspected again.
func TestLease_S16_gone(t *testing.T) {
	t.Parallel()
	for _, ignores := range []string{"", "match", "all"} {
		now := time.Unix(1_700_000_000, 0)
		c := &cell{ignores: ignores}
		a := &party{}
		a.boot(c, "a", func() time.Time { return now })
		if err := errors.Join(a.look(), a.hold(&now)); err != nil {
			t.Fatal(err)
		}
		c.data, c.version = nil, 0
		now = now.Add(busyLife)
		for range 2 {
			if err := a.Hold(context.Background()); !errors.Is(err, ErrMoved) {
				t.Fatalf("renewing a lease that is gone: %v, want ErrMoved", err)
			}
		}
		if err := errors.Join(a.look(), a.hold(&now)); err != nil {
			t.Errorf("after inspecting the replica: %v", err)
		}
	}
}

// TestLease_P1_crash: a process that was killed gets its lease back at once, even if it was killed
// before Settle; without its state directory it has to wait.
func TestLease_P1_crash(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settled, lost bool
		want          error
	}{"settled": {settled: true}, "before it has settled": {}, "state lost": {settled: true, lost: true, want: ErrHeld}} {
		c := &cell{}
		p := &party{machine: "boot"}
		p.boot(c, "a", time.Now)
		p.nonces = []string{"of a lease that was taken away"}
		if err := errors.Join(p.look(), p.Hold(context.Background())); err != nil {
			t.Fatal(err)
		}
		if tt.settled {
			if err := p.Settle(); err != nil {
				t.Fatal(err)
			}
		}
		if tt.lost {
			p.nonces = nil
		}
		p.boot(c, "a", time.Now)
		if err := errors.Join(p.look(), p.Hold(context.Background())); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
