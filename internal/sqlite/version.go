//go:build linux && cgo

package sqlite

import (
	"errors"
	"fmt"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// minVersion is the first SQLite whose checkpoint does not record too large a
// backfill when a writer resets the WAL under it (3.7.0 to 3.51.2 do). An
// outside checkpointer is what brings that race about.
const minVersion = 3_051_003

// ErrOldLibrary says that the SQLite linked into the binary has the WAL-reset
// bug.
var ErrOldLibrary = errors.New("SQLite library is older than 3.51.3 and has the WAL-reset bug")

// Version returns the version of the SQLite library in this binary.
func Version() string {
	version, _, _ := sqlite3.Version()
	return version
}

// VersionNumber returns the version as one number: 3054001 for 3.54.1.
func VersionNumber() int {
	_, number, _ := sqlite3.Version()
	return number
}

// CheckVersion returns ErrOldLibrary where the library must not be let near a
// database. The program calls it first of all.
func CheckVersion() error { return checkVersion(VersionNumber()) }

func checkVersion(number int) error {
	if number < minVersion {
		return fmt.Errorf("%w: it is %d", ErrOldLibrary, number)
	}
	return nil
}
