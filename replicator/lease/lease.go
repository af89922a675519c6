// Package lease keeps one writer at a time on a replica, by conditional writes of
// one small object with a fencing number.
package lease

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// key is where a replica says who writes to it.
const key = "sqlwatch/lease"

// The lease's times. It is renewed only before a write, so an idle database
// costs no request; the owner stops believing in it a margin before others may.
const (
	ttl    = 2 * time.Minute
	margin = 30 * time.Second
)

// unsettled stands in the state directory before the nonce of a lease that was
// taken over but whose owner had not leapt yet.
const unsettled = "unsettled "

// Note is the lease object.
type Note struct {
	Fence    uint64    `json:"fence"` // rises with every change of hands
	Nonce    string    `json:"nonce"` // of this very note
	Owner    string    `json:"owner"`
	Boot     string    `json:"boot,omitempty"`    // of the owner's machine, since when it runs
	Process  string    `json:"process,omitempty"` // the owner's, see ThisProcess
	Expires  time.Time `json:"expires"`           // by the owner's clock
	Released bool      `json:"released,omitempty"`
}

// Errors of ownership. All are final for the replica until somebody acts.
var (
	// ErrFenced says that another writer took over. This one has stopped.
	ErrFenced = errors.New("another writer has taken this replica over")
	// ErrHeld says that another writer's lease is still valid.
	ErrHeld = errors.New("another writer holds this replica's lease")
	// ErrMoved says that the lease changed hands, or is gone, since it was inspected.
	ErrMoved = errors.New("this replica's lease is not as it was left: looking at the replica anew")
)

// Options of a lease. All but Boot and Self are needed.
type Options struct {
	Store store.Store
	Owner string                       // who writes
	Boot  string                       // since when this machine runs; "": not known
	Self  string                       // ThisProcess; "": not known
	Clock func() time.Time             // monotonic
	Save  func(nonces ...string) error // remembers in the state directory which notes were ours
}

// Lease keeps one writer at a time on a replica, as far as the store honours
// conditional writes:
//
//	       acquire                    a write within the TTL: no request
//	none ───────────► ours ◄──────────────────────────────┐
//	  ▲                │ a write after it: renew, If-Match │
//	  │ expired, or    ├───────────────────────────────────┘
//	  │ released, or   │ refused: another took it
//	  │ our own        ▼
//	theirs           fenced (final)
//
// Whether the lease that is found was our own last one is told by its nonce,
// which the state directory remembers: a copy of that directory on another
// machine stops being it as soon as one of both has written. Until then a clone
// looks like its original after a crash, even by name; so a lease that is our own
// is waited for too, unless this machine has not been booted since. A name proves
// even less: two containers may have it, with a state directory each. Where continuity
// of ownership is not proven, the new owner leaps far ahead with its TXIDs and
// begins with a snapshot (package ship), so that a paused predecessor's late
// write lands in the predecessor's history and never in ours.
type Lease struct {
	o Options

	mu         sync.Mutex // held over the lease's own requests, which are small
	note       Note       // as last written or seen
	etag       string
	until      time.Time // we may write before; zero: not ours now
	seen       time.Time // since when note has been unchanged, by our clock
	fenced     error
	continuous bool   // nobody else wrote since our last time here
	vouched    bool   // by the state directory, not by the name alone
	own        bool   // note is of a process of this machine that is dead
	inspected  bool   // note is what continuity was concluded from
	unlocked   bool   // the store has no conditional writes
	probed     bool   // that has been found out
	waited     bool   // it was another's when we last wanted it
	pending    string // the nonce of a write whose fate is not known
}

// New returns a lease that nobody has asked for yet.
func New(o Options) *Lease { return &Lease{o: o} }

// Inspect reads the lease and says whether what is there is our own history: the
// state directory remembers the note, or was lost and the note is in our name.
// Nothing may be written before it was asked.
func (l *Lease) Inspect(ctx context.Context, remembered []string) (found, ours bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, err = l.look(ctx); err != nil {
		return found, false, err
	}
	if !found {
		l.until = time.Time{} // whatever was ours was elsewhere
	}
	l.vouched = slices.Contains(remembered, l.note.Nonce)
	sameBoot := l.o.Boot != "" && l.note.Boot == l.o.Boot
	// Who has the state directory has its lock, so the process that had it is dead. Where
	// that directory was lost, or is an old one, the kernel tells.
	l.own = sameBoot && (l.vouched || slices.Contains(remembered, unsettled+l.note.Nonce) ||
		l.note.Owner == l.o.Owner && Gone(l.note.Process))
	l.continuous = !found || l.vouched || len(remembered) == 0 && l.note.Owner == l.o.Owner
	l.inspected = true
	return found, l.continuous, nil
}

// Vacant says whether nobody can write to the replica without changing the lease
// that was inspected. Where somebody can, what is there is only final once Hold
// has succeeded.
func (l *Lease) Vacant() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.etag == "" || l.note.Released || l.own || !l.until.IsZero()
}

// Settle says that the owner has made its history continue what is there, or
// has leapt over it: from now on the state directory vouches for continuity. A
// crash before leaves a lease of ours that proves nothing.
func (l *Lease) Settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.continuous, l.vouched = true, true
	if l.until.IsZero() {
		return nil // not taken yet: the first write will save its nonce
	}
	return l.o.Save(l.note.Nonce)
}

// Fence stops this writer for good.
func (l *Lease) Fence(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.fenced = time.Time{}, err
	return err
}

// Unguarded says whether the store lets a second writer overwrite.
func (l *Lease) Unguarded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unlocked
}

// look reads the lease. It reports whether there is one.
func (l *Lease) look(ctx context.Context) (bool, error) {
	body, object, err := l.o.Store.Get(ctx, key, 0, -1)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) { // the first write makes the place, or says why not
		l.note, l.etag = Note{}, ""
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read lease: %w", err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 1<<16))
	if err != nil {
		return false, fmt.Errorf("read lease: %w", err)
	}
	var note Note
	if err := json.Unmarshal(data, &note); err != nil {
		return false, fmt.Errorf("read lease: %w: %w", store.ErrDamaged, err)
	}
	// Not the nonce: a repeated write of the same one is a renewal too.
	if object.ETag != l.etag || l.seen.IsZero() {
		l.seen = l.o.Clock()
	}
	l.note, l.etag = note, object.ETag
	return true, nil
}

// free says whether the lease that was looked at may be taken: it was given up; it
// is our own and of the same boot of this machine, whose other processes the state
// directory's lock keeps out; it is past its time by both clocks' account, or we
// have watched it for that long.
func (l *Lease) free() bool {
	return l.etag == "" || l.note.Released || l.own ||
		l.o.Clock().After(l.note.Expires.Add(margin)) || l.o.Clock().Sub(l.seen) > ttl+margin
}

// held says who has the lease and what to do about it.
func (l *Lease) held() error {
	until := l.note.Expires.UTC().Format(time.RFC3339)
	if l.note.Owner == l.o.Owner {
		return fmt.Errorf("%w: it was taken under this host's own name, %s, with another state directory, before the machine was booted or on a clone of it, and is valid until %s: this one waits until then; if another one runs, stop it or give each a prefix of its own", ErrHeld, l.o.Owner, until)
	}
	return fmt.Errorf("%w: %s has it until %s: this one waits; stop that writer, or give this one a prefix of its own", ErrHeld, l.note.Owner, until)
}

// Hold returns nil when we may write now, acquiring or renewing the lease if needed.
func (l *Lease) Hold(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fenced != nil {
		return l.fenced
	}
	if l.o.Clock().Before(l.until) {
		return nil
	}
	ours := !l.until.IsZero()
	if !ours && !l.inspected {
		return l.moved()
	}
	if !ours {
		seen := l.etag
		if _, err := l.look(ctx); err != nil {
			return err
		}
		if l.etag != seen {
			return l.moved()
		}
	}
	for range 3 {
		if !ours && !l.free() {
			l.waited = true
			return l.held()
		}
		if !ours && l.waited {
			l.waited = false
			return l.moved() // whoever had it may have written: look at what is there now
		}
		start := l.o.Clock()
		err := l.write(ctx, l.next(start, ours))
		if err == nil {
			l.until = start.Add(ttl - margin)
			return l.probe(ctx)
		}
		if !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("take lease: %w", err)
		}
		found, err := l.look(ctx)
		if err != nil {
			return err
		}
		switch {
		case found && l.note.Nonce == l.pending: // applied after all, its reply was lost: go on from there
			l.pending, ours = "", true
		case ours && found:
			l.until = time.Time{}
			l.fenced = fmt.Errorf("%w: %s (fence %d): this one has stopped; both histories can be restored; give each writer a prefix of its own and restart", ErrFenced, l.note.Owner, l.note.Fence)
			return l.fenced
		default: // taken by another, or somebody emptied the replica
			l.until = time.Time{}
			return l.moved()
		}
	}
	return fmt.Errorf("take lease: %w", store.ErrConflict)
}

// moved notes that another writer came, or may have come, between our look and our
// write: what we concluded from it holds no longer.
func (l *Lease) moved() error {
	l.inspected, l.continuous, l.vouched, l.own, l.pending = false, false, false, false, ""
	return fmt.Errorf("%w (its owner: %q)", ErrMoved, l.note.Owner)
}

// next is the note that comes after what was last seen.
func (l *Lease) next(start time.Time, ours bool) Note {
	if l.pending == "" {
		l.pending = rand.Text()
	}
	note := Note{Fence: l.note.Fence, Nonce: l.pending, Owner: l.o.Owner, Boot: l.o.Boot, Process: l.o.Self, Expires: start.Add(ttl).UTC()}
	if !ours {
		note.Fence++
	}
	return note
}

// probe finds out, once, whether the store honours conditions: to create the
// lease that is there must fail. A store that ignores the header replaces it
// with itself.
func (l *Lease) probe(ctx context.Context) error {
	if l.probed || l.unlocked {
		return nil
	}
	body, err := l.note.body()
	if err != nil {
		return err
	}
	object, err := l.o.Store.Put(ctx, key, body, store.PutOptions{Create: true})
	switch {
	case err == nil:
		l.unlocked, l.etag = true, object.ETag
	case !errors.Is(err, store.ErrExists):
		return fmt.Errorf("probe conditional writes: %w", err)
	}
	l.probed = true
	return nil
}

func (n Note) body() (store.Body, error) {
	data, err := json.Marshal(n)
	sum := sha256.Sum256(data)
	return store.Body{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}, err
}

// write stores note in place of what was last seen. The state directory knows
// the new nonce before the store does.
func (l *Lease) write(ctx context.Context, note Note) error {
	nonces := []string{unsettled + note.Nonce}
	if l.continuous && l.vouched {
		nonces = []string{note.Nonce, l.note.Nonce}
	}
	if err := l.o.Save(nonces...); err != nil {
		return err
	}
	body, err := note.body()
	if err != nil {
		return err
	}
	opts := store.PutOptions{Create: l.etag == "", Match: l.etag}
	if l.unlocked {
		opts = store.PutOptions{}
	}
	object, err := l.o.Store.Put(ctx, key, body, opts)
	if errors.Is(err, errors.ErrUnsupported) && !l.unlocked {
		l.unlocked = true
		object, err = l.o.Store.Put(ctx, key, body, store.PutOptions{})
	}
	if err != nil {
		return err
	}
	l.note, l.etag, l.seen, l.pending = note, object.ETag, l.o.Clock(), ""
	return nil
}

// Release gives the lease up, so that another need not wait. It does nothing
// when the lease was never ours.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until.IsZero() || l.fenced != nil {
		return nil
	}
	note := l.next(l.o.Clock(), true)
	note.Released = true
	l.until = time.Time{}
	if err := l.write(ctx, note); err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}
