// Package lease keeps one writer at a time on a replica, by conditional writes of
// one small object with a fencing number, or, where a store honours none, by reading
// that object before and after each write of it.
package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	claimGuarded   = busyLife - margin // how long after a renewal we write without asking
	claimUnguarded = margin
)

// unsettled stands in the state directory before the nonce of a lease that was
// taken over but whose owner had not settled yet.
const unsettled = "unsettled "

// Errors of ownership. None is final: whoever meets one examines the replica again.
var (
	// ErrFenced says that another writer took over while the lease was ours.
	ErrFenced = errors.New("another writer has taken this replica over")
	// ErrHeld says that another writer's lease is still valid.
	ErrHeld = errors.New("another writer holds this replica's lease")
	// ErrMoved says that the lease changed hands, or is gone, since it was inspected.
	ErrMoved = errors.New("this replica's lease is not as it was left: looking at the replica anew")
	// ErrConfirming says that the lease was taken, and is read again in a few
	// seconds: the store would not have refused a second writer.
	ErrConfirming = errors.New("the replica's lease was taken and is read again in a moment")
)

// errUnseen says that the lease counts now, and that what was concluded before may not.
var errUnseen = fmt.Errorf("%w: %w", ErrConfirming, ErrMoved)

// Options of a lease. Store, Owner, Clock and Save are needed.
type Options struct {
	Store store.Store
	Owner string                       // who writes
	Boot  string                       // since when this machine runs; "": not known
	Self  string                       // ThisProcess; "": not known
	File  func() string                // identifies the file that is replicated, "" where it cannot; nil: never known
	Clock func() time.Time             // of what passes while this machine runs: see Asleep
	Save  func(nonces ...string) error // remembers in the state directory which notes were ours

	// Asleep is how much more time has passed since from than Clock tells; nil: as the wall clock tells.
	Asleep func(from, now time.Time) time.Duration

	// Named reads which lineage the replica is named for, "" for none; nil: that is not known. Where
	// nothing refuses a late write of the lease, that decides.
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
// Where the store does not compare ETags, a write that was under way for long may replace
// another's note, and a note of ours says little. There the lease counts for what the replica
// was seen to hold after the lease had been taken, as long as each renewal is through before
// anybody can have taken it over since the last; and each asks whose the replica is.
//
// It is taken over when it was given up, when its owner was a process of this
// machine that is dead, or when it was watched unchanged for its whole life. What
// another host's clock says is never believed. Whether the replica may be written to at
// all is not the lease's matter: see package lineage.
//
// Whether the note that is found was our own last one is told by its nonce, which
// the state directory remembers: a copy of that directory on another machine
// stops being it as soon as one of both has written. Until then a clone looks like its
// original after a crash, even by name; so a lease that is our own is waited for
// too, unless this machine has not been booted since.
type Lease struct {
	Uploads Uploads // under it

	o     Options
	guard atomic.Value // Guard; read at scrape

	mu         sync.Mutex // held over the lease's own requests, which are small; guards all below
	sight                 // what is in the store
	inspected  bool       // it is what the owner of this Lease drew its conclusions from
	continuous bool       // by the state directory: its note is our own last one
	remembered []string   // as Inspect was told
	waited     bool       // it was another's when we last wanted it
	mine       bool
	from       time.Time // when it was last renewed: see Options.Asleep
	until      time.Time // we may write before, if it is ours
	alone      time.Time // nobody else can have taken it before
	lapsed     bool      // somebody may have, since it was last ours
	unseen     bool      // it is ours, and the replica was not inspected since
	lineage    string    // that we write for, see Serve
	idleAt     time.Time // when it is to be renewed at the latest
	confirmAt  time.Time // when it is to be read again before it counts; zero: it counts
	pending    string    // the nonce of a write whose fate is not known
	asks       bool      // a write's reply does not tell the ETag that If-Match wants
}

// New returns a lease that nobody has asked for yet.
func New(o Options) *Lease {
	if o.Asleep == nil {
		o.Asleep = asleep
	}
	l := &Lease{o: o}
	l.guard.Store(GuardUnknown)
	return l
}

// Guard returns what the store was found to offer. It waits for nobody.
func (l *Lease) Guard() Guard { return l.guard.Load().(Guard) }

// Finding is what Inspect found.
type Finding struct {
	Found      bool
	Note       Note
	Continuous bool // it is our own last one: nobody else wrote since
	Ended      bool // its writer has certainly ended, and nothing of it is under way
	Unsettled  bool // we took it, and had not settled when we last ended or looked: it says nothing of the replica
}

// Inspect reads the lease. Nothing may be written before.
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
	// Who has the state directory has its lock, so the process that had it is dead. Where
	// that directory was lost, or is an old one, the kernel tells.
	l.own = sameBoot && (l.continuous || unsettled ||
		l.note.Owner == l.o.Owner && (Gone(l.note.Process) || l.o.Self != "" && l.note.Process == l.o.Self)) // or of this
	// very process: a directory that was away is back
	l.inspected, l.remembered, l.unseen = true, remembered, false
	ended := !unsettled && (l.own || l.note.Released)
	return Finding{Found: l.found, Note: l.note, Continuous: l.continuous, Ended: ended, Unsettled: unsettled}, nil
}

// Vacant reports whether nobody can write to the replica without changing the lease
// that was inspected. Where somebody can, what is there is only final once Hold
// has succeeded.
func (l *Lease) Vacant() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.found || (l.note.Released || l.own) && !l.lapsed || l.counts()
}

// counts reports whether the lease is ours beyond doubt, or was.
func (l *Lease) counts() bool {
	return l.mine && l.confirmAt.IsZero() && l.Guard() != GuardUnknown && !l.unseen
}

// Serve says that the replica is named for a lineage, and that we write for it.
func (l *Lease) Serve(lineage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lineage = lineage
}

// Settle says that the owner has made its history continue what is there, or
// has leapt over it: from now on it is ours by the state directory. A crash before
// leaves a lease of ours that proves nothing.
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

// Idle keeps a lease that nobody writes under, and returns when to call it again. A
// zero time is not before the next Hold.
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

// During does f, which may take long, and keeps the lease in the meantime. When the lease
// is lost, f's context ends, and the loss is returned whatever f did. So is what it meets who
// asks for the lease at the end, where the claim was over by then: f's work may have become
// visible when the replica was another's already.
func (l *Lease) During(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan struct{})
	var lost error
	var keeper sync.WaitGroup
	keeper.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if err := l.keep(ctx); errors.Is(err, ErrFenced) || errors.Is(err, ErrMoved) {
				lost = err
				stop(err)
				return
			}
		}
	})
	err := f(ctx)
	close(done)
	keeper.Wait()
	if lost != nil {
		return lost
	}
	if err != nil {
		return err
	}
	return l.Hold(ctx)
}

// keep renews when a third of the claim is left. What fails otherwise is tried again.
func (l *Lease) keep(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.counts() || l.o.before(l.until.Add(-claimOf(l.Guard())/3), l.from) {
		return nil
	}
	return l.renew(ctx, busyLife)
}

// Drop forgets a claim that proved to be none: the replica holds what we did not write.
func (l *Lease) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset()
}

// reset forgets what was concluded from the last look.
func (l *Lease) reset() {
	l.mine, l.inspected, l.continuous, l.own, l.unseen = false, false, false, false, false
	l.confirmAt, l.pending, l.lineage = time.Time{}, "", ""
}

// Release gives the lease up, so that another need not wait. It does nothing
// when the lease is not ours.
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
	l.reset() // also where the fate of the write is not known: what is pending is no claim
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}
