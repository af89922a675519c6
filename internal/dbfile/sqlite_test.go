package dbfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestRealDatabases/D18 reads what SQLite wrote at every page size; database header, WAL and
// wal-index must agree.
func TestRealDatabases(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		t.Run("D18_"+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			a, path := newWAL(t, size)
			a.do("fill(c, 10, 300)")
			f := mustOpen(t, path)
			x, err := f.WALIndex()
			if err != nil {
				t.Fatal(err)
			}
			h, err := f.WALHeader()
			if err != nil {
				t.Fatal(err)
			}
			d, err := f.Header()
			if err != nil {
				t.Fatal(err)
			}
			if !d.WAL() || d.PageSize != size || h.PageSize != size || x.PageSize != size {
				t.Errorf("page sizes: database %d, WAL %d, wal-index %d; WAL mode %v", d.PageSize, h.PageSize, x.PageSize, d.WAL())
			}
			if x.Salt1 != h.Salt1 || x.Salt2 != h.Salt2 || x.BigEndian != h.BigEndian {
				t.Errorf("wal-index %+v of another generation than %+v", x, h)
			}
			if want := a.do("r = sqlite3.sqlite_version"); EngineVersion(d.LibraryVersion) != want {
				t.Errorf("got engine %s, want %s", EngineVersion(d.LibraryVersion), want)
			}
			c, err := ScanCommitted(f.WAL(), h, h.Start())
			if err != nil || c.Position != x.Position() || c.Pages != x.Pages {
				t.Errorf("scan: got %+v, %v, want %+v and %d pages", c, err, x.Position(), x.Pages)
			}
			a.do("fill(c, 5)")
			y, err := f.WALIndex()
			if err != nil || y.Change-x.Change != 5 {
				t.Errorf("five commits moved Change from %d to %d, %v", x.Change, y.Change, err)
			}
			if pos, err := scanAll(f.WAL(), h, x.Position(), y.MaxFrame); err != nil || pos != y.Position() {
				t.Errorf("the new frames: got %+v, %v, want %+v", pos, err, y.Position())
			}
		})
	}
}

// TestSpilledRollback/D12: a rolled-back transaction that spilled leaves whole
// frames with valid salts and sums behind the last commit.
func TestSpilledRollback(t *testing.T) {
	t.Parallel()
	t.Run("D12", func(t *testing.T) {
		a, path := newWAL(t, 4096)
		a.do("fill(c, 3)")
		f := mustOpen(t, path)
		before, err := f.WALIndex()
		if err != nil {
			t.Fatal(err)
		}
		a.do(
			`c.execute("pragma cache_size=5"); c.execute("pragma cache_spill=5"); c.execute("begin"); fill(c, 400, 1000); ` +
				`c.execute("rollback")`)
		h, err := f.WALHeader()
		if err != nil {
			t.Fatal(err)
		}
		if pos, _ := scanAll(f.WAL(), h, h.Start(), before.MaxFrame+1); pos.Frame != before.MaxFrame+1 {
			t.Fatalf("no frame was spilled: nothing is tested")
		}
		c, err := ScanCommitted(f.WAL(), h, h.Start())
		if err != nil || c.Position != before.Position() {
			t.Errorf("got %+v, %v, want %+v", c, err, before.Position())
		}
		after, err := f.WALIndex()
		if err != nil || after.MaxFrame != before.MaxFrame || after.Change != before.Change {
			t.Errorf("the rollback moved the wal-index from %+v to %+v, %v", before, after, err)
		}
		a.do("fill(c, 1)") // overwrites the first of these frames in place
		if after, err = f.WALIndex(); err != nil {
			t.Fatal(err)
		}
		if pos, err := scanAll(f.WAL(), h, before.Position(), after.MaxFrame); err != nil || pos != after.Position() {
			t.Errorf("after the next commit: got %+v, %v, want %+v", pos, err, after.Position())
		}
	})
}

// TestReusedWAL/D13: the WAL is restarted in place, with the same size and the same modification
// time. Both the header and a scan show it.
func TestReusedWAL(t *testing.T) {
	t.Parallel()
	t.Run("D13", func(t *testing.T) {
		a, path := newWAL(t, 4096)
		a.do("fill(c, 20)")
		f := mustOpen(t, path)
		h, err := f.WALHeader()
		if err != nil {
			t.Fatal(err)
		}
		x, err := f.WALIndex()
		if err != nil {
			t.Fatal(err)
		}
		old, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		a.do(`c.execute("pragma wal_checkpoint(passive)").fetchall(); fill(c, 2); os.utime(path + "-wal", ns=(%d, %d))`,
			old.WALModTime.UnixNano(), old.WALModTime.UnixNano())
		refresh(t, f, Change{})
		now, err := f.Stat()
		if err != nil || now.WALSize != old.WALSize || !now.WALModTime.Equal(old.WALModTime) {
			t.Fatalf("got %+v, %v: the WAL does not look the same, nothing is tested", now, err)
		}
		again, err := f.WALHeader()
		if err != nil || again == h || again.Salt1 != h.Salt1+1 || again.Sequence != h.Sequence+1 {
			t.Errorf("got header %+v, %v after %+v", again, err, h)
		}
		y, err := f.WALIndex()
		if err != nil || y.Salt1 == x.Salt1 || y.MaxFrame >= x.MaxFrame || y.Change != x.Change+2 {
			t.Errorf("got wal-index %+v, %v after %+v", y, err, x)
		}
		if _, err := scanAll(f.WAL(), h, h.Start(), x.MaxFrame); !errors.Is(err, ErrSalt) {
			t.Errorf("scan with the old header: got %v, want ErrSalt", err)
		}
		pos, err := scanAll(f.WAL(), again, again.Start(), x.MaxFrame)
		if pos != y.Position() || !errors.Is(err, ErrSalt) {
			t.Errorf("scan into the old frames: got %+v, %v, want %+v and ErrSalt", pos, err, y.Position())
		}
	})
}

// TestRecoveryAgreesWithSQLite corrupts WALs and lets SQLite recover them: it must find as many
// committed frames as ScanCommitted does. D10 truncates, D11 flips bits, D42 changes the byte
// order of the checksums.
func TestRecoveryAgreesWithSQLite(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 512)
	a.do("fill(c, 12, 700)")
	dir := t.TempDir() // copied before this process opens anything
	db := copyFile(t, filepath.Join(dir, "base.db"), path)
	wal := copyFile(t, filepath.Join(dir, "base.db-wal"), path+"-wal")
	h, err := ParseWALHeader(wal)
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(off int) []byte {
		b := bytes.Clone(wal)
		b[off] ^= 0x10
		return b
	}
	corrupt := map[string][]byte{"whole": wal, "D42_other_byte_order": otherByteOrder(t, wal, h)}
	for frame := uint32(1); h.FrameOffset(frame) < int64(len(wal)); frame += 4 {
		off := int(h.FrameOffset(frame))
		corrupt[fmt.Sprintf("D11_page_number_of_%d", frame)] = flipped(off + 3)
		corrupt[fmt.Sprintf("D11_salt_of_%d", frame)] = flipped(off + 9)
		corrupt[fmt.Sprintf("D11_content_of_%d", frame)] = flipped(off + 300)
		corrupt[fmt.Sprintf("D10_cut_in_%d", frame)] = wal[:off+100]
		corrupt[fmt.Sprintf("D10_cut_before_%d", frame)] = wal[:off]
	}
	i := 0
	for name, b := range corrupt {
		i++
		copyPath := filepath.Join(dir, fmt.Sprintf("%d.db", i))
		writeFile(t, copyPath, db)
		writeFile(t, copyPath+"-wal", b)
		h, err := ParseWALHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ScanCommitted(bytes.NewReader(b), h, h.Start())
		if err != nil {
			t.Fatal(err)
		}
		want := a.do("r = wal_frames(%q)", copyPath)
		if got := strconv.Itoa(int(c.Position.Frame)); got != want {
			t.Errorf("%s: we find %s committed frames, SQLite %s", name, got, want)
		}
	}
}

// otherByteOrder returns a WAL as a machine of the other byte order would have written it.
func otherByteOrder(t *testing.T, wal []byte, h WALHeader) []byte {
	t.Helper()
	h.BigEndian = !h.BigEndian
	b := encodeWALHeader(h)
	pos := Position{Checksum: Checksum{binary.BigEndian.Uint32(b[24:]), binary.BigEndian.Uint32(b[28:])}}
	for rest := wal[WALHeaderSize:]; len(rest) >= h.FrameSize(); rest = rest[h.FrameSize():] {
		var fb []byte
		fb, pos = encodeFrame(h, pos, binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]),
			rest[FrameHeaderSize:h.FrameSize()])
		b = append(b, fb...)
	}
	return b
}

// TestEmptiedWAL/D16: after a TRUNCATE the WAL has no bytes, and a recovered wal-index has no
// page size.
func TestEmptiedWAL(t *testing.T) {
	t.Parallel()
	t.Run("D16", func(t *testing.T) {
		a, path := newWAL(t, 4096)
		a.do(`fill(c, 3); c.execute("pragma wal_checkpoint(truncate)").fetchall()`)
		f := mustOpen(t, path)
		if _, err := f.WALHeader(); !errors.Is(err, ErrNoWAL) {
			t.Errorf("got %v, want ErrNoWAL", err)
		}
		if x, err := f.WALIndex(); err != nil || x.MaxFrame != 0 {
			t.Errorf("after truncate: got %+v, %v, want no frames", x, err)
		}
		a.do(`c.close(); c = connect(); c.execute("select count(*) from t").fetchall()`)
		if _, err := f.Refresh(); err != nil {
			t.Fatal(err)
		}
		if x, err := f.WALIndex(); err != nil || x.MaxFrame != 0 {
			t.Errorf("recovered from nothing: got %+v, %v, want no frames", x, err)
		}
	})
}

// TestWALIndexUnderLoad reads while an application commits as fast as it can: every read
// succeeds, and the change counter never goes back.
func TestWALIndexUnderLoad(t *testing.T) {
	a, path := newWAL(t, 4096)
	a.do(`c.execute("pragma synchronous=off"); c.execute("pragma wal_autocheckpoint=1000"); fill(c, 1)`)
	f := mustOpen(t, path)
	a.Send(t, "fill(c, 20000)")
	var last uint32
	reads := 0
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); reads++ {
		x, err := f.WALIndex()
		if err != nil {
			t.Fatal(err)
		}
		if x.Change < last {
			t.Fatalf("Change went from %d to %d", last, x.Change)
		}
		last = x.Change
	}
	if last < 100 {
		t.Fatalf("%d reads saw only %d commits: nothing is tested", reads, last)
	}
}

// TestTornForGood: a writer that died between the two copies of the header is reported, not
// waited for.
func TestTornForGood(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	writeFile(t, path, sampleHeader())
	b := encodeWALIndex(sampleWALIndex())
	b[walIndexCopy+16]++
	writeFile(t, path+"-shm", b)
	f := mustOpen(t, path)
	within(t, 30*time.Second, func() {
		if _, err := f.WALIndex(); !errors.Is(err, ErrTorn) {
			t.Errorf("got %v, want ErrTorn", err)
		}
	})
}

// liveFiles opens a database with a WAL, to which nobody writes, for a benchmark.
func liveFiles(b *testing.B) *Files {
	b.Helper()
	path := filepath.Join(b.TempDir(), "app.db")
	wal, _ := encodeWAL(b, false, 4096, []testFrame{{1, 1, 1}})
	err := errors.Join(os.WriteFile(path, sampleHeader(), 0o600), os.WriteFile(path+"-wal", wal, 0o600),
		os.WriteFile(path+"-shm", encodeWALIndex(sampleWALIndex()), 0o600))
	if err != nil {
		b.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

func BenchmarkFiles(b *testing.B) {
	f := liveFiles(b)
	for name, call := range map[string]func() error{
		"WALIndex":    func() error { _, err := f.WALIndex(); return err },
		"Header":      func() error { _, err := f.Header(); return err },
		"WALHeader":   func() error { _, err := f.WALHeader(); return err },
		"Locks":       func() error { _, err := f.Locks(); return err },
		"Refresh":     func() error { _, err := f.Refresh(); return err },
		"Stat":        func() error { _, err := f.Stat(); return err },
		"LockHolders": func() error { _, err := LockHolders(f); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := call(); err != nil && !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
		})
	}
}
