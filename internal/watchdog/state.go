package watchdog

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/statefile"
	"github.com/sqlwatch/sqlwatch/policy"
)

// A crash loses at most saveInterval of a policy's waiting time, and at most historyInterval
// of what a learned window has learned from. It loses nothing about an action: what is about
// to be done, and what has been done, is saved immediately, in a file of the database's own
// beside the state file.
const (
	saveInterval    = 5 * time.Second
	historyInterval = 10 * time.Minute
)

// savedDatabase is the state of one database that survives a restart.
type savedDatabase struct {
	Policies map[string]policy.PolicyState `json:"policies"`
	Told     map[string]time.Time          `json:"told,omitempty"`  // notices whose end is unsent, by policy
	Owed     map[string]policy.Action      `json:"owed,omitempty"`  // unsent results of actions, by policy
	Left     time.Time                     `json:"left,omitzero"`   // when it was removed from the configuration
	Found    bool                          `json:"found,omitempty"` // it has been up

	PausedUntil time.Time `json:"paused_until,omitzero"`

	history *policy.History // kept in its own file; nil: none
}

// load reads both state files.
func (w *Watchdog) load() (map[string]savedDatabase, error) {
	o := &w.options
	saved, seq, err := statefile.Load[savedDatabase](o.StateFile, o.Clock(), o.Logger)
	if err != nil {
		return nil, err
	}
	if saved == nil {
		saved = make(map[string]savedDatabase)
	}
	if err := w.loadOwn(saved, seq); err != nil {
		return nil, err
	}
	histories, _, err := statefile.Load[*policy.History](o.HistoryFile, o.Clock(), o.Logger)
	if err != nil {
		return nil, err
	}
	for name, history := range histories {
		one := saved[name]
		one.history = history
		saved[name] = one
	}
	return saved, nil
}

// loadOwn adds what single databases saved about their actions after the state file with
// the number seq was written.
func (w *Watchdog) loadOwn(saved map[string]savedDatabase, seq uint64) error {
	w.seq.Store(seq)
	if w.options.StateFile == "" {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(ownDir(w.options.StateFile), "*.json"))
	if err != nil {
		return fmt.Errorf("list %s: %w", ownDir(w.options.StateFile), err)
	}
	for _, name := range names {
		own, of, err := statefile.Load[savedDatabase](name, w.options.Clock(), w.options.Logger)
		if err != nil {
			return err
		}
		w.seq.Store(max(w.seq.Load(), of))
		if of > seq {
			maps.Copy(saved, own)
		}
	}
	return nil
}

// ownDir has one file for each database that has acted.
func ownDir(stateFile string) string { return stateFile + ".d" }

// keeper saves the state of one database when an action begins and ends.
type keeper struct {
	stateFile string // "": nothing is kept
	name      string // of the database
	number    func() uint64
	report    func(error) // logs an error but stops nothing: if the disk is full, the action may be what frees it
}

// save makes the database's policy state durable. It saves what is published: since publishing
// comes first, the number taken here is higher than that of any state file that lacks the state.
func (k keeper) save(one savedDatabase) {
	if k.stateFile == "" {
		return
	}
	seq, dir := k.number(), ownDir(k.stateFile)
	name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(k.name)))
	err := durable.MkdirAll(dir, 0o700)
	if err == nil {
		err = statefile.Write(filepath.Join(dir, name), map[string]savedDatabase{k.name: one}, seq)
	}
	if err != nil {
		k.report(fmt.Errorf("save the policy state of %s: %w", k.name, err))
	}
}

// save writes the state of all databases if any of it has changed.
func (w *Watchdog) save() error {
	if w.options.StateFile == "" || !w.dirty.Swap(false) {
		return nil
	}
	// Take the number before reading the states: a database that saved its own state with a
	// lower number had published it by then, so it is included here.
	seq := w.seq.Add(1)
	saved := make(map[string]savedDatabase)
	maps.Copy(saved, w.left)
	for _, d := range *w.databases.Load() {
		saved[d.target.Name] = d.display.status.Load().saved
	}
	if err := statefile.Write(w.options.StateFile, saved, seq); err != nil {
		w.dirty.Store(true)
		return fmt.Errorf("save policy state: %w", err)
	}
	return nil
}

// saveHistory writes what the policies' over-time functions and learned windows read. If
// they read nothing, it writes nothing.
func (w *Watchdog) saveHistory(ctx context.Context) error {
	if w.options.HistoryFile == "" {
		return nil
	}
	saved := make(map[string]json.RawMessage)
	for name, left := range w.left {
		if left.history.Oldest().IsZero() {
			continue
		}
		data, err := json.Marshal(left.history)
		if err != nil {
			return fmt.Errorf("save the history of %s: %w", name, err)
		}
		saved[name] = data
	}
	for _, d := range *w.databases.Load() {
		history, err := d.encodeHistory(ctx)
		if err != nil {
			return fmt.Errorf("save the history of %s: %w", d.target.Name, err)
		}
		if history != nil {
			saved[d.target.Name] = history
		}
	}
	if len(saved) == 0 {
		return nil
	}
	if err := statefile.Write(w.options.HistoryFile, saved, 0); err != nil {
		return fmt.Errorf("save history: %w", err)
	}
	return nil
}

// encodeHistory takes the baton, also of a closed database.
func (d *database) encodeHistory(ctx context.Context) ([]byte, error) {
	select {
	case d.baton <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer d.release()
	if d.past.history.Oldest().IsZero() {
		return nil, nil
	}
	return json.Marshal(d.past.history)
}
