package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/policy"
)

// stateVersion is the format of both state files: one JSON object,
//
//	version   1; any other number is refused and the file left alone
//	checksum  CRC-32C of the bytes of databases
//	databases object: name → {policies: name → policy.PolicyState} in the one,
//	          name → policy.History in the other
const stateVersion = 1

// A crash loses at most saveInterval of a policy's waiting time, and at most
// historyInterval of what a learned window has learned from.
const (
	saveInterval    = 5 * time.Second
	historyInterval = 10 * time.Minute
)

type stateFile struct {
	Version   int             `json:"version"`
	Checksum  uint32          `json:"checksum"`
	Databases json.RawMessage `json:"databases"`
}

// savedDatabase is what survives a restart of one database.
type savedDatabase struct {
	Policies map[string]policy.PolicyState `json:"policies"`

	history *policy.History // kept in its own file; nil: none
}

// ErrStateVersion is returned for a state file of another version of sqlwatch.
var ErrStateVersion = errors.New("state file of an unknown version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// loadState reads a state file. A missing one is empty; a corrupt one is set
// aside and reported, because without it policies merely wait once more.
func loadState[T any](path string, now time.Time, log *slog.Logger) (map[string]T, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read policy state: %w", err)
	}
	saved, err := decodeState[T](data)
	if err == nil {
		return saved, nil
	}
	if errors.Is(err, ErrStateVersion) {
		return nil, fmt.Errorf("read policy state %s: %w; run the sqlwatch that wrote it, or move the file away", path, err)
	}
	aside := fmt.Sprintf("%s.corrupt-%s", path, now.UTC().Format("20060102T150405Z"))
	if err := errors.Join(durable.WriteFile(aside, data, 0o600), durable.Remove(path)); err != nil {
		return nil, fmt.Errorf("set corrupt policy state aside: %w", err)
	}
	log.Error("a saved state is corrupt; it was set aside and what it held starts anew, cooldowns included",
		"file", aside, "err", err)
	return nil, nil
}

// load reads both state files.
func (w *Watchdog) load() (map[string]savedDatabase, error) {
	o := &w.options
	saved, err := loadState[savedDatabase](o.StateFile, o.Clock(), o.Logger)
	if err != nil {
		return nil, err
	}
	histories, err := loadState[*policy.History](o.HistoryFile, o.Clock(), o.Logger)
	if err != nil {
		return nil, err
	}
	for name, history := range histories {
		one := saved[name]
		one.history = history
		if saved == nil {
			saved = make(map[string]savedDatabase)
		}
		saved[name] = one
	}
	return saved, nil
}

// report logs that state could not be saved, which stops nothing.
func (w *Watchdog) report(err error) {
	if err != nil {
		w.options.Logger.Error("state could not be saved; after a restart policies would wait and learn once more", "err", err)
	}
}

func decodeState[T any](data []byte) (map[string]T, error) {
	var file stateFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if file.Version != stateVersion {
		return nil, fmt.Errorf("version %d, known is %d: %w", file.Version, stateVersion, ErrStateVersion)
	}
	if sum := crc32.Checksum(file.Databases, castagnoli); sum != file.Checksum {
		return nil, fmt.Errorf("checksum %08x, the content's is %08x", file.Checksum, sum)
	}
	var saved map[string]T
	if err := json.Unmarshal(file.Databases, &saved); err != nil {
		return nil, fmt.Errorf("decode databases: %w", err)
	}
	return saved, nil
}

func encodeState[T any](saved map[string]T) ([]byte, error) {
	databases, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	return json.Marshal(stateFile{Version: stateVersion, Checksum: crc32.Checksum(databases, castagnoli), Databases: databases})
}

// save writes the state of all databases when some of it has changed.
func (w *Watchdog) save() error {
	if w.options.StateFile == "" || !w.dirty.Swap(false) {
		return nil
	}
	saved := make(map[string]savedDatabase)
	for _, d := range *w.databases.Load() {
		saved[d.target.Name] = d.status.Load().saved
	}
	if err := writeState(w.options.StateFile, saved); err != nil {
		w.dirty.Store(true)
		return fmt.Errorf("save policy state: %w", err)
	}
	return nil
}

func writeState[T any](path string, saved map[string]T) error {
	data, err := encodeState(saved)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o600)
}

// saveHistory writes what the policies' over-time functions and learned windows
// read. Where they read nothing there is nothing to write.
func (w *Watchdog) saveHistory(ctx context.Context) error {
	if w.options.HistoryFile == "" {
		return nil
	}
	saved := make(map[string]json.RawMessage)
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
	if err := writeState(w.options.HistoryFile, saved); err != nil {
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
	if d.history.Oldest().IsZero() {
		return nil, nil
	}
	return json.Marshal(d.history)
}
