package stage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPutBack_R6_taken: a side file whose place was taken meanwhile stays where it is, and the error says so.
func TestPutBack_R6_taken(t *testing.T) {
	t.Parallel()
	output := filepath.Join(t.TempDir(), "a.db")
	beside := output + ".replaced-20260301T100000.000Z"
	for _, name := range []string{output + "-wal", beside + "-wal"} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := (&Stage{output: output}).putBack(beside)
	if err == nil || !strings.Contains(err.Error(), "rename "+beside+"-wal to "+output+"-wal") {
		t.Errorf("putBack: %v", err)
	}
	for _, name := range []string{output + "-wal", beside + "-wal"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != name {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
}
