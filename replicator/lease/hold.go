package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// guarded reports whether the store is known to refuse a write under another ETag.
func (l *Lease) guarded() bool { return l.Guard() == GuardConditional }

// claimOf is how long after a renewal the owner need not ask.
func claimOf(g Guard) time.Duration {
	if g == GuardConditional {
		return claimGuarded
	}
	return claimUnguarded
}

// acquire takes a lease that is not ours, if it is free and as it was inspected.
func (l *Lease) acquire(ctx context.Context) error {
	if !l.inspected {
		return l.moved()
	}
	etag, nonce, start := l.etag, l.note.Nonce, l.o.Clock()
	if err := l.look(ctx, l.o); err != nil {
		return err
	}
	stale := l.stale(l.lineage)
	// Of a lease that was ours and lapsed, somebody else may have been the owner since.
	ended := stale || (!l.found || l.note.Released || l.own) && !l.lapsed
	switch {
	case l.found && l.pending != "" && l.note.Nonce == l.pending:
		l.mine, l.pending, l.until = true, "", start
		return l.regain(ctx) // by an earlier attempt, whose reply was lost
	case !stale && !l.free(l.o.Clock()):
		l.waited = true
		return l.held(l.o)
	case l.waited || l.etag != etag || l.note.Nonce != nonce:
		l.waited = false
		return l.moved() // whoever had it may have written: look at what is there now
	}
	note := l.next(start, busyLife)
	note.Fence++
	err := l.write(ctx, note)
	if err == nil {
		return l.acquired(ctx, start, ended)
	}
	if !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("take lease: %w", err)
	}
	if err := l.look(ctx, l.o); err != nil {
		return err
	}
	if l.found && l.note.Nonce == l.pending {
		return l.acquired(ctx, start, ended)
	}
	return l.moved()
}

// acquired makes a lease that was written after start count: where the store guards it,
// when a read finds it ours, else when one does some seconds later. A store that guards
// may still let two writes pass whose conditions it looked at together; what the probe
// and the read take is longer than that.
func (l *Lease) acquired(ctx context.Context, start time.Time, ended bool) error {
	l.mine, l.pending, l.until = true, "", start // not before it is known what it is worth
	if err := l.findGuard(ctx); err != nil {
		return err
	}
	if l.guarded() {
		err := l.stillOurs(ctx)
		if errors.Is(err, ErrFenced) {
			return l.moved() // nothing was written under it
		}
		if err == nil {
			l.renewed(start, busyLife)
		}
		return err
	}
	l.doubt(start, ended)
	return ErrConfirming
}

// findGuard finds out, once, what the store guards.
func (l *Lease) findGuard(ctx context.Context) error {
	if l.Guard() == GuardUnknown {
		body, err := l.note.body()
		if err != nil {
			return err
		}
		guard, etag, err := probe(ctx, l.o.Store, Key, body)
		if err != nil {
			return err
		}
		if etag != "" {
			l.etag = etag
		}
		l.guard.Store(guard)
	}
	if l.guarded() && l.etag == "" { // the reply to a write tells none: does a read?
		if err := l.stillOurs(ctx); err != nil {
			return err
		}
		if l.etag == "" {
			l.guard.Store(GuardCreate)
		}
	}
	return nil
}

// regain makes a lease count that was taken at some time, and then the store did not answer.
func (l *Lease) regain(ctx context.Context) error {
	start := l.o.Clock()
	if err := l.stillOurs(ctx); err != nil {
		return err
	}
	if err := l.findGuard(ctx); err != nil {
		return err
	}
	if l.guarded() {
		return l.renew(ctx, busyLife)
	}
	l.doubt(start, false)
	return ErrConfirming
}

// doubt has the lease read again before it counts, after a write that began at start and
// that nothing would have refused. Whoever wrote in the same moment is seen by then, or
// sees us. A write that took longer, and one over the note of an owner who may live,
// may have replaced what counted: that one finds out at its next renewal, until when we wait.
func (l *Lease) doubt(start time.Time, ended bool) {
	now := l.o.Clock()
	l.confirmAt = now.Add(confirmAfter)
	if !ended || now.Sub(start) > confirmAfter/2 {
		l.confirmAt = now.Add(claimUnguarded + margin)
	}
}

// confirm reads the lease again that was taken a moment ago.
func (l *Lease) confirm(ctx context.Context) error {
	if l.o.Clock().Before(l.confirmAt) {
		return ErrConfirming
	}
	l.confirmAt, l.from = time.Time{}, l.o.Clock()
	l.alone = l.from.Add(unwatched(busyLife))
	err := l.renew(ctx, busyLife) // a claim counts from a write, which others see
	switch {
	case errors.Is(err, ErrFenced):
		return l.moved() // nothing was written under it
	case err != nil && l.mine && l.confirmAt.IsZero():
		l.confirmAt = l.o.Clock()
	case err == nil:
		// It was judged before whether the replica may be written to, and another one may have
		// written between.
		l.unseen = true
		return errUnseen
	}
	return err
}

// stillOurs reads the lease, which is to hold our own last note.
func (l *Lease) stillOurs(ctx context.Context) error {
	was, pending := l.note, l.pending
	ours := was.Nonce
	if err := l.look(ctx, l.o); err != nil {
		return err
	}
	switch {
	case !l.found:
		return l.moved()
	case pending != "" && l.note.Nonce == pending:
		l.pending = "" // applied after all, and its reply was lost
	case l.note.Nonce != ours && l.stale(l.lineage):
		was.Fence = max(was.Fence, l.note.Fence)
		l.note = was // the state directory is to remember no other's
		return errStale
	case l.note.Nonce != ours:
		return l.taken()
	}
	return nil
}

// errStale says that a late write of a former owner is where our note was.
var errStale = errors.New("a late write of a former owner has replaced the replica's lease")

// served demands, where the lease alone says little, that the replica is named for the
// lineage that we write for.
func (l *Lease) served(ctx context.Context) error {
	if l.guarded() || l.lineage == "" || l.o.Named == nil {
		return nil
	}
	lineage, err := l.o.Named(ctx)
	if err != nil {
		return err
	}
	if lineage != l.lineage {
		return l.moved()
	}
	return nil
}

// unwatched is for how long after it was written nobody else takes a lease of that life,
// whom nothing else tells that it is free: they watch it for its life and a margin. Clocks
// differ by less than the rest in that time.
func unwatched(life time.Duration) time.Duration { return life + margin - confirmAfter }

// asleep is how much further than the monotonic clock the wall clock has gone: the machine was
// suspended, and others have waited meanwhile. Where the clock was set instead, a claim that
// would last ends early, and never one late.
func asleep(from, now time.Time) time.Duration {
	return max(0, now.Round(0).Sub(from.Round(0))-now.Sub(from))
}

// before reports whether it is before end, which is some time after from.
func (o *Options) before(end, from time.Time) bool {
	now := o.Clock()
	return now.Add(o.Asleep(from, now)).Before(end)
}

// alive returns an error once somebody else may have taken the lease over since it was last
// renewed, where nothing would have refused our own next note.
func (l *Lease) alive() error {
	if l.guarded() || l.o.before(l.alone, l.from) {
		return nil
	}
	l.reset()
	l.lapsed = true
	return fmt.Errorf("%w: it was not renewed in time", ErrMoved)
}

// renew writes our next note in place of our last one.
func (l *Lease) renew(ctx context.Context, life time.Duration) error {
	began := l.o.Clock()
	if err := l.alive(); err != nil {
		return err
	}
	if !l.guarded() || l.etag == "" {
		if err := l.stillOurs(ctx); err != nil && !errors.Is(err, errStale) {
			return err
		}
	}
	ours := l.note.Nonce
	for range 3 {
		start := l.o.Clock()
		err := l.write(ctx, l.next(start, life))
		if err == nil && (l.asks || l.etag == "" || !l.guarded()) {
			err = l.stillOurs(ctx)
		}
		if errors.Is(err, errStale) {
			continue
		}
		if err == nil {
			if err := errors.Join(l.alive(), l.served(ctx)); err != nil {
				return err
			}
			l.renewed(start, life)
			if !l.guarded() && l.o.Clock().Sub(began) > confirmAfter/2 {
				l.doubt(began, false)
				return ErrConfirming
			}
			return nil
		}
		if !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("renew lease: %w", err)
		}
		if err := l.look(ctx, l.o); err != nil {
			return err
		}
		switch {
		case !l.found: // somebody emptied the replica
			return l.moved()
		case l.note.Nonce == l.pending: // applied after all, perhaps long ago, and its reply was lost
			ours, l.pending = l.pending, ""
		case l.note.Nonce == ours: // refused although nobody else wrote: the ETag had another form
			l.asks = true
		default:
			return l.taken()
		}
	}
	l.guard.Store(GuardCreate) // what we wrote ourselves does not match what the store told us
	return fmt.Errorf("renew lease: %w", store.ErrConflict)
}

// renewed notes that the lease is ours from start on.
func (l *Lease) renewed(start time.Time, life time.Duration) {
	l.from, l.until, l.alone, l.lapsed = start, start.Add(claimOf(l.Guard())), start.Add(unwatched(life)), false
	l.idleAt = start.Add(idleAfter)
	if life == idleLife {
		l.idleAt = start.Add(idleEvery - mathrand.N(idleEvery/5))
	}
}

// moved notes that another writer came, or may have come, between our look and our
// write: what we concluded from it holds no longer.
func (l *Lease) moved() error {
	l.reset()
	if l.note.Owner == "" {
		return ErrMoved
	}
	return fmt.Errorf("%w (its owner: %s)", ErrMoved, l.note.Owner)
}

// taken notes that another's note is where ours was.
func (l *Lease) taken() error {
	l.reset()
	return fmt.Errorf("%w: %s (fence %d)", ErrFenced, l.note.Owner, l.note.Fence)
}

// next is the note that comes after what was last seen.
func (l *Lease) next(start time.Time, life time.Duration) Note {
	if l.pending == "" {
		l.pending = rand.Text()
	}
	note := Note{
		Fence: l.note.Fence, Nonce: l.pending, Owner: l.o.Owner, Boot: l.o.Boot, Process: l.o.Self,
		Life: life.Seconds(), Expires: start.Add(life).UTC(), Lineage: l.lineage,
	}
	if l.o.File != nil {
		note.File = l.o.File()
	}
	return note
}

// write stores note in place of what was last seen. The state directory knows
// the new nonce before the store does.
func (l *Lease) write(ctx context.Context, note Note) error {
	nonces := []string{unsettled + note.Nonce}
	switch {
	case l.continuous:
		nonces = []string{note.Nonce, l.note.Nonce}
	case !l.found: // a directory that is away may come back with our last note
		nonces = append(nonces, l.remembered[:min(len(l.remembered), 3)]...)
	}
	if err := l.o.Save(nonces...); err != nil {
		return err
	}
	body, err := note.body()
	if err != nil {
		return err
	}
	object, err := l.o.Store.Put(ctx, Key, body, l.condition(l.Guard()))
	if errors.Is(err, errors.ErrUnsupported) {
		if l.found {
			l.guard.CompareAndSwap(GuardConditional, GuardCreate) // it was honoured before
		}
		object, err = l.o.Store.Put(ctx, Key, body, store.PutOptions{})
	}
	if err != nil {
		return err
	}
	l.note, l.etag, l.found, l.seen, l.pending = note, object.ETag, true, l.o.Clock(), ""
	return nil
}
