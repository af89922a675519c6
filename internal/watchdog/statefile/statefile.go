// Package statefile keeps the watchdog's state of many databases in one file, which is replaced
// as a whole and rejected if a bit of it is wrong.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// version is the format of the state files: one JSON object,
//
//	version   1; a file with any other number is refused and left alone
//	seq       of two files about one database, the one with the higher number is valid
//	checksum  CRC-32C of the bytes of databases, and of seq in decimal if it is not 0
//	databases object: name → {policies: name → policy.PolicyState} in one file,
//	          name → policy.History in the other
const version = 1

type file struct {
	Version   int             `json:"version"`
	Seq       uint64          `json:"seq,omitempty"`
	Checksum  uint32          `json:"checksum"`
	Databases json.RawMessage `json:"databases"`
}

func (f *file) sum() uint32 {
	sum := crc32.Checksum(f.Databases, castagnoli)
	if f.Seq != 0 {
		sum = crc32.Update(sum, castagnoli, strconv.AppendUint(nil, f.Seq, 10))
	}
	return sum
}

// ErrVersion is returned for a state file of another version of sqlwatch.
var ErrVersion = errors.New("state file of an unknown version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Load reads a state file and its number. A missing file is empty. A corrupt one is set aside
// and reported; without it, policies only have to wait once more.
func Load[T any](path string, now time.Time, log *slog.Logger) (map[string]T, uint64, error) {
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
	saved, seq, err := Decode[T](data)
	if err == nil {
		return saved, seq, nil
	}
	if errors.Is(err, ErrVersion) {
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

// Decode is the inverse of Encode. It returns an error if a bit is wrong, and
// ErrVersion for another version.
func Decode[T any](data []byte) (map[string]T, uint64, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, 0, fmt.Errorf("decode: %w", err)
	}
	if f.Version != version {
		return nil, 0, fmt.Errorf("version %d, known is %d: %w", f.Version, version, ErrVersion)
	}
	if sum := f.sum(); sum != f.Checksum {
		return nil, 0, fmt.Errorf("checksum %08x, the content's is %08x", f.Checksum, sum)
	}
	var saved map[string]T
	if err := json.Unmarshal(f.Databases, &saved); err != nil {
		return nil, 0, fmt.Errorf("decode databases: %w", err)
	}
	return saved, f.Seq, nil
}

// Encode returns the contents of a state file.
func Encode[T any](saved map[string]T, seq uint64) ([]byte, error) {
	databases, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	f := file{Version: version, Seq: seq, Databases: databases}
	f.Checksum = f.sum()
	return json.Marshal(f)
}

// Write replaces a state file. When it returns nil the file survives a power cut.
func Write[T any](path string, saved map[string]T, seq uint64) error {
	data, err := Encode(saved, seq)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o600)
}
