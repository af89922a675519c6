package capture

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// TestSlowDisk: when the disk is slow while sqlwatch has the write lock, the application must not
// have to wait for it.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	const slow = 600 * time.Millisecond
	s := newScene(t)
	s.options.RestartAt = 256 << 10
	s.options.BatchAge = 20 * time.Millisecond
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	var delayed atomic.Int32
	s.capture.flusher.Store = func(p *segments.Commit) error {
		if locks, err := s.files.Locks(); err == nil && locks.Write.PID == os.Getpid() && delayed.Add(1)%2 == 0 {
			<-time.After(slow)
		}
		return p.Run()
	}
	var restarts, n int
	var worst time.Duration
	for round := 0; round < 30 && delayed.Load() < 4; round++ {
		a.during(flat(0.3), func() {
			r := s.step(false)
			if r.Restart {
				restarts++
			}
			worst = max(worst, r.Stall)
			if n++; n%10 == 0 {
				worst = max(worst, s.truncate().WriterStall)
			}
		})
	}
	t.Logf("S25: %d restarts, %d flushes under the write lock, longest stall %v", restarts, delayed.Load(), worst)
	if delayed.Load() < 2 {
		t.Error("the disk was never slow under the write lock: this test proved nothing")
	}
	if worst >= slow {
		t.Errorf("writers had to wait for %v; a slow write of the disk takes %v", worst, slow)
	}
	s.capture.flusher.Store = (*segments.Commit).Run
	s.checkEqual()
	s.wantLost(nil)
}

// TestSlowDiskWALBounded: even if the disk is so slow that no freeze fits the stall budget, the WAL
// must not grow for ever: the application restarts it by itself. Only our own disk writes are
// slowed down here, so commits may come and go between two steps; that is noticed.
func TestSlowDiskWALBounded(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.RestartAt = 1 << 20
	s.options.StallBudget = 50 * time.Millisecond
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	s.capture.flusher.Store = func(p *segments.Commit) error {
		<-time.After(100 * time.Millisecond)
		return p.Run()
	}
	first, err := s.files.WALIndex()
	if err != nil {
		t.Fatal(err)
	}
	var largest uint32
	var worst time.Duration
	restarted := 0
	for round := 0; round < 40 && restarted < 2; round++ {
		a.during("flat(0.5, 0, 3)", func() {
			r := s.step(false)
			worst = max(worst, r.Stall)
			if x, err := s.files.WALIndex(); err == nil {
				largest = max(largest, x.MaxFrame)
				if x.MaxFrame > 0 && x.Salt1 != first.Salt1 {
					restarted++
					first = x
				}
			}
		})
	}
	t.Logf("S25: WAL of at most %d frames, restarted %d times, writers waited for %v at most", largest, restarted, worst)
	if restarted < 2 {
		t.Error("S25: the WAL was not restarted")
	}
	s.capture.flusher.Store = (*segments.Commit).Run
	s.checkEqual()
	lost := s.capture.Discontinuities()
	t.Logf("S25: %d times commits were missed", lost[string(tail.ReasonWALReset)])
	s.wantLost(map[Reason]uint64{tail.ReasonWALReset: lost[string(tail.ReasonWALReset)]})
}

// TestFailingDisk: a segment that cannot be made durable is stored later under the same TXID, and
// meanwhile nothing is lost.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		left string // the extension of the one file, of two, that exists nevertheless
	}{
		{"S20 nothing stored", ""},
		{"S21 record stored, segment not", ".json"},
		{"S21 segment stored, record not", ".ltx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := startApp(t, s.path)
			a.do("schema()")
			s.open()
			s.settle()
			errDisk := errors.New("no space left on device")
			for round := range 6 {
				last := s.capture.Spool().Last()
				a.do("commit(20, 3)")
				s.capture.flusher.Store = func(p *segments.Commit) error {
					if c.left == "" {
						return errDisk
					}
					name := filepath.Join(s.options.StateDir, "spool", p.Record.Segment.MaxTXID.String()+c.left)
					return errors.Join(errDisk, os.WriteFile(name, []byte("half of a commit"), 0o600))
				}
				if _, err := s.capture.Step(s.ctx, true); !errors.Is(err, errDisk) {
					t.Fatalf("step with a failing disk: %v, want %v", err, errDisk)
				}
				if _, err := s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{}); !errors.Is(err, errDisk) {
					t.Fatalf("checkpoint with a failing disk: %v, want %v", err, errDisk)
				}
				if round%2 == 1 {
					s.crash()
					s.open()
				}
				s.capture.flusher.Store = (*segments.Commit).Run
				a.do("commit(1)")
				if r := s.step(true); r.TXID != last+1 {
					t.Fatalf("txid %s after a failure at %s, want one more", r.TXID, last)
				}
			}
			s.checkEqual()
			s.wantLost(nil)
		})
	}
}
