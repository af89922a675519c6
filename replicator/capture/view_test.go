package capture

import (
	"testing"

	"github.com/superfly/ltx"
)

// A view that lasts does not sit on READ0, wherever the backfill stands, and sees
// every page as it was when it began.
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
		v, err := openView(s.ctx, s.files, s.capture.hold.free())
		if err != nil {
			t.Fatal(err)
		}
		if s.capture.hold.free().ReadMark() == 0 {
			t.Errorf("after %s: the view is on READ0", line)
		}
		want := s.capture.state.Position().Checksum
		a.do("commit(50, 5)")
		a.do(`db.execute("pragma wal_checkpoint(passive)").fetchall()`)
		if got := v.checksum(t); got != want {
			t.Errorf("after %s: the view adds up to %s, want %s", line, got, want)
		}
		if err := s.capture.hold.free().EndRead(); err != nil {
			t.Fatal(err)
		}
	}
	s.checkEqual()
}

// checksum adds up what the view sees.
func (v *view) checksum(t *testing.T) ltx.Checksum {
	t.Helper()
	sum := ltx.ChecksumFlag
	err := v.each(t.Context(), func(page uint32, data []byte) error {
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(page, data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
