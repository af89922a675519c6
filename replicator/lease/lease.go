// Package lease makes sure that one host at a time writes to a replica. It uses conditional
// writes of one small object with a fencing number; on a store that does not honour them, it
// reads that object before and after each write of it.
package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	claimGuarded   = busyLife - margin // how long after a renewal we write without asking the store
	claimUnguarded = margin
)

// unsettled is the prefix, in the state directory, of the nonce of a lease that was taken
// over before its owner had called Settle.
const unsettled = "unsettled "

// Errors of ownership. None is final: on each of them the caller examines the replica again.
var (
	// ErrFenced says that another writer took the lease over while it was ours.
	ErrFenced = errors.New("another writer has taken this replica over")
	// ErrHeld says that another writer's lease is still valid.
	ErrHeld = errors.New("another writer holds this replica's lease")
	// ErrMoved says that the lease may have changed hands, or is gone, since it was inspected.
	ErrMoved = errors.New("this replica's lease is not as it was left: looking at the replica anew")
	// ErrConfirming says that the lease was taken but has to be read again before it
	// counts: the store would not have refused a second writer. Retry in a moment.
	ErrConfirming = errors.New("the replica's lease was taken and is read again in a moment")
)

// errUnseen says that the lease counts now, but that the caller must examine the replica again.
var errUnseen = fmt.Errorf("%w: %w", ErrConfirming, ErrMoved)

// Options of a lease. Store, Owner, Clock and Save are needed.
type Options struct {
	Store store.Store
	Owner string                       // names this writer
	Boot  string                       // this machine's boot id; "": unknown
	Self  string                       // ThisProcess; "": unknown
	File  func() string                // identifies the replicated file, "" if it cannot; nil: always unknown
	Clock func() time.Time             // may stand still while this machine is suspended: see Asleep
	Save  func(nonces ...string) error // stores in the state directory which notes were ours

	// Asleep returns how much more time has passed between from and now than Clock tells; nil: see asleep.
	Asleep func(from, now time.Time) time.Duration

	// Named reads the lineage that the replica is named for, "" for none; nil: unknown. On a store
	// that would not refuse a late write of the lease, this decides whose the replica is.
	Named func(context.Context) (string, error)
}

// Lease keeps one writer at a time on a replica:
//
//	        acquire                  a write within the claim: no request
//	theirs ─────────► ours ◄──────────────────────────────┐
//	  ▲                │ a write after it, an idle time,   │
//	  │                │ a long upload: renew, If-Match    │
//	  │                ├──────────────────────────────────┘
//	  │ another's note │
//	  └────────────────┘ fenced: look again
//
// On a store that does not compare ETags, a write that was delayed for long may replace
// another host's note, so finding our own note proves little. There the lease only counts
// once the replica was examined after the lease was taken, and only while each renewal
// completes before anybody can have taken the lease since the previous one; each renewal
// also reads whose lineage the replica is named for.
//
// A lease may be taken when it was released, when its owner was a process of this machine
// that is dead, or when its note was watched unchanged for its whole life. Another host's
// clock is never believed. Whether the replica may be written to at all is not decided
// here: see package lineage.
//
// The note found is our own last one if the state directory remembers its nonce. Of two
// copies of a state directory, this holds only until either has written; before that a
// clone looks just like its original after a crash, even by name. So even our own lease has
// to expire first, unless this machine has not been rebooted since.
type Lease struct {
	Uploads Uploads // without a reply, that may still reach the store

	o     Options
	guard atomic.Value // Guard; read at scrape

	mu         sync.Mutex // held across the lease's own requests, which are small; guards all below
	sight                 // what is in the store
	inspected  bool       // sight is what the caller last examined with Inspect
	continuous bool       // the state directory says that the note is our own last one
	remembered []string   // as passed to Inspect
	waited     bool       // another host held it when we last tried to take it
	mine       bool
	from       time.Time // when it was last renewed: see Options.Asleep
	until      time.Time // we may write before this, if it is ours
	alone      time.Time // nobody else can have taken it before this
	lapsed     bool      // somebody else may have taken it since it was last ours
	unseen     bool      // it is ours, but the replica was not inspected since it was confirmed
	lineage    string    // the lineage that we write for, see Serve
	idleAt     time.Time // when it must be renewed even if nothing is written
	confirmAt  time.Time // when it is to be read again before it counts; zero: it counts
	pending    string    // the nonce of a write whose outcome is unknown
	asks       bool      // the ETag in a write's reply does not work with If-Match: read it after each write
}

// New returns a lease that is not held.
func New(o Options) *Lease {
	if o.Asleep == nil {
		o.Asleep = asleep
	}
	l := &Lease{o: o}
	l.guard.Store(GuardUnknown)
	return l
}

// Guard returns which conditions the store was found to honour. It takes no lock.
func (l *Lease) Guard() Guard { return l.guard.Load().(Guard) }

// Finding is what Inspect found.
type Finding struct {
	Found      bool
	Note       Note
	Continuous bool // the note is our own last one: nobody else wrote since
	Ended      bool // its writer has certainly ended, and has no write under way
	Unsettled  bool // we took the lease but never settled: our note says nothing about whose the replica is
}

// Inspect reads the lease; remembered are the nonces that Save stored. It must precede any write.
func (l *Lease) Inspect(ctx context.Context, remembered []string) (Finding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.note.Nonce
	if err := l.look(ctx, l.o); err != nil {
		return Finding{}, err
	}
	l.mine = l.mine && l.found && l.note.Nonce == held
	l.continuous = l.found && slices.Contains(remembered, l.note.Nonce)
	unsettled := slices.Contains(remembered, unsettled+l.note.Nonce)
	sameBoot := l.o.Boot != "" && l.note.Boot == l.o.Boot
	// We hold the state directory's lock, so the process that wrote a note remembered there is
	// dead. If the directory was lost or is an old copy, the kernel tells whether the process of
	// our name still runs. Our own pid is no other process: a missing directory has come back.
	l.own = sameBoot && (l.continuous || unsettled ||
		l.note.Owner == l.o.Owner && (Gone(l.note.Process) || l.o.Self != "" && l.note.Process == l.o.Self))
	l.inspected, l.remembered, l.unseen = true, remembered, false
	ended := !unsettled && (l.own || l.note.Released)
	return Finding{Found: l.found, Note: l.note, Continuous: l.continuous, Ended: ended, Unsettled: unsettled}, nil
}

// Vacant reports whether nobody can write to the replica without changing the lease that
// was inspected. If somebody can, the replica's contents are final only once Hold has
// succeeded.
func (l *Lease) Vacant() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.found || (l.note.Released || l.own) && !l.lapsed || l.counts()
}

// counts reports whether the lease was taken and confirmed; it may have expired since.
func (l *Lease) counts() bool {
	return l.mine && l.confirmAt.IsZero() && l.Guard() != GuardUnknown && !l.unseen
}

// Serve sets the lineage that we write for and that the replica is named for, "" for none.
func (l *Lease) Serve(lineage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lineage = lineage
}

// Settle says that the owner's next file continues the replica's history, or begins a
// chain behind it: from now on the state directory knows the lease as ours. After a crash
// before Settle, a lease of ours proves nothing about the replica.
func (l *Lease) Settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.continuous = true
	if !l.mine {
		return nil // not taken yet: the first write will save its nonce
	}
	return l.o.Save(l.note.Nonce)
}

// Hold returns nil when we may write now, acquiring or renewing the lease if needed.
func (l *Lease) Hold(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ensure(ctx); err != nil {
		return err
	}
	if !l.o.before(l.until, l.from) {
		return ErrConfirming // the store's answer took longer than the claim lasts
	}
	return nil
}

// ensure makes the lease ours for a while from now on.
func (l *Lease) ensure(ctx context.Context) error {
	switch {
	case !l.mine:
		return l.acquire(ctx)
	case !l.confirmAt.IsZero():
		return l.confirm(ctx)
	case l.Guard() == GuardUnknown:
		return l.regain(ctx)
	case l.unseen:
		return errUnseen
	case l.o.before(l.until, l.from):
		return nil
	}
	return l.renew(ctx, busyLife)
}

// Idle keeps a lease while nothing is written, and returns when to call it again; the zero
// time means not before the next Hold.
func (l *Lease) Idle(ctx context.Context) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.counts() {
		return time.Time{}, nil
	}
	if l.o.before(l.idleAt, l.from) {
		return l.idleAt, nil
	}
	if err := l.renew(ctx, idleLife); err != nil {
		return time.Time{}, err
	}
	return l.idleAt, nil
}

// During calls f, which may take long, and renews the lease meanwhile. If the lease is lost, it
// cancels f's context and returns the loss, whatever f returned. If f succeeds, During returns
// what Hold does: if the claim had ended by then, f's work may have become visible when another
// host owned the replica.
func (l *Lease) During(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan struct{})
	var lost error
	var keeper sync.WaitGroup
	keeper.Go(func() {
		if lost = fault.Guard(func() error { return keepUntil(ctx, l, done) }); lost != nil {
			stop(lost)
		}
	})
	err := func() error {
		defer keeper.Wait()
		defer close(done)
		return f(ctx)
	}()
	if lost != nil {
		return lost
	}
	if err != nil {
		return err
	}
	return l.Hold(ctx)
}

// keepUntil renews the lease until done is closed. It returns the loss of it.
func keepUntil(ctx context.Context, l *Lease, done <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		if err := l.keep(ctx); errors.Is(err, ErrFenced) || errors.Is(err, ErrMoved) {
			return err
		}
	}
}

// keep renews the lease when less than a third of the claim is left. It is called every second.
func (l *Lease) keep(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.counts() || l.o.before(l.until.Add(-claimOf(l.Guard())/3), l.from) {
		return nil
	}
	return l.renew(ctx, busyLife)
}

// Drop gives up a claim without a request, because another writer's object was found in the replica.
func (l *Lease) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset()
}

// reset forgets everything that was concluded from the last read of the lease.
func (l *Lease) reset() {
	l.mine, l.inspected, l.continuous, l.own, l.unseen = false, false, false, false, false
	l.confirmAt, l.pending, l.lineage = time.Time{}, "", ""
}

// Release gives the lease up, so that another host need not wait. It does nothing if the
// lease is not ours.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mine {
		return nil
	}
	if l.Uploads.adrift() {
		l.reset()
		return errAdrift
	}
	if !l.guarded() || l.etag == "" {
		if err := l.stillOurs(ctx); err != nil {
			return fmt.Errorf("release lease: %w", err)
		}
	}
	note := l.next(l.o.Clock(), busyLife)
	note.Released = true
	err := l.write(ctx, note)
	l.reset() // even if the outcome of the write is unknown: a pending write is no claim
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}
