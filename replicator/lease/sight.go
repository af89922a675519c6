package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// sight is what was last written to the store, or seen there. Lease.mu guards it.
type sight struct {
	note  Note
	etag  string    // "" where the store tells none
	found bool      // there is a note
	seen  time.Time // since when note has been unchanged, by our clock
	own   bool      // note is of a process of this machine that is dead
}

// look reads the note that is there.
func (s *sight) look(ctx context.Context, o Options) error {
	note, etag, found, err := Read(ctx, o.Store)
	if err != nil {
		return err
	}
	if s.seen.IsZero() || found != s.found || etag != s.etag || note.Nonce != s.note.Nonce {
		s.seen, s.own = o.Clock(), false // what was known of the writer was known of another note
	}
	s.note, s.etag, s.found = note, etag, found
	return nil
}

// free reports whether the lease that was looked at may be taken: it was given up; it
// is our own and of the same boot of this machine, whose other processes the state
// directory's lock keeps out; or we have watched it for its whole life.
func (s *sight) free(now time.Time) bool {
	return !s.found || s.note.Released || s.own || now.Sub(s.seen) > s.note.life()+margin
}

// stale reports whether the note is of a lineage that the replica is no longer of: a late
// write, of a host that is told so as soon as it looks. Whoever takes a replica over for
// another lineage names it before its notes do.
func (s *sight) stale(lineage string) bool {
	return s.found && lineage != "" && s.note.Lineage != "" && s.note.Lineage != lineage
}

// held says who has the lease and what to do about it.
func (s *sight) held(o Options) error {
	left := max(0, s.note.life()+margin-o.Clock().Sub(s.seen)).Round(time.Second)
	if s.note.Owner == o.Owner {
		return fmt.Errorf("%w: it was taken under this host's own name, %s, but with another state directory, "+
			"before the last boot or on a clone of this machine: this one continues if nothing is heard of that one "+
			"for another %v; if it still runs, stop it or give each its own prefix", ErrHeld, o.Owner, left)
	}
	return fmt.Errorf("%w: %s holds it: this one continues when nothing has been heard of that one for another %v; "+
		"stop that writer, or give this one its own prefix", ErrHeld, s.note.Owner, left)
}

// condition is what must hold for a write in place of what was seen, as far as the store knows conditions.
func (s *sight) condition(g Guard) store.PutOptions {
	switch {
	case !s.found:
		return store.PutOptions{Create: g != GuardNone}
	case g == GuardConditional || g == GuardUnknown: // what is not known yet may be honoured
		return store.PutOptions{Match: s.etag}
	}
	return store.PutOptions{}
}
