package collector

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// walScan counts committed frames by reading the WAL itself. It is used when there is
// no wal-index: at rest after a crash, or under locking_mode=exclusive, which keeps
// the wal-index in the application's memory. It continues where it stopped and reads a
// bounded number of bytes at a time.
type walScan struct {
	header    dbfile.WALHeader
	committed dbfile.Position // after the last commit frame
	ahead     dbfile.Position // beyond it: frames of a transaction not committed yet
	first     dbfile.Checksum // of the first of those
	counted   uint32          // commits up to this frame are already in change
	change    uint32          // what iChange would be if it continued from the last index
	pages     uint32          // of the database at committed
	reached   bool            // the end of a WAL has been reached
	scanner   dbfile.FrameScanner
}

// scanBytes limits what one sample reads of a WAL.
const scanBytes = 8 << 20

// errScanBehind says that there is more to read than one sample may.
var errScanBehind = errors.New("the WAL is still being counted")

// read continues the scan, adds the commits to those of last, and returns what a
// wal-index would contain. It returns errScanBehind until it has reached the end once;
// after that, a lower bound if a writer outruns it. It returns dbfile.ErrNoWAL if
// there is nothing to read.
func (s *walScan) read(f *dbfile.Files, last dbfile.WALIndex) (dbfile.WALIndex, error) {
	h, err := f.WALHeader()
	if err != nil {
		return dbfile.WALIndex{}, err
	}
	wal := f.WAL()
	if wal == nil {
		return dbfile.WALIndex{}, dbfile.ErrNoWAL
	}
	if h != s.header {
		s.begin(h, last)
	}
	err = s.advance(wal)
	if err != nil && !(s.reached && errors.Is(err, errScanBehind)) {
		return dbfile.WALIndex{}, err
	}
	s.reached = true
	return dbfile.WALIndex{
		Change: s.change, BigEndian: h.BigEndian, PageSize: h.PageSize, Salt1: h.Salt1, Salt2: h.Salt2,
		MaxFrame: s.committed.Frame, Checksum: s.committed.Checksum, Pages: s.pages,
	}, nil
}

func (s *walScan) begin(h dbfile.WALHeader, last dbfile.WALIndex) {
	*s = walScan{header: h, committed: h.Start(), ahead: h.Start(), change: last.Change, reached: s.reached,
		scanner: s.scanner}
	if h.Salt1 == last.Salt1 && h.Salt2 == last.Salt2 {
		s.counted = last.MaxFrame
	}
}

func (s *walScan) advance(wal io.ReaderAt) error {
	if sum, ok := s.peek(wal, s.committed); s.ahead != s.committed && (!ok || sum != s.first) {
		s.ahead = s.committed // a rollback: those frames are overwritten in place
	}
	if _, ok := s.peek(wal, s.ahead); !ok {
		return nil
	}
	start := s.ahead
	limit := start.Frame + uint32(max(1, scanBytes/s.header.FrameSize()))
	s.scanner.Reset(wal, s.header, start, limit)
	for s.scanner.Next() {
		s.take(s.scanner.Position(), s.scanner.Frame())
	}
	err := s.scanner.Err()
	switch {
	case err == nil:
		return errScanBehind
	case errors.Is(err, dbfile.ErrSalt), errors.Is(err, dbfile.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		if s.ahead == start { // a rollback that left its first frame unchanged
			s.ahead = s.committed
		}
		return nil // the end, which SQLite's own recovery would find too
	}
	return err
}

// take accepts one verified frame.
func (s *walScan) take(pos dbfile.Position, f dbfile.FrameHeader) {
	if s.ahead == s.committed {
		s.first = f.Checksum
	}
	s.ahead = pos
	if f.Commit == 0 {
		return
	}
	s.committed, s.pages = pos, f.Commit
	if pos.Frame > s.counted {
		s.counted = pos.Frame
		s.change++
	}
}

// peek returns the checksum in the header of the frame after pos, and whether that frame belongs to
// this generation, so that an idle WAL costs two small reads.
func (s *walScan) peek(wal io.ReaderAt, pos dbfile.Position) (dbfile.Checksum, bool) {
	var b [dbfile.FrameHeaderSize]byte
	if _, err := wal.ReadAt(b[:], s.header.FrameOffset(pos.Frame+1)); err != nil {
		return dbfile.Checksum{}, false
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	return dbfile.Checksum{word(16), word(20)}, word(8) == s.header.Salt1 && word(12) == s.header.Salt2
}
