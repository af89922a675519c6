package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// cell is a store of one object with conditional writes, whose replies get lost.
type cell struct {
	rnd     *rand.Rand
	data    []byte
	version int
	ignores bool // conditions
	refuses bool // conditions, with ErrUnsupported
	faults  bool
}

func (c *cell) Put(_ context.Context, _ string, body store.Body, o store.PutOptions) (store.Object, error) {
	fault := 0
	if c.faults {
		fault = c.rnd.IntN(6)
	}
	if fault == 1 {
		return store.Object{}, store.ErrUnavailable
	}
	if c.refuses && (o.Create || o.Match != "") {
		return store.Object{}, errors.ErrUnsupported
	}
	if !c.ignores && (o.Create && c.version > 0 || o.Match != "" && o.Match != fmt.Sprint(c.version)) {
		return store.Object{}, store.ErrExists
	}
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	if c.data, err = io.ReadAll(r); err != nil {
		return store.Object{}, err
	}
	c.version++
	if fault == 2 {
		return store.Object{}, store.ErrUnavailable // done, but the reply is lost
	}
	return store.Object{ETag: fmt.Sprint(c.version)}, nil
}

func (c *cell) Get(context.Context, string, int64, int64) (io.ReadCloser, store.Object, error) {
	if c.faults && c.rnd.IntN(6) == 1 {
		return nil, store.Object{}, store.ErrUnavailable
	}
	if c.version == 0 {
		return nil, store.Object{}, store.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(c.data)), store.Object{ETag: fmt.Sprint(c.version)}, nil
}

func (c *cell) List(context.Context, string, string) iter.Seq2[store.Object, error] {
	return func(func(store.Object, error) bool) {}
}
func (c *cell) Delete(context.Context, ...string) error { return nil }

// party is one process with its state directory.
type party struct {
	*Lease
	machine string
	nonces  []string
}

func (p *party) boot(c *cell, owner string, now func() time.Time) {
	p.Lease = New(Options{Store: c, Owner: owner, Boot: p.machine, Clock: now, Save: func(nonces ...string) error {
		p.nonces = slices.Clone(nonces)
		return nil
	}})
}

// look is what open does.
func (p *party) look() error {
	_, _, err := p.Inspect(context.Background(), p.nonces)
	return err
}

// TestLease_C2_C3_interleavings: processes start, write, crash, sleep, come
// back, are cloned with their state directory, have a namesake on their machine,
// lose their state directory, and lose replies, in random order. At no instant do two believe that they may write, and whoever is told
// that its history is unbroken is right. With SQLWATCH_TEST_LEASE_SEEDS set, fifty
// times as many histories.
func TestLease_C2_C3_interleavings(t *testing.T) {
	t.Parallel()
	takeovers, fenced := 0, 0
	seeds := uint64(4_000)
	if os.Getenv("SQLWATCH_TEST_LEASE_SEEDS") != "" {
		seeds = 200_000
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 2))
		now := time.Unix(1_700_000_000, 0)
		clock := func() time.Time { return now }
		c := &cell{rnd: rnd, faults: seed%3 > 0}
		clones, namesakes := seed%4 == 0, seed%4 == 1
		parties := make([]*party, 3)
		for i := range parties {
			parties[i] = &party{machine: fmt.Sprintf("boot-%d", i)}
			parties[i].boot(c, fmt.Sprintf("host-%d", i), clock)
		}
		if namesakes { // two containers on one machine, each with its own state directory
			parties[1].machine = parties[0].machine
			parties[1].boot(c, parties[0].o.Owner, clock)
		}
		writer := -1 // whoever wrote last
		for step := range 40 {
			i := rnd.IntN(len(parties))
			p := parties[i]
			switch rnd.IntN(10) {
			case 0: // crash and restart, of the process or the machine
				if rnd.IntN(3) == 0 {
					p.machine = fmt.Sprintf("boot-%d-%d", i, step)
				}
				p.boot(c, p.o.Owner, clock)
			case 1: // in some histories, i becomes a clone of another, by state directory and name, or loses the directory
				k := rnd.IntN(len(parties))
				switch {
				case clones:
					p.nonces = slices.Clone(parties[k].nonces)
					p.boot(c, parties[k].o.Owner, clock)
				case namesakes:
					p.nonces = nil
					p.boot(c, p.o.Owner, clock)
				}
			case 2, 3:
				now = now.Add(time.Duration(rnd.IntN(100)) * time.Second)
			case 4:
				now = now.Add(time.Duration(rnd.IntN(20)) * time.Minute)
			case 5:
				_ = p.Release(context.Background())
			default:
				if p.until.IsZero() && p.fenced == nil && p.look() != nil {
					continue
				}
				// Without a state directory the replica's content is compared, whoever wrote it.
				claimed := p.continuous && p.until.IsZero() && len(p.nonces) > 0
				if err := p.Hold(context.Background()); err != nil {
					if errors.Is(err, ErrFenced) {
						fenced++
						p.boot(c, p.o.Owner, clock)
						if slices.Contains(p.nonces, c.nonce()) {
							t.Fatalf("seed %d step %d: fenced off by its own note", seed, step)
						}
					}
					continue
				}
				if rnd.IntN(5) == 0 { // crash before the leap
					p.boot(c, p.o.Owner, clock)
					continue
				}
				if err := p.Settle(); err != nil {
					t.Fatal(err)
				}
				if claimed && !clones && writer >= 0 && writer != i {
					t.Fatalf("seed %d step %d: party %d was told that nobody wrote since, but %d did", seed, step, i, writer)
				}
				if writer != i {
					takeovers++
				}
				writer = i
			}
			if believers := believing(parties, now); believers > 1 {
				t.Fatalf("seed %d step %d: %d parties believe that they may write", seed, step, believers)
			}
		}
	}
	t.Logf("%d takeovers, %d fenced", takeovers, fenced)
	if takeovers < 5_000 || fenced < 500 {
		t.Errorf("too little happened: %d takeovers, %d fenced", takeovers, fenced)
	}
}

// believing counts the parties that believe that they may write.
func believing(parties []*party, now time.Time) (n int) {
	for _, q := range parties {
		if q.fenced == nil && now.Before(q.until) {
			n++
		}
	}
	return n
}

// nonce is the stored note's.
func (c *cell) nonce() string {
	l := New(Options{Store: &cell{rnd: c.rnd, data: c.data, version: c.version}, Clock: time.Now})
	if _, err := l.look(context.Background()); err != nil {
		return ""
	}
	return l.note.Nonce
}

// TestLease_S13_noConditions: a store that ignores or refuses conditions is found out.
func TestLease_S13_noConditions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*cell{"ignores": {ignores: true}, "refuses": {refuses: true}, "honours": {}} {
		p := &party{}
		p.boot(c, "host", time.Now)
		if err := p.look(); err != nil {
			t.Fatal(err)
		}
		if err := p.Hold(context.Background()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := p.Unguarded(), name != "honours"; got != want {
			t.Errorf("%s: unguarded is %v, want %v", name, got, want)
		}
		if err := p.Release(context.Background()); err != nil {
			t.Errorf("%s: release: %v", name, err)
		}
		q := &party{}
		q.boot(c, "other host", time.Now)
		if err := q.look(); err != nil {
			t.Fatal(err)
		}
		if err := q.Hold(context.Background()); err != nil {
			t.Errorf("%s: after a release: %v", name, err)
		}
	}
}

// TestLeaseWaits: a valid lease of another is waited for, by its clock or, where
// that is wrong, by having watched it.
func TestLeaseWaits(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	c := &cell{}
	a, b := &party{}, &party{}
	a.boot(c, "a", func() time.Time { return now.Add(240 * time.Hour) }) // a's clock is ten days ahead
	b.boot(c, "b", func() time.Time { return now })
	if err := errors.Join(a.look(), a.Hold(context.Background())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.look(), b.Hold(context.Background())); !errors.Is(err, ErrHeld) {
		t.Fatalf("b beside a: %v, want ErrHeld", err)
	}
	now = now.Add(ttl + margin + time.Second)
	if err := b.Hold(context.Background()); !errors.Is(err, ErrMoved) {
		t.Errorf("b, after a's time: %v, want to be told to look at what a has written", err)
	}
	if err := errors.Join(b.look(), b.Hold(context.Background())); err != nil {
		t.Errorf("b, having watched a's lease for its whole time: %v", err)
	}
	if err := a.Hold(context.Background()); err != nil && !errors.Is(err, ErrFenced) {
		t.Errorf("a: %v", err)
	}
}

// TestLease_S16_gone: somebody removed the lease while it was ours. That is no other
// writer: what is left of the replica is to be looked at.
func TestLease_S16_gone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	c := &cell{}
	a := &party{}
	a.boot(c, "a", func() time.Time { return now })
	if err := errors.Join(a.look(), a.Hold(context.Background())); err != nil {
		t.Fatal(err)
	}
	*c = cell{}
	now = now.Add(ttl)
	for range 2 {
		if err := a.Hold(context.Background()); !errors.Is(err, ErrMoved) {
			t.Fatalf("renewing a lease that is gone: %v, want to be told to look", err)
		}
	}
	if err := errors.Join(a.look(), a.Hold(context.Background())); err != nil {
		t.Errorf("after the look: %v", err)
	}
}

// TestLease_P1_crash: a process that was killed has its lease back at once, also where
// it had not leapt yet; with its state directory lost it waits.
func TestLease_P1_crash(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settled, lost bool
		want          error
	}{"settled": {settled: true}, "before the leap": {}, "state lost": {settled: true, lost: true, want: ErrHeld}} {
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
