package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// sight is the note that we last read from the store or wrote to it. Lease.mu guards it.
type sight struct {
	note  Note
	etag  string    // "" if the store does not tell it
	found bool      // there is a note
	seen  time.Time // since when note has been unchanged, by our clock
	own   bool      // note was written by a dead process of this machine, or by this process
}

// look reads the note from the store.
func (s *sight) look(ctx context.Context, o Options) error {
	note, etag, found, err := Read(ctx, o.Store)
	if err != nil {
		return err
	}
	if s.seen.IsZero() || found != s.found || etag != s.etag || note.Nonce != s.note.Nonce {
		s.seen, s.own = o.Clock(), false // own was about another note
	}
	s.note, s.etag, s.found = note, etag, found
	return nil
}

// free reports whether the lease may be taken: there is none; it was released; it is own,
// so its writer is dead or this process; or we have watched it unchanged for its whole
// life.
func (s *sight) free(now time.Time) bool {
	return !s.found || s.note.Released || s.own || now.Sub(s.seen) > s.note.life()+margin
}

// stale reports whether the note names another lineage than the replica: it is a late write of a
// former owner, which learns of that at its next read. A host that takes a replica over for
// another lineage names the replica first and only then writes notes of that lineage.
func (s *sight) stale(lineage string) bool {
	return s.found && lineage != "" && s.note.Lineage != "" && s.note.Lineage != lineage
}

// held returns the error that names the lease's holder and says what to do about it.
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

// condition returns the conditions for replacing the note last seen, as far as the store honours them.
func (s *sight) condition(g Guard) store.PutOptions {
	switch {
	case !s.found:
		return store.PutOptions{Create: g != GuardNone}
	case g == GuardConditional || g == GuardUnknown: // not probed yet: the store may honour it
		return store.PutOptions{Match: s.etag}
	}
	return store.PutOptions{}
}
