package dbfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// testFrame is one frame of a WAL built by encodeWAL.
type testFrame struct {
	page, commit uint32
	fill         byte
}

// slowSum is the checksum as the format's description states it, word by word.
func slowSum(c Checksum, bigEndian bool, b []byte) Checksum {
	var order binary.ByteOrder = binary.LittleEndian
	if bigEndian {
		order = binary.BigEndian
	}
	for i := 0; i < len(b); i += 8 {
		c[0] += order.Uint32(b[i:]) + c[1]
		c[1] += order.Uint32(b[i+4:]) + c[0]
	}
	return c
}

func encodeWALHeader(h WALHeader) []byte {
	b := make([]byte, 24, WALHeaderSize)
	magic := uint32(walMagic)
	if h.BigEndian {
		magic++
	}
	for i, v := range []uint32{magic, walVersion, uint32(h.PageSize), h.Sequence, h.Salt1, h.Salt2} {
		binary.BigEndian.PutUint32(b[4*i:], v)
	}
	sum := slowSum(Checksum{}, h.BigEndian, b)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, sum[0]), sum[1])
}

// encodeFrame returns a frame with the given content after position pos.
func encodeFrame(h WALHeader, pos Position, page, commit uint32, content []byte) ([]byte, Position) {
	b := make([]byte, FrameHeaderSize, h.FrameSize())
	for i, v := range []uint32{page, commit, h.Salt1, h.Salt2} {
		binary.BigEndian.PutUint32(b[4*i:], v)
	}
	sum := slowSum(slowSum(pos.Checksum, h.BigEndian, b[:8]), h.BigEndian, content)
	binary.BigEndian.PutUint32(b[16:], sum[0])
	binary.BigEndian.PutUint32(b[20:], sum[1])
	return append(b, content...), Position{pos.Frame + 1, sum}
}

func encodeWAL(t testing.TB, bigEndian bool, pageSize int, frames []testFrame) ([]byte, WALHeader) {
	t.Helper()
	b := encodeWALHeader(WALHeader{BigEndian: bigEndian, PageSize: pageSize, Sequence: 3, Salt1: 0xdeadbeef,
		Salt2: 0x01020304})
	h, err := ParseWALHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	pos := h.Start()
	for _, f := range frames {
		content := bytes.Repeat([]byte{f.fill, ^f.fill, 1, f.fill}, pageSize/4)
		var fb []byte
		fb, pos = encodeFrame(h, pos, f.page, f.commit, content)
		b = append(b, fb...)
	}
	return b, h
}

// scanAll returns how many frames a scanner accepts, and why it stopped.
func scanAll(r io.ReaderAt, h WALHeader, from Position, limit uint32) (Position, error) {
	s := NewFrameScanner(r, h, from, limit)
	for s.Next() {
	}
	return s.Position(), s.Err()
}

func orderName(bigEndian bool) string {
	if bigEndian {
		return "big_endian"
	}
	return "little_endian"
}

func TestWALHeaderRoundTrip(t *testing.T) {
	for _, bigEndian := range []bool{false, true} {
		for size := 512; size <= 65536; size *= 2 {
			want := WALHeader{BigEndian: bigEndian, PageSize: size, Sequence: 7, Salt1: 8, Salt2: math.MaxUint32}
			b := encodeWALHeader(want)
			want.Checksum = slowSum(Checksum{}, bigEndian, b[:24])
			got, err := ParseWALHeader(b)
			if err != nil || got != want {
				t.Errorf("D42_%s/D18_%d: got %+v, %v, want %+v", orderName(bigEndian), size, got, err, want)
			}
		}
	}
}

// TestWALHeaderFlips flips every bit of the header: every one is noticed.
func TestWALHeaderFlips(t *testing.T) {
	t.Parallel()
	for _, bigEndian := range []bool{false, true} {
		good, _ := encodeWAL(t, bigEndian, 4096, nil)
		for bit := range 8 * WALHeaderSize {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			want := ErrChecksum
			if bit/8 < 4 && bit != 8*3 { // the magic number; its lowest bit is the byte order
				want = ErrFormat
			}
			if _, err := ParseWALHeader(b); !errors.Is(err, want) {
				t.Errorf("%s, byte %d bit %d: got %v, want %v", orderName(bigEndian), bit/8, bit%8, err, want)
			}
		}
	}
}

// TestWALHeaderFormat: a header with a valid checksum but a format that is not supported is
// refused.
func TestWALHeaderFormat(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"version":         func(b []byte) { b[7]++ },
		"page_size_0":     func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0) },
		"page_size_256":   func(b []byte) { binary.BigEndian.PutUint32(b[8:], 256) },
		"page_size_1000":  func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1000) },
		"page_size_2^17":  func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<17) },
		"page_size_2^31":  func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) },
		"page_size_1_raw": func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1) },
	} {
		b, _ := encodeWAL(t, false, 4096, nil)
		change(b)
		sum := slowSum(Checksum{}, false, b[:24])
		binary.BigEndian.PutUint32(b[24:], sum[0])
		binary.BigEndian.PutUint32(b[28:], sum[1])
		if _, err := ParseWALHeader(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

func TestChecksumAgreesWithDefinition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 8, 16, 24, 40, 512, 4096, 65536} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		for _, bigEndian := range []bool{false, true} {
			start := Checksum{rnd.Uint32(), rnd.Uint32()}
			if got, want := start.Add(bigEndian, b), slowSum(start, bigEndian, b); got != want {
				t.Errorf("D42_%s, %d bytes: got %08x, want %08x", orderName(bigEndian), n, got, want)
			}
		}
	}
}

// TestFrameScanner reads what encodeWAL wrote, across blocks, in both byte
// orders, from the start and from the middle.
func TestFrameScanner(t *testing.T) {
	t.Parallel()
	for _, bigEndian := range []bool{false, true} {
		for _, pageSize := range []int{512, 4096, 65536} {
			t.Run(fmt.Sprintf("D42_%s/D18_%d", orderName(bigEndian), pageSize), func(t *testing.T) {
				n := 2*scanBlock/pageSize + 3
				frames := make([]testFrame, n)
				for i := range frames {
					frames[i] = testFrame{page: uint32(i + 1), commit: uint32(i % 3), fill: byte(i)}
				}
				b, h := encodeWAL(t, bigEndian, pageSize, frames)
				s := NewFrameScanner(bytes.NewReader(b), h, h.Start(), uint32(n))
				var middle Position
				for i, f := range frames {
					if !s.Next() {
						t.Fatalf("frame %d: %v", i+1, s.Err())
					}
					off := h.FrameOffset(uint32(i+1)) + FrameHeaderSize
					if got := s.Frame(); got.Page != f.page || got.Commit != f.commit || s.Position().Frame != uint32(i+1) {
						t.Fatalf("frame %d: got %+v at %+v", i+1, got, s.Position())
					}
					if !bytes.Equal(s.Page(), b[off:off+int64(pageSize)]) {
						t.Fatalf("frame %d: another content", i+1)
					}
					if i == n/2 {
						middle = s.Position()
					}
				}
				if s.Next() || s.Err() != nil || s.Page() != nil {
					t.Errorf("after the limit: got page of %d bytes, error %v", len(s.Page()), s.Err())
				}
				if got, err := scanAll(bytes.NewReader(b), h, middle, uint32(n)); err != nil || got != s.Position() {
					t.Errorf("from the middle: got %+v, %v, want %+v", got, err, s.Position())
				}
				wrong := middle
				wrong.Checksum[1]++
				if _, err := scanAll(bytes.NewReader(b), h, wrong, uint32(n)); !errors.Is(err, ErrChecksum) {
					t.Errorf("from a wrong checksum: got %v, want ErrChecksum", err)
				}
			})
		}
	}
}

// TestTruncatedWAL/D10 cuts a WAL at every byte: only whole frames come out,
// and only committed ones count.
func TestTruncatedWAL(t *testing.T) {
	t.Parallel()
	t.Run("D10", func(t *testing.T) {
		b, h := encodeWAL(t, false, 512, []testFrame{{1, 0, 1}, {2, 2, 2}, {1, 0, 3}, {3, 3, 4}})
		committed := []uint32{0, 0, 2, 2, 4}
		for n := range len(b) + 1 {
			if n < WALHeaderSize {
				if _, err := ParseWALHeader(b[:n]); !errors.Is(err, ErrNoWAL) {
					t.Errorf("%d bytes: got %v, want ErrNoWAL", n, err)
				}
				continue
			}
			whole := (n - WALHeaderSize) / h.FrameSize()
			pos, err := scanAll(bytes.NewReader(b[:n]), h, h.Start(), 100)
			if pos.Frame != uint32(whole) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%d bytes: got %d frames, %v, want %d", n, pos.Frame, err, whole)
			}
			c, err := ScanCommitted(bytes.NewReader(b[:n]), h, h.Start())
			if err != nil || c.Position.Frame != committed[whole] {
				t.Fatalf("%d bytes: got %+v, %v, want %d committed", n, c, err, committed[whole])
			}
		}
	})
}

// TestFlippedFrame/D11 flips every bit of every frame: the scan stops at
// exactly that frame.
func TestFlippedFrame(t *testing.T) {
	t.Parallel()
	for _, bigEndian := range []bool{false, true} {
		t.Run("D11_"+orderName(bigEndian), func(t *testing.T) {
			b, h := encodeWAL(t, bigEndian, 512, []testFrame{{1, 1, 1}, {2, 2, 2}, {1, 2, 3}})
			r := bytes.NewReader(b)
			s := NewFrameScanner(r, h, h.Start(), 3)
			for bit := WALHeaderSize * 8; bit < len(b)*8; bit++ {
				off := bit / 8
				b[off] ^= 1 << (bit % 8)
				frame := (off - WALHeaderSize) / h.FrameSize()
				inFrame := (off - WALHeaderSize) % h.FrameSize()
				want := ErrChecksum
				if inFrame >= 8 && inFrame < 16 {
					want = ErrSalt
				}
				s.Reset(r, h, h.Start(), 3)
				for s.Next() {
				}
				if s.Position().Frame != uint32(frame) || !errors.Is(s.Err(), want) {
					t.Fatalf("byte %d of frame %d: got stop after %d, %v, want %v", inFrame, frame+1, s.Position().Frame, s.Err(),
						want)
				}
				b[off] ^= 1 << (bit % 8)
			}
		})
	}
}

// TestLargeWAL/D14 reads frames that lie beyond 4 GiB, in a sparse file.
func TestLargeWAL(t *testing.T) {
	t.Run("D14", func(t *testing.T) {
		_, h := encodeWAL(t, false, 4096, nil)
		from := Position{Frame: 3_000_000_000, Checksum: Checksum{5, 6}}
		file, err := os.Create(filepath.Join(t.TempDir(), "wal"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		pos := from
		for i := range uint32(3) {
			var b []byte
			b, pos = encodeFrame(h, pos, i+1, i+1, make([]byte, 4096))
			if _, err := file.WriteAt(b, 32+int64(3_000_000_000+int64(i))*(4096+24)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := scanAll(file, h, from, from.Frame+3); err != nil || got != pos {
			t.Errorf("got %+v, %v, want %+v", got, err, pos)
		}
		if _, err := scanAll(file, h, from, math.MaxUint32); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("beyond the end: got %v, want io.ErrUnexpectedEOF", err)
		}
	})
}

// TestPageZero: SQLite ends a WAL at a frame for page 0 even if its checksum is right.
func TestPageZero(t *testing.T) {
	b, h := encodeWAL(t, false, 512, []testFrame{{1, 1, 1}, {0, 1, 2}, {2, 2, 3}})
	if pos, err := scanAll(bytes.NewReader(b), h, h.Start(), 3); pos.Frame != 1 || !errors.Is(err, ErrChecksum) {
		t.Errorf("got %d frames, %v, want 1 and ErrChecksum", pos.Frame, err)
	}
}

func TestFrameScannerReadError(t *testing.T) {
	b, h := encodeWAL(t, false, 512, []testFrame{{1, 1, 1}})
	broken := errors.New("disk on fire")
	pos, err := scanAll(failingReader{b, broken}, h, h.Start(), 2)
	if pos.Frame != 1 || !errors.Is(err, broken) {
		t.Errorf("got %d frames, %v, want 1 and the reader's error", pos.Frame, err)
	}
	if _, err := ScanCommitted(failingReader{b, broken}, h, h.Start()); !errors.Is(err, broken) {
		t.Errorf("ScanCommitted: got %v, want the reader's error", err)
	}
}

// failingReader returns some bytes and then an error.
type failingReader struct {
	b   []byte
	err error
}

func (r failingReader) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(r.b)) {
		n = copy(p, r.b[off:])
	}
	if n < len(p) {
		return n, r.err
	}
	return n, nil
}

func FuzzParseWALHeader(f *testing.F) {
	good, _ := encodeWAL(f, false, 4096, nil)
	f.Add(good)
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseWALHeader(b)
		if err == nil && !bytes.Equal(encodeWALHeader(h), b[:WALHeaderSize]) {
			t.Errorf("accepted %x, which encodes as %x", b[:WALHeaderSize], encodeWALHeader(h))
		}
	})
}

// FuzzFrameScanner corrupts a WAL and compares the scanner with a reader that reads one frame at
// a time and computes every checksum word by word.
func FuzzFrameScanner(f *testing.F) {
	f.Add(false, uint16(0), []byte{1}, uint16(0))
	f.Add(true, uint16(600), []byte{0xff, 3}, uint16(90))
	f.Fuzz(func(t *testing.T, bigEndian bool, at uint16, noise []byte, cut uint16) {
		b, h := encodeWAL(t, bigEndian, 512, []testFrame{{1, 0, 1}, {2, 2, 2}, {1, 0, 3}, {3, 3, 4}})
		for i, x := range noise {
			if off := WALHeaderSize + int(at) + i; off < len(b) {
				b[off] ^= x
			}
		}
		b = b[:len(b)-min(int(cut), len(b)-WALHeaderSize)]
		want := h.Start()
		for rest := b[WALHeaderSize:]; len(rest) >= h.FrameSize(); rest = rest[h.FrameSize():] {
			fb, next := encodeFrame(h, want, binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]),
				rest[FrameHeaderSize:h.FrameSize()])
			if !bytes.Equal(fb, rest[:h.FrameSize()]) || binary.BigEndian.Uint32(rest) == 0 {
				break
			}
			want = next
		}
		got, err := scanAll(bytes.NewReader(b), h, h.Start(), math.MaxUint32)
		if got != want || err == nil {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func BenchmarkFrameScanner(b *testing.B) {
	for _, bigEndian := range []bool{false, true} {
		b.Run(orderName(bigEndian), func(b *testing.B) {
			frames := make([]testFrame, 16384)
			for i := range frames {
				frames[i] = testFrame{page: uint32(i + 1), commit: 1, fill: byte(i)}
			}
			wal, h := encodeWAL(b, bigEndian, 4096, frames)
			path := filepath.Join(b.TempDir(), "wal")
			if err := os.WriteFile(path, wal, 0o600); err != nil {
				b.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			s := NewFrameScanner(file, h, h.Start(), uint32(len(frames)))
			b.SetBytes(int64(len(wal)))
			b.ReportAllocs()
			for b.Loop() {
				s.Reset(file, h, h.Start(), uint32(len(frames)))
				for s.Next() {
				}
				if s.Err() != nil {
					b.Fatal(s.Err())
				}
			}
		})
	}
}

func BenchmarkChecksum(b *testing.B) {
	page := make([]byte, 4096)
	for _, bigEndian := range []bool{false, true} {
		b.Run(orderName(bigEndian), func(b *testing.B) {
			b.SetBytes(int64(len(page)))
			var c Checksum
			for b.Loop() {
				c = c.Add(bigEndian, page)
			}
			_ = c
		})
	}
}
