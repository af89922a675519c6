package custody

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Saved is what the state directory knows about a replica. Losing it costs a comparison,
// never data.
type Saved struct {
	Version  int       `json:"version"`
	Nonces   []string  `json:"nonces,omitempty"`   // of leases that were ours
	Verified []string  `json:"verified,omitempty"` // keys of the chain that the last drill restored
	At       time.Time `json:"verified_at"`
	Unread   []Unread  `json:"unread,omitempty"` // objects that may have been stored and were not read back yet
	Held     Held      `json:"held"`
}

// Held is how far a replica was last known to reach, where the replica was, and what it has lost.
type Held struct {
	Place string   `json:"place,omitempty"`
	TXID  ltx.TXID `json:"txid,omitempty"`
	Lost  ltx.TXID `json:"lost,omitempty"` // see progress.Progress.Lost; it may be made good already
	// keys of files found corrupt or unreadable, the latest last: nothing is deleted because of them
	Useless []string `json:"useless,omitempty"`
	// when a snapshot check last found that none is needed
	Checked time.Time `json:"checked_at,omitzero"`
}

// maxUseless bounds the file.
const maxUseless = 1024

// Unread is an object that was uploaded but not read back yet. If it is still listed after a
// crash, nothing may be built on it before it was checked.
type Unread struct {
	Key    string `json:"key"`
	Size   int64  `json:"size,omitempty"`
	Ending []byte `json:"ending,omitempty"` // its last bytes as sent, to compare; empty: all of it must be read
	// how long it was looked for in vain, and never 0 after the first look; it may be under way still
	Absent time.Duration `json:"absent_for,omitzero"`
	looked time.Time     // when this process last looked for it
}

// VerifiedKeys returns the keys of Verified.
func (s Saved) VerifiedKeys() map[string]bool {
	keys := make(map[string]bool, len(s.Verified))
	for _, k := range s.Verified {
		keys[k] = true
	}
	return keys
}

// StateFile is a replica's part of the state directory.
type StateFile struct {
	path string

	// writing is held over a change and its write, before mu: uploads, the lease and drills change the file at the same
	// time, and a write that began earlier would take back what a later one has made durable.
	writing sync.Mutex

	mu    sync.Mutex // guards saved; held over nothing
	saved Saved
}

// NewStateFile returns the state file of a replica in dir, without reading it.
func NewStateFile(dir, replica string) *StateFile {
	return &StateFile{path: filepath.Join(dir, FileName(replica)+".json")}
}

// Load reads the file. A corrupt file counts as none.
func (f *StateFile) Load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved = Saved{}
	return load(f.path, &f.saved)
}

// Change applies change and writes the file.
func (f *StateFile) Change(change func(*Saved)) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	change(&f.saved)
	f.saved.Version = version
	data, err := json.Marshal(f.saved)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return durable.WriteFile(f.path, data, 0o600)
}

// Sent records durably that an object is about to be stored.
func (f *StateFile) Sent(u Unread) error {
	return f.Change(func(s *Saved) { s.Unread = append(without(s.Unread, u.Key), u) })
}

// ReadBack records that an object was read back, or is gone. It is written to the file with the
// next change: reading the object once more after a crash does no harm.
func (f *StateFile) ReadBack(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved.Unread = without(f.saved.Unread, key)
}

// Absent records that an object is not there at now. It may still arrive for a time: an upload without an
// answer can be under way. Then it is forgotten. Only the time between two looks of one process counts,
// by the monotonic clock: the wall clock may have been set.
func (f *StateFile) Absent(key string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []Unread
	for _, u := range f.saved.Unread {
		if u.Key == key {
			u.Absent = max(u.Absent, 1)
			if !u.looked.IsZero() {
				u.Absent += max(now.Sub(u.looked), 0)
			}
			u.looked = now
		}
		if u.Absent < underWay {
			kept = append(kept, u)
		}
	}
	f.saved.Unread = kept
}

// underWay is how long after it was first missed an object may still arrive in the store.
const underWay = 24 * time.Hour

// without returns a copy of all without key.
func without(all []Unread, key string) (kept []Unread) {
	for _, u := range all {
		if u.Key != key {
			kept = append(kept, u)
		}
	}
	return kept
}

// SaveNonces stores the nonces of our leases and, unless nil, how far the replica reaches.
func (f *StateFile) SaveNonces(held *Held, nonces ...string) error {
	return f.Change(func(s *Saved) {
		s.Nonces = nonces
		switch {
		case held == nil:
		case held.Place == s.Held.Place:
			s.Held.TXID = held.TXID
		default:
			s.Held = *held
		}
	})
}

// NoteLost records durably that snapshots before txid cannot be built on, and that the files with
// these keys are of no use, in the replica at place.
func (f *StateFile) NoteLost(place string, txid ltx.TXID, keys ...string) error {
	return f.Change(func(s *Saved) {
		if s.Held.Place != place {
			s.Held = Held{Place: place}
		}
		s.Held.Lost = max(s.Held.Lost, txid)
		known := slices.DeleteFunc(slices.Clone(s.Held.Useless), func(k string) bool { return slices.Contains(keys, k) })
		known = append(known, keys...)
		s.Held.Useless = known[max(0, len(known)-maxUseless):]
	})
}

// NoteChecked records durably that a check at that time found no snapshot needed in the replica at place.
func (f *StateFile) NoteChecked(place string, at time.Time) error {
	return f.Change(func(s *Saved) {
		if s.Held.Place != place {
			s.Held = Held{Place: place}
		}
		s.Held.Checked = at
	})
}

// CheckedAt returns what NoteChecked has recorded of the replica at place.
func (f *StateFile) CheckedAt(place string) time.Time {
	if held := f.Get().Held; held.Place == place {
		return held.Checked
	}
	return time.Time{}
}

// LostAt returns what NoteLost has recorded of the replica at place.
func (f *StateFile) LostAt(place string) (txid ltx.TXID, useless []string) {
	if held := f.Get().Held; held.Place == place {
		return held.Lost, held.Useless
	}
	return 0, nil
}

// Emptied returns how far a replica that is empty now was last known to reach; 0 if it never held
// anything or was at another place.
func (f *StateFile) Emptied(place string) ltx.TXID {
	if held := f.Get().Held; held.Place == place {
		return held.TXID
	}
	return 0
}

// Get returns a copy.
func (f *StateFile) Get() Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saved
}

// FileName returns a replica's name in a form that can be a file name.
func FileName(replica string) string { return strings.ReplaceAll(replica, "/", "_") }
