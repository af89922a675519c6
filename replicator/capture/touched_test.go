package capture

import (
	"os"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// TestRemovedThenGone_D15_touched: somebody set the time of a database in use, and the application committed after it.
// What its WAL held when it was removed is written back.
func TestRemovedThenGone_D15_touched(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50, 3, 900)")
	a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
	s.open()
	s.settle()
	a.do("commit(50, 3, 900)")
	s.step(true)
	s.step(true)
	if err := os.Chtimes(s.path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.step(true)
	s.step(true)
	a.do("commit(10)")
	s.step(true)
	if _, err := s.capture.Checkpoint(s.ctx, sqlite.Passive, sqlite.Budget{}); err != nil { // we are connected again
		t.Fatal(err)
	}
	a.do("commit(10)")
	want := a.do(`db.execute("select count(*) from t").fetchone()[0]`)
	a.quit()
	s.removeSides("-wal -shm")
	s.captured()
	s.wantNextLife(want)
}
