package custody

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Saved is what the state directory knows about a replica. To lose it costs a
// comparison, never data.
type Saved struct {
	Version  int       `json:"version"`
	Nonces   []string  `json:"nonces,omitempty"`   // of leases that were ours
	Verified []string  `json:"verified,omitempty"` // keys of the chain that the last drill restored
	At       time.Time `json:"verified_at"`
	Unread   []Unread  `json:"unread,omitempty"` // objects that were stored, or may have been, and not read back yet
	Held     Held      `json:"held"`
}

// Held is how far a replica was last known to reach, and where that was.
type Held struct {
	Place string   `json:"place,omitempty"`
	TXID  ltx.TXID `json:"txid,omitempty"`
}

// Unread is an object that nothing may be built on: a crash came, or may have come, between
// its upload and its reading.
type Unread struct {
	Key    string `json:"key"`
	Size   int64  `json:"size,omitempty"`
	Ending []byte `json:"ending,omitempty"` // its last bytes, as they were sent; none: all of it is to be read
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

	mu    sync.Mutex // guards saved
	saved Saved
}

// NewStateFile returns the file of a replica in dir; nothing was read yet.
func NewStateFile(dir, replica string) *StateFile {
	return &StateFile{path: filepath.Join(dir, FileName(replica)+".json")}
}

// Load reads what the state directory knows. A corrupt file is as good as none.
func (f *StateFile) Load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved = Saved{}
	return load(f.path, &f.saved, &f.saved.Version)
}

// Change changes what the state directory knows.
func (f *StateFile) Change(change func(*Saved)) error {
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

// Sent remembers that an object is about to be stored.
func (f *StateFile) Sent(u Unread) error {
	return f.Change(func(s *Saved) { s.Unread = append(without(s.Unread, u.Key), u) })
}

// ReadBack notes that an object was read back, or is gone. That is written down with what is
// next: to read it once more after a crash does no harm.
func (f *StateFile) ReadBack(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved.Unread = without(f.saved.Unread, key)
}

// without returns a copy of all but key.
func without(all []Unread, key string) (kept []Unread) {
	for _, u := range all {
		if u.Key != key {
			kept = append(kept, u)
		}
	}
	return kept
}

// SaveNonces remembers which leases were ours, and where it is known (not nil) what the
// replica holds under the last.
func (f *StateFile) SaveNonces(held *Held, nonces ...string) error {
	return f.Change(func(s *Saved) {
		if s.Nonces = nonces; held != nil {
			s.Held = *held
		}
	})
}

// Emptied returns how far a replica reached that is empty now, 0 where it never held
// anything, or was at another place.
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

// FileName returns a replica's name as one that is fit for a file.
func FileName(replica string) string { return strings.ReplaceAll(replica, "/", "_") }
