package watchdog

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/policy"
)

// stateVersion is the format of the state files: one JSON object,
//
//	version   1; any other number is refused and the file left alone
//	seq       of two files that speak of one database the higher one holds
//	checksum  CRC-32C of the bytes of databases, and of seq in decimal where it is not 0
//	databases object: name → {policies: name → policy.PolicyState} in the one,
//	          name → policy.History in the other
const stateVersion = 1

// A crash loses at most saveInterval of a policy's waiting time, and at most
// historyInterval of what a learned window has learned from. It loses nothing of
// an action: what is about to be done and what has been done is saved there and
// then, in a file of the database's own beside the state file.
const (
	saveInterval    = 5 * time.Second
	historyInterval = 10 * time.Minute
)

type stateFile struct {
	Version   int             `json:"version"`
	Seq       uint64          `json:"seq,omitempty"`
	Checksum  uint32          `json:"checksum"`
	Databases json.RawMessage `json:"databases"`
}

func (f *stateFile) sum() uint32 {
	sum := crc32.Checksum(f.Databases, castagnoli)
	if f.Seq != 0 {
		sum = crc32.Update(sum, castagnoli, strconv.AppendUint(nil, f.Seq, 10))
	}
	return sum
}

// savedDatabase is what survives a restart of one database.
type savedDatabase struct {
	Policies map[string]policy.PolicyState `json:"policies"`
	Left     time.Time                     `json:"left,omitzero"`   // when the configuration let go of it
	Found    bool                          `json:"found,omitempty"` // it was up once

	history *policy.History // kept in its own file; nil: none
}

// ErrStateVersion is returned for a state file of another version of sqlwatch.
var ErrStateVersion = errors.New("state file of an unknown version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// loadState reads a state file. A missing one is empty; a corrupt one is set
// aside and reported, because without it policies merely wait once more.
func loadState[T any](path string, now time.Time, log *slog.Logger) (map[string]T, uint64, error) {
	if path == "" {
		return nil, 0, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read policy state: %w", err)
	}
	saved, seq, err := decodeState[T](data)
	if err == nil {
		return saved, seq, nil
	}
	if errors.Is(err, ErrStateVersion) {
		return nil, 0, fmt.Errorf("read policy state %s: %w; run the sqlwatch that wrote it, or move the file away", path,
			err)
	}
	aside := fmt.Sprintf("%s.corrupt-%s", path, now.UTC().Format("20060102T150405Z"))
	if err := errors.Join(durable.WriteFile(aside, data, 0o600), durable.Remove(path)); err != nil {
		return nil, 0, fmt.Errorf("set corrupt policy state aside: %w", err)
	}
	log.Error("a saved state is corrupt; it was set aside and what it held starts anew, cooldowns included",
		"file", aside, "err", err)
	return nil, 0, nil
}

// load reads both state files.
func (w *Watchdog) load() (map[string]savedDatabase, error) {
	o := &w.options
	saved, seq, err := loadState[savedDatabase](o.StateFile, o.Clock(), o.Logger)
	if err != nil {
		return nil, err
	}
	if saved == nil {
		saved = make(map[string]savedDatabase)
	}
	if err := w.loadOwn(saved, seq); err != nil {
		return nil, err
	}
	histories, _, err := loadState[*policy.History](o.HistoryFile, o.Clock(), o.Logger)
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

// loadOwn adds what single databases saved of their actions after the state file
// with the number seq was written.
func (w *Watchdog) loadOwn(saved map[string]savedDatabase, seq uint64) error {
	w.seq.Store(seq)
	if w.options.StateFile == "" {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(w.ownDir(), "*.json"))
	if err != nil {
		return fmt.Errorf("list %s: %w", w.ownDir(), err)
	}
	for _, name := range names {
		own, of, err := loadState[savedDatabase](name, w.options.Clock(), w.options.Logger)
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

// ownDir holds a file for each database that has acted.
func (w *Watchdog) ownDir() string { return w.options.StateFile + ".d" }

// saveNow makes the database's policy state durable, at an action's begin and end.
// What is published is what is saved: publish or refresh comes first. An error
// stops nothing: where the disk is full, the action may be what frees it.
func (d *database) saveNow() {
	w := d.watchdog
	if w.options.StateFile == "" {
		return
	}
	seq := w.seq.Add(1) // after the publish: see save
	name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(d.target.Name)))
	saved := map[string]savedDatabase{d.target.Name: {Policies: d.states}}
	err := durable.MkdirAll(w.ownDir(), 0o700)
	if err == nil {
		err = writeState(filepath.Join(w.ownDir(), name), saved, seq)
	}
	if err != nil {
		w.report(fmt.Errorf("save the policy state of %s: %w", d.target.Name, err))
	}
}

// report logs that state could not be saved, which stops nothing.
func (w *Watchdog) report(err error) {
	if err != nil {
		w.options.Logger.Error("state could not be saved; after a restart policies would wait and learn once more", "err",
			err)
	}
}

func decodeState[T any](data []byte) (map[string]T, uint64, error) {
	var file stateFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, 0, fmt.Errorf("decode: %w", err)
	}
	if file.Version != stateVersion {
		return nil, 0, fmt.Errorf("version %d, known is %d: %w", file.Version, stateVersion, ErrStateVersion)
	}
	if sum := file.sum(); sum != file.Checksum {
		return nil, 0, fmt.Errorf("checksum %08x, the content's is %08x", file.Checksum, sum)
	}
	var saved map[string]T
	if err := json.Unmarshal(file.Databases, &saved); err != nil {
		return nil, 0, fmt.Errorf("decode databases: %w", err)
	}
	return saved, file.Seq, nil
}

func encodeState[T any](saved map[string]T, seq uint64) ([]byte, error) {
	databases, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	file := stateFile{Version: stateVersion, Seq: seq, Databases: databases}
	file.Checksum = file.sum()
	return json.Marshal(file)
}

// save writes the state of all databases when some of it has changed.
func (w *Watchdog) save() error {
	if w.options.StateFile == "" || !w.dirty.Swap(false) {
		return nil
	}
	// The number is taken before the states are read: a database that saved its own
	// with a lower one had published it by then, so that it is in here.
	seq := w.seq.Add(1)
	saved := make(map[string]savedDatabase)
	maps.Copy(saved, w.left)
	for _, d := range *w.databases.Load() {
		saved[d.target.Name] = d.status.Load().saved
	}
	if err := writeState(w.options.StateFile, saved, seq); err != nil {
		w.dirty.Store(true)
		return fmt.Errorf("save policy state: %w", err)
	}
	return nil
}

func writeState[T any](path string, saved map[string]T, seq uint64) error {
	data, err := encodeState(saved, seq)
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
	if err := writeState(w.options.HistoryFile, saved, 0); err != nil {
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
