package capture

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// TestSnapshotReader: a snapshot is exactly the state after one captured TXID, while the
// application writes and its WAL is truncated.
func TestSnapshotReader(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	a.do("commit(100, 10)")
	s.open()
	s.step(true)
	for n := range 12 {
		a.send("commit(200)")
		if s.step(false); n%3 == 2 {
			s.truncate()
		}
		r, err := s.capture.OpenSnapshot(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.step(true) // later commits must not show
		var out bytes.Buffer
		if err := r.WriteLTX(s.ctx, &out, ""); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s.checkSnapshot(r, out.Bytes())
		a.answer()
	}
	s.checkEqual()
	s.wantLost(nil)
}

// checkSnapshot checks that the snapshot equals what the segments up to its TXID make.
func (s *scene) checkSnapshot(r *SnapshotReader, file []byte) {
	s.t.Helper()
	h := r.Header()
	for _, segment := range s.capture.Spool().List() {
		if segment.MaxTXID > s.copies.last && segment.MaxTXID <= h.MaxTXID {
			s.copies.apply([]spool.Segment{segment})
		}
	}
	if s.copies.last != h.MaxTXID {
		s.t.Fatalf("snapshot at %s, segments end at %s", h.MaxTXID, s.copies.last)
	}
	path := filepath.Join(s.t.TempDir(), "snapshot.db")
	out, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	// This LTX file has no checksums, so DecodeDatabaseTo alone does not verify it: the bytes are
	// compared below.
	if err := ltx.NewDecoder(bytes.NewReader(file)).DecodeDatabaseTo(out); err != nil {
		s.t.Fatal(err)
	}
	if diff, err := exec.Command("cmp", s.copies.path, path).CombinedOutput(); err != nil {
		s.t.Fatalf("snapshot at %s differs from the segments: %s", h.MaxTXID, diff)
	}
	if ok := strings.TrimSpace(string(output(s.t, "sqlite3", path, "pragma integrity_check"))); ok != "ok" {
		s.t.Fatalf("integrity_check of the snapshot: %s", ok)
	}
}
