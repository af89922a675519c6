package capture

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// TestSnapshot_D72_slowUpload: a snapshot over a slow connection is exact, and meanwhile the WAL
// can be restarted, truncated and backfilled.
func TestSnapshot_D72_slowUpload(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.patiently()
	s.options.RestartAt, s.options.StallBudget = 1<<20, time.Second
	a := startApp(t, s.path)
	a.do("schema()")
	a.do(
		`[db.execute("begin"), [db.execute("insert into t(k,v) values(?,?)", (i, rnd.randbytes(1000))) for i in ` +
			`range(1500)], db.execute("commit")] and 1`)
	s.open()
	s.settle()
	a.do("commit(5)") // frames that are not in the main file
	r, err := s.capture.OpenSnapshot(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	written, out := make(chan error, 1), &slowBuffer{goOn: make(chan struct{})}
	go func() { written <- r.WriteLTX(s.ctx, out, "") }()
	restarts, largest := 0, int64(0)
	for round := 0; restarts < 3 && round < 20; round++ {
		a.during(fmt.Sprintf(updates, 30), func() {
			if s.step(false).Restart {
				restarts++
			}
			if x, err := s.files.WALIndex(); err == nil {
				largest = max(largest, int64(x.MaxFrame)*int64(x.PageSize+dbfile.FrameHeaderSize))
			}
		})
		s.truncate()
	}
	close(out.goOn)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d restarts meanwhile, at most %d kB in the wal", restarts, largest>>10)
	if restarts < 3 {
		t.Error("the wal was not restarted: the snapshot pins it")
	}
	s.checkSnapshot(r, out.Bytes())
	s.checkEqual()
	s.wantLost(nil)
}

// slowBuffer stands for an upload over a connection that stalls after the first bytes.
type slowBuffer struct {
	bytes.Buffer
	goOn chan struct{}
}

func (b *slowBuffer) Write(p []byte) (int, error) {
	if b.Len() > 64<<10 {
		<-b.goOn
	}
	return b.Buffer.Write(p)
}

// TestSnapshot_D72_givesUp: a snapshot ends with an error if the WAL is no longer held or was
// removed, and capture continues.
func TestSnapshot_D72_givesUp(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		do   func(*scene)
	}{
		{"connections closed", func(s *scene) {
			if err := s.capture.hold.close(); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"wal removed", func(s *scene) {
			if err := os.Remove(s.path + "-wal"); err != nil {
				s.t.Fatal(err)
			}
			if _, err := s.files.Refresh(); err != nil { // as the sampler does
				s.t.Fatal(err)
			}
			s.capture.hold.copies.Preserve(dbfile.WALIndex{Salt1: 1, MaxFrame: 1})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			a.do("commit(300, 20)")
			s.open()
			s.settle()
			r, err := s.capture.OpenSnapshot(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			tc.do(s)
			if err := r.Each(s.ctx, func(uint32, []byte) error { return nil }); err == nil {
				t.Error("the snapshot went on")
			}
			if _, err := s.capture.Step(s.ctx, true); err != nil && tc.name == "connections closed" {
				t.Error(err)
			}
		})
	}
}
