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

// claimOf is how long after a renewal the owner may write without asking the store.
func claimOf(g Guard) time.Duration {
	if g == GuardConditional {
		return claimGuarded
	}
	return claimUnguarded
}

// acquire takes a lease that is not ours, if it is free and unchanged since Inspect.
func (l *Lease) acquire(ctx context.Context) error {
	if !l.inspected {
		return l.moved()
	}
	etag, nonce, start := l.etag, l.note.Nonce, l.o.Clock()
	if err := l.look(ctx, l.o); err != nil {
		return err
	}
	stale := l.stale(l.lineage)
	// If our lease lapsed, somebody else may have owned it since, and may still be writing.
	ended := stale || (!l.found || l.note.Released || l.own) && !l.lapsed
	switch {
	case l.found && l.pending != "" && l.note.Nonce == l.pending:
		l.mine, l.pending, l.until = true, "", start
		return l.regain(ctx) // an earlier attempt took it, and its reply was lost
	case !stale && !l.free(l.o.Clock()):
		l.waited = true
		return l.held(l.o)
	case l.waited || l.etag != etag || l.note.Nonce != nonce:
		l.waited = false
		return l.moved() // its former owner may have written: the replica must be examined again
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

// acquired confirms a lease that was written after start. On a guarded store it counts as soon
// as a read finds our note; on others only if a read some seconds later does. Even a guarded
// store may accept two writes whose conditions it checks at the same instant; the probe and the
// read take longer than that.
func (l *Lease) acquired(ctx context.Context, start time.Time, ended bool) error {
	l.mine, l.pending, l.until = true, "", start // no claim yet: the lease is not confirmed
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

// findGuard finds out, once, which conditions the store honours.
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
	if l.guarded() && l.etag == "" { // the reply to a write has no ETag: does a read have one?
		if err := l.stillOurs(ctx); err != nil {
			return err
		}
		if l.etag == "" {
			l.guard.Store(GuardCreate)
		}
	}
	return nil
}

// regain confirms a lease that we took some time ago, after which the store did not answer.
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

// doubt requires the lease to be read again before it counts, after a write that began at start
// and that the store would not have refused. By then a host that wrote at the same moment is
// seen, or sees us. A slower write, or one over the note of an owner that may be alive, may have
// replaced a valid lease: then we wait until that owner must have noticed at its next renewal.
func (l *Lease) doubt(start time.Time, ended bool) {
	now := l.o.Clock()
	l.confirmAt = now.Add(confirmAfter)
	if !ended || now.Sub(start) > confirmAfter/2 {
		l.confirmAt = now.Add(claimUnguarded + margin)
	}
}

// confirm reads the lease again once confirmAt has come, and renews it.
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
		// The replica was examined before the lease counted, and another host may have written
		// to it in between.
		l.unseen = true
		return errUnseen
	}
	return err
}

// stillOurs reads the lease and returns an error unless it is our own last note.
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
		l.note = was // the state directory must not remember another host's nonce
		return errStale
	case l.note.Nonce != ours:
		return l.taken()
	}
	return nil
}

// errStale says that a late write of a former owner has replaced our note.
var errStale = errors.New("a late write of a former owner has replaced the replica's lease")

// served returns an error if the store is not guarded and the replica is not named for the
// lineage that we write for: there the lease alone proves little.
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

// unwatched is how long after it was written a note of that life keeps every other host from
// taking the lease: they watch it unchanged for life plus margin first. confirmAfter is more
// than clocks can drift apart in that time.
func unwatched(life time.Duration) time.Duration { return life + margin - confirmAfter }

// asleep is how much more the wall clock advanced than the monotonic clock: the machine was
// suspended, while other hosts' waiting went on. If the wall clock was set instead, a claim may
// end too early, but never too late.
func asleep(from, now time.Time) time.Duration {
	return max(0, now.Round(0).Sub(from.Round(0))-now.Sub(from))
}

// before reports whether the time is before end, counting suspensions since from.
func (o *Options) before(end, from time.Time) bool {
	now := o.Clock()
	return now.Add(o.Asleep(from, now)).Before(end)
}

// alive returns an error if the store is not guarded and somebody else may have taken the lease
// since it was last renewed: the store would not refuse our next note.
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
		case l.note.Nonce == l.pending: // an earlier attempt was applied after all, and its reply was lost
			ours, l.pending = l.pending, ""
		case l.note.Nonce == ours: // refused although nobody else wrote: the reply's ETag had another form
			l.asks = true
		default:
			return l.taken()
		}
	}
	l.guard.Store(GuardCreate) // not even the ETag of our own write matches: If-Match is of no use here
	return fmt.Errorf("renew lease: %w", store.ErrConflict)
}

// renewed records that the lease was renewed at start.
func (l *Lease) renewed(start time.Time, life time.Duration) {
	l.from, l.until, l.alone, l.lapsed = start, start.Add(claimOf(l.Guard())), start.Add(unwatched(life)), false
	l.idleAt = start.Add(idleAfter)
	if life == idleLife {
		l.idleAt = start.Add(idleEvery - mathrand.N(idleEvery/5))
	}
}

// moved gives up the claim: another writer came, or may have come, since we inspected the
// replica, so it must be examined again.
func (l *Lease) moved() error {
	l.reset()
	if l.note.Owner == "" {
		return ErrMoved
	}
	return fmt.Errorf("%w (its owner: %s)", ErrMoved, l.note.Owner)
}

// taken gives up the claim: another host's note is where ours was.
func (l *Lease) taken() error {
	l.reset()
	return fmt.Errorf("%w: %s (fence %d)", ErrFenced, l.note.Owner, l.note.Fence)
}

// next returns our note that is to replace the one last seen.
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

// write stores note in place of the one last seen. It saves the new nonce in the state
// directory first.
func (l *Lease) write(ctx context.Context, note Note) error {
	nonces := []string{unsettled + note.Nonce}
	switch {
	case l.continuous:
		nonces = []string{note.Nonce, l.note.Nonce}
	case !l.found: // a missing directory may come back, with our last note in it
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
			l.guard.CompareAndSwap(GuardConditional, GuardCreate) // the store no longer supports If-Match
		}
		object, err = l.o.Store.Put(ctx, Key, body, store.PutOptions{})
	}
	if err != nil {
		return err
	}
	l.note, l.etag, l.found, l.seen, l.pending = note, object.ETag, true, l.o.Clock(), ""
	return nil
}
