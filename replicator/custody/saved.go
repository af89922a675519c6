package custody

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Saved is what the state directory knows about a replica. To lose it costs a
// comparison, never data.
type Saved struct {
	Version  int       `json:"version"`
	Nonces   []string  `json:"nonces,omitempty"`   // of leases that were ours
	Verified []string  `json:"verified,omitempty"` // keys of the chain that the last drill restored
	At       time.Time `json:"verified_at"`
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

// Load reads what the state directory knows. A damaged file is as good as none.
func (f *StateFile) Load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved = Saved{}
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if json.Unmarshal(data, &f.saved) == nil && f.saved.Version > version {
		return fmt.Errorf("read %s: %w", f.path, errVersion)
	}
	return nil
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

// SaveNonces remembers which leases were ours.
func (f *StateFile) SaveNonces(nonces ...string) error {
	return f.Change(func(s *Saved) { s.Nonces = nonces })
}

// Get returns a copy.
func (f *StateFile) Get() Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saved
}

// FileName returns a replica's name as one that is fit for a file.
func FileName(replica string) string { return strings.ReplaceAll(replica, "/", "_") }
