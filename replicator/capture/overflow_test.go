package capture

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// TestRemovedThenGone_D15_overflow: more happened in the directory than inotify keeps, some time before an application
// ended and its side files were removed. That says nothing about what was written since, so what the removed WAL held
// is written back.
func TestRemovedThenGone_D15_overflow(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	_, a := s.beforeTheCopy(true)
	noise := filepath.Join(filepath.Dir(s.path), "a")
	if err := os.WriteFile(noise, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 4_500 { // with two events each, more than the kernel keeps
		if err := errors.Join(os.Rename(noise, noise+"b"), os.Rename(noise+"b", noise)); err != nil {
			t.Fatal(err)
		}
	}
	s.step(true)
	if _, err := s.capture.Checkpoint(s.ctx, sqlite.Passive, sqlite.Budget{}); err != nil { // we are connected again
		t.Fatal(err)
	}
	want := a.do(`commit(10) and db.execute("select count(*) from t").fetchone()[0]`)
	a.quit()
	s.removeSides("-wal -shm")
	s.captured()
	s.wantNextLife(want)
}
