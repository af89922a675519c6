package replicator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// saved is what the state directory knows about a replica. To lose it costs a
// comparison, never data.
type saved struct {
	Version  int       `json:"version"`
	Nonces   []string  `json:"nonces,omitempty"`   // of leases that were ours
	Verified []string  `json:"verified,omitempty"` // keys of the chain that the last drill restored
	At       time.Time `json:"verified_at"`
}

const savedVersion = 1

func (s saved) verifiedKeys() map[string]bool {
	keys := make(map[string]bool, len(s.Verified))
	for _, k := range s.Verified {
		keys[k] = true
	}
	return keys
}

func (p *replica) savedPath() string { return filepath.Join(p.dir, p.fileName()+".json") }

// load reads what the state directory knows. A damaged file is as good as none.
func (p *replica) load() error {
	data, err := os.ReadFile(p.savedPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read state of %s: %w", p.o.Name, err)
	}
	var s saved
	if err == nil && json.Unmarshal(data, &s) == nil && s.Version > savedVersion {
		return fmt.Errorf("read %s: %w", p.savedPath(), spool.ErrVersion)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saved, p.st.LastVerified = s, s.At
	return nil
}

// save changes what the state directory knows.
func (p *replica) save(change func(*saved)) error {
	p.mu.Lock()
	change(&p.saved)
	p.saved.Version = savedVersion
	data, err := json.Marshal(p.saved)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write state of %s: %w", p.o.Name, err)
	}
	return durable.WriteFile(p.savedPath(), data, 0o600)
}

func (p *replica) saveNonces(nonces ...string) error {
	return p.save(func(s *saved) { s.Nonces = nonces })
}

// remembered returns a copy of what the state directory knows.
func (p *replica) remembered() saved {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved
}

// ErrForeign says that a replica's space holds files of another program.
var ErrForeign = errors.New("the replica's space holds files that sqlwatch did not write (Litestream's?): use an empty prefix, or continue its history with: sqlwatch run --adopt=NAME, the name being the replica's or the database's")

// owned looks at the lease and says whether what the replica holds, up to t, is
// this database's own history and nobody else's.
func (p *replica) owned(ctx context.Context) (t catalog.Tip, ours bool, err error) {
	remembered := p.remembered().Nonces
	found, ours, err := p.lease.Inspect(ctx, remembered)
	if err != nil {
		return t, false, err
	}
	if t, err = catalog.FindTip(ctx, p.store); err != nil {
		return t, false, err
	}
	// Where somebody emptied the replica, what we uploaded since is there without a lease.
	late := len(remembered) > 0 && t.Lineage != ""
	taken, err := catalog.Taken(ctx, p.store, t)
	if err == nil && taken && !found && !late && !p.o.Adopt {
		err = fmt.Errorf("%s: %w", p.o.Name, ErrForeign)
	}
	return t, ours && err == nil, err
}

// recoverable returns the TXID that capture may go on from when its own state
// is lost; 0 where the replica is empty or another's.
func (p *replica) recoverable(ctx context.Context) (ltx.TXID, error) {
	t, ours, err := p.owned(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		return 0, nil // for open to make, or to complain about
	}
	if err != nil || !ours {
		return 0, err
	}
	return t.TXID, nil
}

// recovered notes that capture's position is this replica's.
func (p *replica) recovered(txid ltx.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from = txid
}

// open finds out where the replica stands and whether its history is ours to
// continue. Where it is not, capture starts a new chain behind it.
func (p *replica) open(ctx context.Context) error {
	t, ours, err := p.owned(ctx)
	if errors.Is(err, store.ErrMisplaced) {
		// Nothing is there. The first write makes a directory, where it may.
		if err = p.lease.Hold(ctx); err == nil {
			t, err = catalog.FindTip(ctx, p.store)
			ours = t.TXID == 0
		}
	}
	if err != nil {
		return err
	}
	if !ours || !p.lease.Vacant() {
		// What is there is only final once the lease is ours.
		if err := p.lease.Hold(ctx); err != nil {
			return err
		}
		if t, err = catalog.FindTip(ctx, p.store); err != nil {
			return err
		}
	}
	last := p.r.spool().Last()
	switch {
	case !ours || t.TXID <= last && !p.agrees(t):
		err = p.r.rebase(ctx, leapOver(max(t.TXID, last)), t.At)
	case t.TXID > last:
		err = p.r.rebase(ctx, t.TXID, t.At)
	}
	if err == nil {
		err = p.lease.Settle()
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.findRecent(ctx, t); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	if err := p.findSnapshots(ctx, t); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Name, err)
	}
	p.base, p.nextTidy = t.Base, p.now().Add(p.slack())
	p.mu.Lock()
	p.cursor, p.known = t.TXID, true
	p.tell() // a sync may have been asked for before: perhaps nothing is left to store
	p.mu.Unlock()
	return nil
}

// agrees says whether what we ship next may join the replica's tip: whether that is
// the state that we know by its TXID.
func (p *replica) agrees(t catalog.Tip) bool {
	p.mu.Lock()
	from := p.from
	p.mu.Unlock()
	held := p.r.spool().List()
	sum, known := p.r.spool().ChecksumAt(t.TXID)
	switch {
	case t.TXID == 0, t.TXID == from, p.r.spool().Position().Pages == 0:
		return true // there is nothing to join, or the whole database is next
	case known:
		return t.Checksum == sum.String()
	case len(held) == 0 || held[0].MinTXID != t.TXID+1:
		return true // nothing of ours follows it: a snapshot is next
	}
	return t.Lineage == held[0].Lineage // let go of as shipped to here, unless the numbers only happen to meet
}

// findRecent lists the files that compaction has not dealt with.
func (p *replica) findRecent(ctx context.Context, t catalog.Tip) error {
	clear(p.done)
	p.recent = nil
	top := len(compactionIntervals)
	for level := top; level >= 1; level-- {
		p.done[level] = max(t.Levels[level], p.done[level+1])
	}
	for level := range top {
		for object, err := range p.store.List(ctx, store.LevelPrefix(level), store.LTXKey(level, p.done[top], math.MaxUint64)) {
			if err != nil {
				return err
			}
			if l, min, max, err := store.ParseLTXKey(object.Key); err == nil && min > 1 {
				p.remember(store.LTXFile{Level: l, MinTXID: min, MaxTXID: max, Object: object})
			}
		}
	}
	return nil
}

// findSnapshots learns the times of the oldest and the newest snapshot.
func (p *replica) findSnapshots(ctx context.Context, t catalog.Tip) error {
	if t.Newest.Object.Key == "" {
		return nil
	}
	oldest, err := catalog.TimeOf(ctx, p.store, t.Oldest)
	if err != nil {
		return err
	}
	newest, err := catalog.TimeOf(ctx, p.store, t.Newest)
	if err != nil {
		return err
	}
	newest = p.past(newest, t.Newest)
	p.update(func(s *ReplicaStatus) { s.OldestRestorePoint, s.LastSnapshot = oldest, newest })
	return nil
}

// when is a file's time for choosing a compaction window: of its newest batch
// where we know it, else of its upload.
func (p *replica) when(f store.LTXFile) time.Time {
	t, ok := p.times[f.Object.Key]
	if !ok {
		if t, ok = store.MetadataTime(f.Object.Metadata); !ok {
			t = f.Object.Modified
		}
	}
	if past := p.past(t, f); past != t {
		t, p.times[f.Object.Key] = past, past // once and for all, or its window would never be over
	}
	return t
}

// past returns at, the time of f. Where a clock that was ahead has told it, and all
// that came behind, waiting for it may take years: then f is of its upload's time.
func (p *replica) past(at time.Time, f store.LTXFile) time.Time {
	switch now, uploaded := p.now(), f.Object.Modified; {
	case !at.After(now):
		return at
	case !uploaded.IsZero() && !uploaded.After(now):
		return uploaded
	default:
		return now
	}
}
