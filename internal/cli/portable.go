package cli

import (
	"fmt"
	"slices"
	"strings"
)

// portable are the commands that need neither Linux nor SQLite: those that deal with
// configurations and replicas.
var portable = []string{"check", "fmt", "test", "import", "restore", "snapshots", "wal", "verify", "version",
	"completion", "man"}

// Possible returns an error for a command that this program was built without.
func Possible(command string, withSQLite bool) error {
	if withSQLite || slices.Contains(portable, command) {
		return nil
	}
	return fmt.Errorf("%s works on databases in use, which needs Linux and a build with cgo; this program has: %s",
		command, strings.Join(portable, ", "))
}
