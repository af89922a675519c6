// Package custody remembers of which lineage a database's replicas are, and says why one
// is not written to.
package custody

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// version is that of the files.
const version = 1

var errVersion = errors.New("it is of another version of sqlwatch: use that version, or move the file away")

// name is the file of a Custody, in a database's state directory.
const name = "lineage.json"

// Custody is what the state directory knows about the lineage of a database's
// replicas: one for all of them.
type Custody struct {
	path string

	mu    sync.Mutex // guards state; held while it is written
	state State
}

// State is what is known.
type State struct {
	Version  int      `json:"version"`
	ID       string   `json:"lineage,omitempty"`
	Reached  ltx.TXID `json:"reached_txid,omitempty"` // a replica of this lineage that reaches no farther is ours
	Succeeds []string `json:"succeeds,omitempty"`     // lineages that a person told us to follow
	Writers  []string `json:"writers,omitempty"`      // who wrote what proved to be ours, the last ones
}

// maxWriters bounds the file: a host may have another name after each of its starts.
const maxWriters = 16

// New returns a custody whose state directory was not read yet.
func New(stateDir string) *Custody { return &Custody{path: filepath.Join(stateDir, name)} }

// Load reads what the state directory knows. A corrupt file is as good as none.
func (c *Custody) Load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = State{}
	return load(c.path, &c.state, &c.state.Version)
}

// load reads a file of the state directory into state, whose version is at made. One that is
// not there, or is corrupt, leaves it as it is.
func load(path string, state any, made *int) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if json.Unmarshal(data, state) == nil && *made > version {
		return fmt.Errorf("read %s: %w", path, errVersion)
	}
	return nil
}

// Get returns a copy.
func (c *Custody) Get() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// LineageOf returns the lineage that a database's state directory knows, "" for none.
func LineageOf(stateDir string) string {
	c := New(stateDir)
	if c.Load() != nil {
		return ""
	}
	return c.state.ID
}

// Take notes that a replica of the lineage theirs ("" for none), which reaches txid and was
// written to by writer last ("": not known), may be written to, and returns the lineage that
// it is to be of.
func (c *Custody) Take(v lineage.Verdict, theirs string, txid ltx.TXID, writer string) (id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	switch {
	case s.ID == "" && v == lineage.Continue && theirs != "":
		s.ID = theirs
	case s.ID == "":
		s.ID = lineage.NewID()
	}
	if v == lineage.Succeed && theirs != "" && !slices.Contains(s.Succeeds, theirs) {
		s.Succeeds = append(s.Succeeds[:len(s.Succeeds):len(s.Succeeds)], theirs)
	}
	s.Version, s.Reached = version, max(s.Reached, txid)
	met := v == lineage.Continue && writer != "" && !slices.Contains(s.Writers, writer)
	if met {
		s.Writers = append(s.Writers[max(0, len(s.Writers)-maxWriters+1):len(s.Writers):len(s.Writers)], writer)
	}
	if !met && s.ID == c.state.ID && s.Reached == c.state.Reached && len(s.Succeeds) == len(c.state.Succeeds) {
		return s.ID, nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", c.path, err)
	}
	if err := durable.WriteFile(c.path, data, 0o600); err != nil {
		return "", err
	}
	c.state = s
	return s.ID, nil
}
