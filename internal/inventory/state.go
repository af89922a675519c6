package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// placesFile, in a database's state directory, names its file and its replicas' places, for
// when the configuration no longer does.
const placesFile = "places.json"

type places struct {
	Path     string   `json:"path"`
	Replicas []string `json:"replicas"`
}

// Remember notes in a database's state directory where its replicas are. What stands there
// already is not written again.
func Remember(dir string, t config.DatabaseTarget) error {
	note := places{Path: t.Path}
	for _, r := range t.Replicas {
		note.Replicas = append(note.Replicas, r.Name+" at "+r.Place())
	}
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, placesFile)
	if old, err := os.ReadFile(name); err == nil && string(old) == string(data) {
		return nil
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(name, data, 0o600)
}

// State is what the daemon still keeps of a database that the configuration does not name.
type State struct {
	Name     string   `json:"name"`
	Dir      string   `json:"dir"`
	Bytes    int64    `json:"size_bytes"`
	Path     string   `json:"path,omitempty"` // its file, as far as it was noted
	Replicas []string `json:"replicas"`       // their names and places, as far as they were noted
}

// String says what is left of the database, and what to do.
func (s State) String() string {
	text := fmt.Sprintf("%s is not configured any more; its state is kept in %s (%s)", s.Name, s.Dir, show.Bytes(s.Bytes))
	if s.Path != "" {
		text += ", its file was " + s.Path
	}
	if len(s.Replicas) > 0 {
		text += ", its replica is " + strings.Join(s.Replicas, " and ")
	}
	return text + fmt.Sprintf(".\n    If it was renamed, name it as before or delete the state; when it is not needed: "+
		"rm -r %s; replicas stay until you delete them", show.Quote(s.Dir))
}

// Orphans returns the states below a state directory of databases that are none of the
// configured ones.
func Orphans(stateDir string, configured []string) ([]State, error) {
	root := filepath.Join(stateDir, "databases")
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for what is left of earlier databases: %w", err)
	}
	found := []State{}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(configured, e.Name()) {
			continue
		}
		s := State{Name: e.Name(), Dir: filepath.Join(root, e.Name()), Replicas: []string{}}
		s.Bytes = sizeOf(s.Dir)
		if text, err := os.ReadFile(filepath.Join(s.Dir, placesFile)); err == nil {
			var note places
			if json.Unmarshal(text, &note) == nil {
				s.Path, s.Replicas = note.Path, append(s.Replicas, note.Replicas...)
			}
		}
		found = append(found, s)
	}
	return found, nil
}

func sizeOf(dir string) (sum int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // what cannot be read counts nothing
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
