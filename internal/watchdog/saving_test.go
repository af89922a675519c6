package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFailedSaves_H15_S23: a state directory that cannot be written to is one line in the log,
// not one for each attempt, and its recovery is another.
func TestFailedSaves_H15_S23(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	log := &journalOf{}
	w := New(Options{StateFile: filepath.Join(dir, "policies.json"), Logger: log.logger()})
	save := func() {
		w.dirty.Store(true)
		w.saving.Report("state", w.save())
	}
	for range 5 {
		save()
	}
	if n := strings.Count(log.String(), "could not be saved"); n != 1 {
		t.Errorf("5 failures are %d lines:\n%s", n, log)
	}
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	save()
	if !strings.Contains(log.String(), "state is saved again") || !strings.Contains(log.String(), "failures_before=5") {
		t.Errorf("the end is not in the log:\n%s", log)
	}
}
