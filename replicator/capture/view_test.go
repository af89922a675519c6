package capture

import (
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
)

// TestView_D71_neverOnRead0: a long-lived view never holds READ0, however much of the WAL is
// backfilled.
func TestView_D71_neverOnRead0(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(50, 10)")
	s.open()
	s.settle()
	for _, line := range []string{
		"commit(5)",
		`db.execute("pragma wal_checkpoint(passive)").fetchall()`,
		`db.execute("pragma wal_checkpoint(truncate)").fetchall()`,
	} {
		a.during(line, func() { s.step(false) })
		s.settle()
		if _, err := view.Begin(s.ctx, s.files, s.capture.hold.free()); err != nil {
			t.Fatal(err)
		}
		if s.capture.hold.free().ReadMark() == 0 {
			t.Errorf("after %s: the view is on READ0", line)
		}
		if err := s.capture.hold.free().EndRead(); err != nil {
			t.Fatal(err)
		}
	}
	s.checkEqual()
}
