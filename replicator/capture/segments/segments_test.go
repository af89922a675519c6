package segments

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// writer is an application with the system's SQLite that executes each line it is sent.
const writer = `
import sqlite3, sys, os
path = sys.argv[1]
db = sqlite3.connect(path, isolation_level=None)
db.execute("pragma journal_mode=wal"); db.execute("pragma wal_autocheckpoint=0"); db.execute("pragma cache_size=-65536")
db.execute("create table t(id integer primary key, v blob)")
n = 0
def commit(times=1, rows=1, size=300):
    global n
    for _ in range(times):
        n += 1
        db.execute("begin immediate")
        for _ in range(rows): db.execute("insert into t(v) values(?)", (bytes([n % 251]) * size,))
        db.execute("commit")
def shrink():
    db.execute("delete from t where id > 20"); db.execute("vacuum")
def checkpoint(mode): db.execute("pragma wal_checkpoint(%s)" % mode).fetchall()
def spoil(frame):
    f = os.open(path + "-wal", os.O_RDWR); os.pwrite(f, b"spoiled", 32 + (frame-1) * (24+4096) + 24 + 2000)
commit(20); checkpoint("truncate"); commit()
print("ready", flush=True)
for line in sys.stdin: exec(line); print("done", flush=True)
`

// scene is a database with the parts of a capture that make segments, and an image rebuilt from
// those segments.
type scene struct {
	t       *testing.T
	path    string
	files   *dbfile.Files
	tail    *tail.Tail
	state   *statedir.Dir
	flusher *Flusher
	stdin   io.Writer
	lines   *bufio.Scanner
	image   []byte
	last    ltx.TXID
}

// newScene returns a scene that has captured everything but one commit.
func newScene(t *testing.T) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{t: t, path: filepath.Join(dir, "app.db")}
	cmd := exec.Command("python3", "-c", writer, s.path)
	stdin, err := cmd.StdinPipe()
	s.fatal(err)
	out, err := cmd.StdoutPipe()
	s.fatal(err)
	s.fatal(cmd.Start())
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	s.stdin, s.lines = stdin, bufio.NewScanner(out)
	if !s.lines.Scan() {
		t.Fatal("the application has ended")
	}
	s.files, err = dbfile.Open(s.path)
	s.fatal(err)
	t.Cleanup(func() { s.files.Close() })
	s.tail = tail.New(s.files, time.Now)
	s.state = &statedir.Dir{Path: filepath.Join(dir, "state"), Clock: time.Now, Log: slog.New(slog.DiscardHandler)}
	_, err = s.state.Open(t.Context())
	s.fatal(err)
	t.Cleanup(func() { s.state.Close() })
	s.flusher = New(s.files, s.tail, s.state)
	s.begin()
	return s
}

// begin captures what is in the main file. The position is then before the first frame of the WAL.
func (s *scene) begin() {
	s.t.Helper()
	h, err := s.files.Header()
	s.fatal(err)
	s.image = make([]byte, int(h.Pages)*h.PageSize)
	_, err = s.files.Database().ReadAt(s.image, 0)
	s.fatal(err)
	w, err := s.state.CreateSums()
	s.fatal(err)
	for page := range h.Pages {
		s.fatal(w.Add(ltx.ChecksumPage(page+1, s.image[int(page)*h.PageSize:int(page+1)*h.PageSize])))
	}
	x := s.index()
	p := s.state.Following(s.state.Position(), false)
	p.PageSize, p.Pages, p.Checksum, p.Change = h.PageSize, h.Pages, w.Checksum(), x.Change-1
	p.Salt1, p.Salt2 = x.Salt1, x.Salt2
	s.fatal(s.state.AdoptWhole(p, w, true))
	s.tail.Restart(p)
	s.last = p.TXID
}

func (s *scene) fatal(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) index() dbfile.WALIndex {
	s.t.Helper()
	_, err := s.files.Refresh()
	s.fatal(err)
	x, err := s.files.WALIndex()
	s.fatal(err)
	return x
}

func (s *scene) do(line string) {
	s.t.Helper()
	_, err := io.WriteString(s.stdin, line+"\n")
	s.fatal(err)
	if !s.lines.Scan() {
		s.t.Fatalf("the application has ended at %s", line)
	}
}

// segments applies the segments that were spooled since the last call to the image, and returns how
// many pages each has.
func (s *scene) segments() (sizes []int) {
	s.t.Helper()
	for _, segment := range s.state.Spool().After(s.last) {
		if segment.MaxTXID != s.last+1 {
			s.t.Fatalf("segment %s after %s", segment.MaxTXID, s.last)
		}
		s.last = segment.MaxTXID
		file, err := os.Open(segment.Path)
		s.fatal(err)
		dec, page := ltx.NewDecoder(file), make([]byte, segment.PageSize)
		s.fatal(dec.DecodeHeader())
		grown := make([]byte, int(segment.Commit)*segment.PageSize)
		copy(grown, s.image)
		s.image = grown
		for {
			var h ltx.PageHeader
			if err = dec.DecodePage(&h, page); err != nil {
				break
			}
			copy(s.image[int(h.Pgno-1)*segment.PageSize:], page)
		}
		if !errors.Is(err, io.EOF) {
			s.t.Fatal(err)
		}
		s.fatal(errors.Join(dec.Close(), file.Close()))
		sizes = append(sizes, segment.Pages)
	}
	return sizes
}

// wantEqual checks that the image made from the segments equals the database, byte for byte, and
// that the checksum of the page-checksum map is that of the position.
func (s *scene) wantEqual() {
	s.t.Helper()
	s.segments()
	copied := filepath.Join(s.t.TempDir(), "copy.db")
	out, err := exec.Command("sh", "-c", `cp "$0" "$1" && cp "$0-wal" "$1-wal" && sqlite3 "$1" "pragma `+
		`wal_checkpoint(truncate)"`, s.path, copied).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(copied)
	s.fatal(err)
	if !bytes.Equal(s.image, want) {
		s.t.Errorf("the segments make %d bytes that are not the database's %d", len(s.image), len(want))
	}
	sum, err := s.state.Sums().Checksum()
	if p := s.state.Position(); err != nil || sum != p.Checksum || s.state.Broken() {
		s.t.Errorf("the map adds up to %s, %v; the position says %s", sum, err, p.Checksum)
	}
}

// temporary returns how many temporary files the state directory has.
func (s *scene) temporary() int {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.state.Path, "*", durable.TempPrefix+"*"))
	s.fatal(err)
	return len(files)
}

// TestFlush_S20: the disk refuses a segment and accepts it later. The segment then holds the same
// commits, and those that came in between.
func TestFlush_S20(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	full := errors.New("no space left on device")
	s.flusher.Store = func(*Commit) error { return full }
	s.do("commit(5, 3)")
	if err := s.flusher.CaptureHead(); !errors.Is(err, full) {
		t.Fatalf("a full disk: %v", err)
	}
	if sizes := s.segments(); len(sizes) != 0 || s.tail.Batch.Empty() {
		t.Errorf("segments of %v pages, batch empty: %v", sizes, s.tail.Batch.Empty())
	}
	s.do("commit(5, 40)")
	s.fatal(s.flusher.AbsorbHead())
	before := s.temporary()
	s.fatal(s.flusher.Begin()) // encoded and on its way to the disk, which refuses it again
	if err := s.flusher.End(time.Minute); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	if n := s.temporary(); n != before+1 {
		t.Errorf("%d temporary files, want %d: one was removed while the application may wait", n, before+1)
	}
	s.fatal(s.flusher.Wait()) // the error was returned
	if n := s.temporary(); n != before || s.flusher.Busy() || s.tail.Batch.Empty() {
		t.Errorf("%d temporary files, want %d; busy %v, batch empty %v", n, before, s.flusher.Busy(), s.tail.Batch.Empty())
	}
	s.flusher.Store = (*Commit).Run
	s.do("shrink()")
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
}

// TestBegin_D80_panic: a fault of sqlwatch while a segment is stored in the background is an error of this database,
// and the segment is stored by the next attempt.
func TestBegin_D80_panic(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.flusher.Store = func(*Commit) error { panic("a fault") }
	faults := 0
	s.flusher.Faulted = func(*fault.Error) { faults++ }
	s.do("commit(5, 3)")
	s.fatal(s.flusher.AbsorbHead())
	s.fatal(s.flusher.Begin())
	if err := s.flusher.End(time.Minute); err == nil || !strings.Contains(err.Error(), "a fault") {
		t.Fatalf("a panic: %v", err)
	}
	s.flusher.Store = (*Commit).Run
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
	s.do("commit(5, 3)")
	s.fatal(s.flusher.AbsorbHead())
	before := s.temporary()
	s.flusher.files = nil // encoding meets a fault when the file has been made
	s.fatal(s.flusher.Begin())
	if err := s.flusher.End(time.Minute); err == nil || !strings.Contains(err.Error(), "nil pointer") {
		t.Fatalf("a panic: %v", err)
	}
	if after := s.temporary(); after != before {
		t.Errorf("%d temporary files, want %d", after, before)
	}
	if faults != 2 {
		t.Errorf("%d panics were told, want 2", faults)
	}
	s.flusher.files = s.files
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
}

// TestEnd_S20_slow: the disk is too slow for the caller that waits. The segment is stored in the
// background, and nothing is encoded twice.
func TestEnd_S20_slow(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	proceed := make(chan struct{})
	s.flusher.Store = func(c *Commit) error { <-proceed; return c.Run() }
	s.do("commit(3, 3)")
	s.fatal(s.flusher.AbsorbHead())
	s.fatal(s.flusher.Begin())
	if err := s.flusher.End(time.Millisecond); !errors.Is(err, tail.ErrBudget) || !s.flusher.Busy() {
		t.Fatalf("after a millisecond: %v, busy %v", err, s.flusher.Busy())
	}
	before := s.state.Position()
	close(proceed)
	s.fatal(s.flusher.Wait())
	if after := s.state.Position(); after.TXID != before.TXID+1 || s.flusher.Busy() || !s.tail.Batch.Empty() {
		t.Errorf("position %+v after %+v, busy %v", after, before, s.flusher.Busy())
	}
	s.fatal(s.flusher.Flush()) // nothing is left to flush
	if sizes := s.segments(); len(sizes) != 1 {
		t.Errorf("segments of %v pages, want one", sizes)
	}
	s.do("commit(2)")
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
}

// TestBegin_S25_create: a disk that is slow to make a file does not keep the caller, who may have frozen the
// application, and what it makes in the end is one segment, of which nothing is lost.
func TestBegin_S25_create(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	proceed := make(chan struct{})
	s.flusher.Create = func(sp *spool.Spool, h ltx.Header) (*spool.Writer, error) { <-proceed; return sp.Create(h) }
	s.do("commit(3, 3)")
	s.fatal(s.flusher.AbsorbHead())
	begun := make(chan error, 1)
	go func() { begun <- s.flusher.Begin() }()
	select {
	case err := <-begun:
		s.fatal(err)
	case <-time.After(10 * time.Second):
		close(proceed)
		t.Fatal("the caller waits until the disk has made a file")
	}
	if err := s.flusher.End(time.Millisecond); !errors.Is(err, tail.ErrBudget) || !s.flusher.Busy() {
		t.Fatalf("after a millisecond: %v, busy %v", err, s.flusher.Busy())
	}
	close(proceed)
	before := s.state.Position()
	if err := s.flusher.End(time.Minute); err != nil || s.state.Position() != before {
		t.Errorf("durable: %v, and the page checksums were written while the application may wait", err)
	}
	s.do("commit(2)")
	s.fatal(s.flusher.CaptureHead())
	if sizes := s.segments(); len(sizes) != 2 {
		t.Errorf("segments of %v pages, want two", sizes)
	}
	s.wantEqual()
	full := errors.New("no space left on device")
	s.flusher.Create = func(*spool.Spool, ltx.Header) (*spool.Writer, error) { return nil, full }
	s.do("commit(2)")
	if err := s.flusher.CaptureHead(); !errors.Is(err, full) || s.tail.Batch.Empty() {
		t.Fatalf("no file can be made: %v, batch empty %v", err, s.tail.Batch.Empty())
	}
	s.flusher.Create = (*spool.Spool).Create
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
}

// TestAbsorb_D27: what was read of one WAL generation becomes a segment of its own, which is
// durable before anything of the next generation is read.
func TestAbsorb_D27(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.do("commit(4, 30)")
	s.fatal(s.flusher.AbsorbHead())
	s.do(`checkpoint("truncate"); commit(2)`)
	full := errors.New("no space left on device")
	s.flusher.Store = func(*Commit) error { return full }
	s.index()
	if err := s.flusher.AbsorbHead(); !errors.Is(err, full) {
		t.Fatalf("the generation before cannot be stored: %v", err)
	}
	if s.tail.Head.Salt1 == s.index().Salt1 {
		t.Error("the next generation was read nevertheless")
	}
	s.flusher.Store = (*Commit).Run
	s.fatal(s.flusher.AbsorbHead())
	if sizes := s.segments(); len(sizes) != 1 {
		t.Errorf("segments of %v pages, want that of the generation before", sizes)
	}
	s.fatal(s.flusher.Flush())
	s.wantEqual()
	// If a whole generation was missed, no segment is made.
	s.do(`commit(3); checkpoint("truncate"); commit(1)`)
	s.index()
	lost := (*tail.DiscontinuityError)(nil)
	if err := s.flusher.AbsorbHead(); !errors.As(err, &lost) {
		t.Errorf("three commits came and went: %v", err)
	}
	if sizes := s.segments(); len(sizes) != 0 {
		t.Errorf("segments of %v pages", sizes)
	}
}

// TestFlush_D11_changed: frames that do not fit into memory are read again when they are encoded.
// If a frame has changed since it was verified, no segment is made.
func TestFlush_D11_changed(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]string{"sound": "", "spoiled": "spoil(3000)"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.do("commit(1, 6000, 3500)")
			s.fatal(s.flusher.AbsorbHead())
			if !s.tail.Batch.Spilled() {
				t.Fatal("there is room for all of it")
			}
			if spoil == "" {
				s.fatal(s.flusher.Flush())
				s.wantEqual()
				return
			}
			s.do(spoil)
			lost, before := (*tail.DiscontinuityError)(nil), s.state.Position()
			if err := s.flusher.Flush(); !errors.As(err, &lost) || lost.Reason != tail.ReasonFrames {
				t.Errorf("a frame has changed since it was verified: %v", err)
			}
			if sizes := s.segments(); len(sizes) != 0 || s.state.Position() != before {
				t.Errorf("segments of %v pages, position %+v", sizes, s.state.Position())
			}
		})
	}
}

// TestAbsorbTail_I5: within a time budget, reading is not begun if it would take too long, and is
// given up if it does take too long. Everything is read later.
func TestAbsorbTail_I5(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.do("commit(300, 2, 3000)")
	s.tail.Rate = 1 // as on a machine that needs a second for each byte
	end := s.flusher.Hurry(50 * time.Millisecond)
	if err := s.flusher.AbsorbTail(); !errors.Is(err, tail.ErrBudget) || !s.tail.Batch.Empty() {
		t.Errorf("too much for this machine: %v, batch empty %v", err, s.tail.Batch.Empty())
	}
	end()
	s.tail.Rate = 1e15 // as on a machine that seemed faster than it is
	end = s.flusher.Hurry(time.Nanosecond)
	if err := s.flusher.AbsorbTail(); !errors.Is(err, tail.ErrBudget) || !s.tail.Batch.Empty() {
		t.Errorf("late: %v, batch empty %v", err, s.tail.Batch.Empty())
	}
	end()
	s.fatal(s.flusher.CaptureHead())
	if sizes := s.segments(); len(sizes) != 1 {
		t.Errorf("segments of %v pages, want one", sizes)
	}
	s.wantEqual()
}

// TestGather_D78: what is read during a comparison becomes part of its result, and makes no
// segment.
func TestGather_D78(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	found := overlay.NewFound(overlay.NewPages(4096, overlay.Options{Dir: t.TempDir(), Limit: 64 << 20,
		Room: func() error { return nil }}))
	defer found.Close()
	end := s.flusher.Gather(found)
	s.do("commit(5, 3)")
	before := s.state.Position()
	s.fatal(s.flusher.CaptureHead())
	s.do("commit(5, 3)")
	s.fatal(s.flusher.CaptureHead())
	if sizes := s.segments(); len(sizes) != 0 || s.state.Position() != before || !s.tail.Batch.Empty() {
		t.Errorf("segments of %v pages, position %+v, batch empty %v", sizes, s.state.Position(), s.tail.Batch.Empty())
	}
	wal, err := exec.Command("sh", "-c", `cp "$0" "$0.copy" && cp "$0-wal" "$0.copy-wal" && sqlite3 "$0.copy" "pragma `+
		`wal_checkpoint(truncate)" && cat "$0.copy"`, s.path).Output()
	s.fatal(err)
	_, database, _ := strings.Cut(string(wal), "\n") // the first line is the answer of the pragma
	for _, page := range found.Pages().Numbers() {
		want := ltx.ChecksumPage(page, []byte(database[(page-1)*4096:page*4096]))
		if sum, newer := found.Newer(page); !newer || sum != want {
			t.Errorf("page %d: %s, want %s", page, sum, want)
		}
	}
	if len(found.Pages().Numbers()) == 0 {
		t.Error("nothing was found")
	}
	end()
	s.do("commit(1)")
	s.tail.Restart(before) // as after a failed comparison: everything is read again
	s.fatal(s.flusher.CaptureHead())
	s.wantEqual()
}
