package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// add makes the segment txid, of one page, durable.
func add(t testing.TB, s *Spool, txid ltx.TXID) Record {
	t.Helper()
	w, r := finished(t, s, txid)
	if err := w.Commit(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// finished writes the segment txid, which is not durable yet.
func finished(t testing.TB, s *Spool, txid ltx.TXID) (*Writer, Record) {
	t.Helper()
	w, err := s.Create(ltx.Header{PageSize: 512, Commit: 1, MinTXID: txid, MaxTXID: txid, Timestamp: int64(txid)})
	if err != nil {
		t.Fatal(err)
	}
	page := []byte(strings.Repeat(string(rune('a'+txid%26)), 512))
	if err := w.Add(1, page); err != nil {
		t.Fatal(err)
	}
	r, err := w.Finish(Position{TXID: txid, PageSize: 512, Pages: 1, Checksum: ltx.ChecksumPage(1, page),
		Timestamp: int64(txid)}, "")
	if err != nil {
		t.Fatal(err)
	}
	return w, r
}

// newSpool opens a spool whose page-checksum map always counts as durable.
func newSpool(t testing.TB, dir string) *Spool {
	t.Helper()
	s, _, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.AfterSync(func() (ltx.TXID, error) { return s.Last(), nil })
	return s
}

func txids(s *Spool) (all []ltx.TXID) {
	for _, segment := range s.List() {
		all = append(all, segment.MaxTXID)
	}
	return all
}

// TestReopen_P1: files that a crash left half written are removed, and durable segments are there;
// a spool that is corrupt in other ways is refused.
func TestReopen_P1(t *testing.T) {
	t.Parallel()
	segment := func(dir string, txid ltx.TXID) string {
		return filepath.Join(dir, segmentsName, txid.String()+segmentSuffix)
	}
	record := func(dir string, txid ltx.TXID) string {
		return filepath.Join(dir, segmentsName, txid.String()+recordSuffix)
	}
	copied := func(to, from string) error {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o600)
	}
	tests := map[string]struct {
		leave func(dir string) error
		want  []ltx.TXID // nil: ErrCorrupt
	}{
		"nothing":                    {func(string) error { return nil }, []ltx.TXID{1, 2, 3}},
		"a segment without a record": {func(dir string) error { return os.Remove(record(dir, 3)) }, []ltx.TXID{1, 2}},
		"a record without a segment": {func(dir string) error { return os.Remove(segment(dir, 3)) }, []ltx.TXID{1, 2}},
		"a next segment half written": {func(dir string) error {
			return os.WriteFile(segment(dir, 4), []byte("LTX1"), 0o600)
		}, []ltx.TXID{1, 2, 3}},
		"temporary files": {func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, ".sqlwatch-tmp-1"), nil, 0o600),
				os.WriteFile(filepath.Join(dir, segmentsName, ".sqlwatch-tmp-2"), nil, 0o600))
		}, []ltx.TXID{1, 2, 3}},
		"released, but still there": {func(dir string) error {
			s := newSpool(t, dir)
			for _, name := range []string{segment(dir, 1), record(dir, 1), segment(dir, 2), record(dir, 2)} {
				if err := copied(name+".kept", name); err != nil {
					return err
				}
			}
			if err := s.Release(2); err != nil {
				return err
			}
			for _, name := range []string{segment(dir, 1), record(dir, 1), segment(dir, 2), record(dir, 2)} {
				if err := os.Rename(name+".kept", name); err != nil {
					return err
				}
			}
			return nil
		}, []ltx.TXID{3}},
		"a segment cut short":   {func(dir string) error { return os.Truncate(segment(dir, 3), 100) }, nil},
		"a segment of no bytes": {func(dir string) error { return os.Truncate(segment(dir, 2), 0) }, nil},
		"a gap": {func(dir string) error {
			return errors.Join(os.Remove(segment(dir, 2)), os.Remove(record(dir, 2)))
		}, nil},
		"a record of another segment": {func(dir string) error { return copied(record(dir, 3), record(dir, 2)) }, nil},
		"a record cut short":          {func(dir string) error { return os.Truncate(record(dir, 3), 40) }, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := newSpool(t, dir)
			for txid := ltx.TXID(1); txid <= 3; txid++ {
				add(t, s, txid)
			}
			if err := test.leave(dir); err != nil {
				t.Fatal(err)
			}
			s, found, err := Open(dir)
			if test.want == nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("open: %v, want ErrCorrupt", err)
				}
				return
			}
			if err != nil || !found || !slices.Equal(txids(s), test.want) {
				t.Fatalf("open: %v, %v, %v; want %v", txids(s), found, err, test.want)
			}
			entries, err := os.ReadDir(filepath.Join(dir, segmentsName))
			if err != nil || len(entries) != 2*len(test.want) {
				t.Errorf("left in the directory: %v, %v", entries, err)
			}
			last := test.want[len(test.want)-1]
			if s.Last() != last || s.Position().TXID != last {
				t.Errorf("last %s, position %s; want %s", s.Last(), s.Position().TXID, last)
			}
			add(t, s, last+1) // the spool can be continued
		})
	}
}

// TestRelease_S20_failedSync: segments that the page-checksum map has not durably recorded are
// kept, because they are its redo log.
func TestRelease_S20_failedSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSpool(t, dir)
	for txid := ltx.TXID(1); txid <= 4; txid++ {
		add(t, s, txid)
	}
	failed := errors.New("fsync: input/output error")
	s.AfterSync(func() (ltx.TXID, error) { return 0, failed })
	if err := s.Release(3); !errors.Is(err, failed) {
		t.Errorf("release with a failing sync: %v", err)
	}
	s.AfterSync(func() (ltx.TXID, error) { return 2, nil }) // durable up to 2 only
	if err := s.Release(3); err != nil || !slices.Equal(txids(s), []ltx.TXID{3, 4}) {
		t.Errorf("release beyond what is durable: %v, %v", txids(s), err)
	}
	s = newSpool(t, dir)
	if !slices.Equal(txids(s), []ltx.TXID{3, 4}) {
		t.Errorf("after reopening: %v", txids(s))
	}
	if sum, ok := s.ChecksumAt(2); ok {
		t.Errorf("checksum of a released segment: %s", sum)
	}
	if err := s.Release(4); err != nil || s.Bytes() != 0 || s.Last() != 4 {
		t.Errorf("all released: %d bytes, last %s, %v", s.Bytes(), s.Last(), err)
	}
	if s = newSpool(t, dir); s.Last() != 4 || len(s.List()) != 0 {
		t.Errorf("empty and reopened: last %s, %v", s.Last(), txids(s))
	}
}

// TestCommitFails_S20: a segment that could not be made durable does not count, and can be made
// again.
func TestCommitFails_S20(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSpool(t, dir)
	add(t, s, 1)
	w, r := finished(t, s, 2)
	away := filepath.Join(dir, "away")
	if err := os.Rename(filepath.Join(dir, segmentsName), away); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(r); err == nil {
		t.Error("committed into a directory that does not exist")
	}
	if err := w.Abort(); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if s.Last() != 1 {
		t.Errorf("last %s, want 1", s.Last())
	}
	if err := os.Rename(away, filepath.Join(dir, segmentsName)); err != nil {
		t.Fatal(err)
	}
	add(t, s, 2)
	if s = newSpool(t, dir); !slices.Equal(txids(s), []ltx.TXID{1, 2}) {
		t.Errorf("after reopening: %v", txids(s))
	}
}

// TestCommit_P6_panic: a fault of sqlwatch in the goroutine that writes the record is one of whoever commits, and the
// segment can be made again.
func TestCommit_P6_panic(t *testing.T) {
	t.Parallel()
	s := newSpool(t, t.TempDir())
	add(t, s, 1)
	w, r := finished(t, s, 2)
	w.record = func(string, Record) error { panic("a fault") }
	err := fault.Guard(func() error { return w.Commit(r) })
	if bug := fault.Of(err); bug == nil || bug.Cause != "a fault" || s.Last() != 1 {
		t.Errorf("a panic: %v; last %s, want 1", err, s.Last())
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if add(t, s, 2); s.Last() != 2 {
		t.Errorf("made again: last %s", s.Last())
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	s := newSpool(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error, 1)
	go func() { waited <- s.Wait(ctx, 1) }()
	add(t, s, 1)
	add(t, s, 2)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := s.Skip(Position{TXID: 5, PageSize: 512}, false); err != nil || len(s.List()) != 0 || s.Last() != 5 {
		t.Errorf("skipped to %s with %v, %v", s.Last(), txids(s), err)
	}
	go func() { waited <- s.Wait(ctx, 5) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait: %v", err)
	}
}

// envVictim names the spool directory of a process that is there to be killed.
const envVictim = "SQLWATCH_TEST_SPOOL_VICTIM"

// TestVictim is not a test: TestKilled_P1 runs it in a process of its own. It appends segments,
// prints the TXID of each once it is durable, and releases old ones.
func TestVictim(t *testing.T) {
	dir := os.Getenv(envVictim)
	if dir == "" {
		t.Skip("runs in a process of its own")
	}
	s := newSpool(t, dir)
	for txid := s.Last() + 1; ; txid++ {
		fmt.Println("durable", add(t, s, txid).Segment.MaxTXID)
		if txid%7 == 0 {
			if err := s.Release(txid - 3); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestKilled_P1: whenever its process is killed, a spool has all segments that were reported as
// durable, and no gap.
func TestKilled_P1(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var durable ltx.TXID
	for round := range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.v")
		cmd.Env = append(os.Environ(), envVictim+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killed := (*time.Timer)(nil)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if killed == nil { // it has started
				killed = time.AfterFunc(time.Duration(17*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			if said, ok := strings.CutPrefix(lines.Text(), "durable "); ok && len(said) == len(durable.String()) {
				if durable, err = ltx.ParseTXID(said); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		s, _, err := Open(dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if s.Last() < durable {
			t.Fatalf("round %d: last %s, but %s was durable", round, s.Last(), durable)
		}
		for _, segment := range s.List() {
			if info, err := os.Stat(segment.Path); err != nil || info.Size() != segment.Size {
				t.Errorf("segment %s: %v, %v", segment.MaxTXID, info, err)
			}
		}
	}
	if durable < 15 {
		t.Errorf("only %s segments were written: the test would prove nothing", durable)
	}
}
