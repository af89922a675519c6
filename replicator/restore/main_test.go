package restore_test

import (
	"os"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/cage"
)

// TestMain lets checks run in child processes, as they do in the program.
func TestMain(m *testing.M) {
	cage.Enter()
	os.Exit(m.Run())
}
