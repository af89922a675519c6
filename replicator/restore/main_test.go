package restore_test

import (
	"os"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/cage"
)

// TestMain lets checks run in children, as those of the program do.
func TestMain(m *testing.M) {
	cage.Enter()
	os.Exit(m.Run())
}
