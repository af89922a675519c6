package dbfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// FrameHeader stands before each page in the WAL, big-endian:
//
//	offset size  field
//	     0    4  Page number, from 1
//	     4    4  Commit: the database's size in pages after this
//	             transaction; 0 in all but its last frame
//	     8    4  Salt1, as in the WAL header
//	    12    4  Salt2
//	    16    8  Checksum of bytes 0 to 7 and the page, continued
//	             from the frame before
type FrameHeader struct {
	Page         uint32
	Commit       uint32
	Salt1, Salt2 uint32
	Checksum     Checksum
}

// Position is a place between two frames of one WAL generation: after Frame
// frames, whose running checksum is Checksum.
type Position struct {
	Frame    uint32
	Checksum Checksum
}

// scanBlock is how much a FrameScanner reads at a time, in bytes: small enough
// to be summed while it is still in the processor's cache, where 1 MiB is not.
const scanBlock = 1 << 18

// FrameScanner reads a WAL's frames in order and verifies the salts and the running checksum of each. A salt alone
// proves nothing: a rolled-back transaction that spilled leaves frames with the current salt, which are overwritten
// later. The caller must also disregard the frames after the last one whose Commit is not 0.
//
// The bytes it hands out are the bytes it verified: nothing is read twice.
type FrameScanner struct {
	r     io.ReaderAt
	h     WALHeader
	pos   Position
	limit uint32
	block []byte
	rest  []byte // whole frames of block, not handed out yet
	frame FrameHeader
	page  []byte
	err   error
}

// NewFrameScanner returns a scanner of the frames after from, up to and
// including frame limit, which for a live WAL is WALIndex.MaxFrame.
func NewFrameScanner(r io.ReaderAt, h WALHeader, from Position, limit uint32) *FrameScanner {
	s := new(FrameScanner)
	s.Reset(r, h, from, limit)
	return s
}

// Reset begins another scan with the memory of the one before.
func (s *FrameScanner) Reset(r io.ReaderAt, h WALHeader, from Position, limit uint32) {
	*s = FrameScanner{r: r, h: h, pos: from, limit: limit, block: s.block}
}

// Next reads and verifies the next frame. It returns false after frame limit
// and at the first frame that cannot be used; Err tells which.
func (s *FrameScanner) Next() bool {
	s.page = nil
	if s.err != nil || s.pos.Frame >= s.limit {
		return false
	}
	if len(s.rest) == 0 {
		if s.err = s.fill(); s.err != nil {
			return false
		}
	}
	b := s.rest[:s.h.FrameSize()]
	f := FrameHeader{
		Page:     binary.BigEndian.Uint32(b[0:]),
		Commit:   binary.BigEndian.Uint32(b[4:]),
		Salt1:    binary.BigEndian.Uint32(b[8:]),
		Salt2:    binary.BigEndian.Uint32(b[12:]),
		Checksum: Checksum{binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])},
	}
	if f.Salt1 != s.h.Salt1 || f.Salt2 != s.h.Salt2 {
		s.err = s.fail(ErrSalt)
		return false
	}
	sum := s.pos.Checksum.Add(s.h.BigEndian, b[:8]).Add(s.h.BigEndian, b[FrameHeaderSize:])
	if sum != f.Checksum || f.Page == 0 {
		s.err = s.fail(ErrChecksum)
		return false
	}
	s.rest = s.rest[len(b):]
	s.frame, s.page = f, b[FrameHeaderSize:]
	s.pos = Position{Frame: s.pos.Frame + 1, Checksum: sum}
	return true
}

// fill reads the next block of whole frames.
func (s *FrameScanner) fill() error {
	size := s.h.FrameSize()
	want := int(min(uint32(max(1, scanBlock/size)), s.limit-s.pos.Frame)) * size
	if cap(s.block) < want {
		s.block = make([]byte, want)
	}
	n, err := s.r.ReadAt(s.block[:want], s.h.FrameOffset(s.pos.Frame+1))
	s.rest = s.block[:n-n%size]
	switch {
	case len(s.rest) > 0: // an error, if there was one, comes back with the next block
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return s.fail(io.ErrUnexpectedEOF)
	}
	return s.fail(err)
}

func (s *FrameScanner) fail(err error) error {
	return fmt.Errorf("wal frame %d: %w", s.pos.Frame+1, err)
}

// Frame returns the header of the frame Next found. Its number is
// Position().Frame.
func (s *FrameScanner) Frame() FrameHeader { return s.frame }

// Page returns the frame's content, PageSize bytes, valid until the next call
// of Next or Reset.
func (s *FrameScanner) Page() []byte { return s.page }

// Position returns the place after the last frame that Next accepted.
func (s *FrameScanner) Position() Position { return s.pos }

// Err returns why the scan ended: nil at the limit; else ErrSalt, ErrChecksum,
// io.ErrUnexpectedEOF or an I/O error, wrapped with the frame's number.
func (s *FrameScanner) Err() error { return s.err }

// Committed is how far a WAL is valid without asking its wal-index.
type Committed struct {
	Position Position // after the last commit frame
	Pages    uint32   // the database's size there, in pages; 0: no commit
	Commits  int      // commit frames seen
	End      error    // why the scan went no further: ErrSalt, ErrChecksum or io.ErrUnexpectedEOF
}

// ScanCommitted finds the last committed frame after from as SQLite's own
// recovery does: it stops at the first frame that is torn, of another
// generation or wrong in its checksum. It serves where there is no wal-index,
// as under locking_mode=exclusive, and reads the whole file. The error is one
// of reading.
func ScanCommitted(r io.ReaderAt, h WALHeader, from Position) (Committed, error) {
	c := Committed{Position: from}
	s := NewFrameScanner(r, h, from, math.MaxUint32)
	for s.Next() {
		if f := s.Frame(); f.Commit != 0 {
			c.Position, c.Pages = s.Position(), f.Commit
			c.Commits++
		}
	}
	c.End = s.Err()
	for _, end := range []error{ErrSalt, ErrChecksum, io.ErrUnexpectedEOF} {
		if errors.Is(c.End, end) {
			return c, nil
		}
	}
	return c, c.End
}
