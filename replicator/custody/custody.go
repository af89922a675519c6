// Package custody remembers which lineage a database's replicas belong to, decides whether a
// replica may be written to, and says why not.
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

// version is the version of the files' format.
const version = 1

var errVersion = errors.New("it is of another version of sqlwatch: use that version, or move the file away")

// name is the file of a Custody, in a database's state directory.
const name = "lineage.json"

// Custody is what the state directory knows about the lineage of a database's replicas, which
// all share one.
type Custody struct {
	path string

	mu    sync.Mutex // guards state; held while it is written
	state State
}

// State is the content of the file.
type State struct {
	Version  int      `json:"version"`
	ID       string   `json:"lineage,omitempty"`
	Reached  ltx.TXID `json:"reached_txid,omitempty"` // the highest TXID found in a replica that proved to be ours
	Succeeds []string `json:"succeeds,omitempty"`     // lineages that a person told us to succeed (--adopt)
	Writers  []string `json:"writers,omitempty"`      // the latest writers of replicas that proved to be ours
}

// maxWriters bounds the file: a host may have a new name at each start.
const maxWriters = 16

// New returns a Custody that has not read the state directory yet.
func New(stateDir string) *Custody { return &Custody{path: filepath.Join(stateDir, name)} }

// Load reads the state directory. A corrupt file counts as none.
func (c *Custody) Load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = State{}
	return load(c.path, &c.state)
}

// load reads a file of the state directory into state. A missing or corrupt file is no error, and changes nothing.
func load[T any](path string, state *T) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	var made struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(data, &made) == nil && made.Version > version {
		return fmt.Errorf("read %s: %w", path, errVersion)
	}
	var read T
	if json.Unmarshal(data, &read) == nil {
		*state = read
	}
	return nil
}

// Get returns a copy.
func (c *Custody) Get() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// LineageOf returns the lineage in a database's state directory, "" for none.
func LineageOf(stateDir string) string {
	c := New(stateDir)
	if c.Load() != nil {
		return ""
	}
	return c.state.ID
}

// Take records the verdict v that we may write to a replica of the lineage theirs ("" for none),
// which reaches txid and was last written to by writer ("" if unknown). It returns our lineage,
// for which the replica is to be named.
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
