package dbfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// WALIndexSize is how many bytes at the start of a -shm file are decoded.
const WALIndexSize = 136

const (
	walIndexCopy    = 48 // bytes of each of the two copies of the header
	walIndexSummed  = 40 // the number of these bytes that the checksum covers
	walIndexVersion = 3007000
)

// WALIndex is the start of a -shm file, in the machine's own byte order but
// for the salts:
//
//	offset size  field
//	     0    4  Version 3007000
//	     4    4  unused
//	     8    4  Change: +1 per commit (SQLite's iChange)
//	    12    1  not 0 once initialised
//	    13    1  BigEndian: of the WAL's checksums
//	    14    2  PageSize, 1 for 65536, 0 before the first frame
//	    16    4  MaxFrame: the last committed frame (mxFrame)
//	    20    4  Pages: the database's size
//	    24    8  Checksum after frame MaxFrame
//	    32    8  Salt1, Salt2: bytes of the WAL header, so big-endian
//	    40    8  checksum of bytes 0 to 39
//	    48   48  the same again
//	    96    4  Backfilled: frames copied into the database (nBackfill)
//	   100   20  ReadMarks: the frame that each read lock's holders end at
//	   120    8  bytes that are locked, never written: WRITE, CKPT,
//	             RECOVER, READ0 to READ4; 128 is the DMS lock's
//	   128    4  BackfillAttempted: frames a checkpoint meant to copy
//
// Offsets 96 and beyond are outside the checksum and move by themselves:
// Backfilled above MaxFrame is a legal moment of a reset, and a read mark
// whose lock byte is free is stale.
type WALIndex struct {
	Version           uint32
	Change            uint32
	BigEndian         bool
	PageSize          int
	MaxFrame          uint32
	Pages             uint32
	Checksum          Checksum
	Salt1, Salt2      uint32
	Backfilled        uint32
	ReadMarks         [5]uint32
	BackfillAttempted uint32
}

// Position returns the place after the last committed frame.
func (x WALIndex) Position() Position { return Position{Frame: x.MaxFrame, Checksum: x.Checksum} }

// ParseWALIndex decodes the first 136 bytes of a -shm file. Errors: ErrTorn
// where the copies differ or the checksum is wrong (read again),
// ErrUninitialised, ErrFormat.
func ParseWALIndex(b []byte) (WALIndex, error) {
	if len(b) < WALIndexSize {
		return WALIndex{}, fmt.Errorf("%w: %d bytes", ErrUninitialised, len(b))
	}
	if !bytes.Equal(b[:walIndexCopy], b[walIndexCopy:2*walIndexCopy]) {
		return WALIndex{}, fmt.Errorf("%w: the two copies differ", ErrTorn)
	}
	if b[12] == 0 {
		return WALIndex{}, ErrUninitialised
	}
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	if sum := (Checksum{}).Add(nativeBigEndian(), b[:walIndexSummed]); sum != (Checksum{u32(40), u32(44)}) {
		return WALIndex{}, fmt.Errorf("%w: %w", ErrTorn, ErrChecksum)
	}
	x := WALIndex{
		Version:           u32(0),
		Change:            u32(8),
		BigEndian:         b[13] != 0,
		PageSize:          decodePageSize(binary.NativeEndian.Uint16(b[14:])),
		MaxFrame:          u32(16),
		Pages:             u32(20),
		Checksum:          Checksum{u32(24), u32(28)},
		Salt1:             binary.BigEndian.Uint32(b[32:]),
		Salt2:             binary.BigEndian.Uint32(b[36:]),
		Backfilled:        u32(96),
		BackfillAttempted: u32(128),
	}
	for i := range x.ReadMarks {
		x.ReadMarks[i] = u32(100 + 4*i)
	}
	// An empty WAL says nothing of pages: recovery then leaves size 0.
	if x.Version != walIndexVersion || !validPageSize(x.PageSize) && (x.PageSize != 0 || x.MaxFrame != 0) {
		return WALIndex{}, fmt.Errorf("%w: wal-index version %d, page size %d", ErrFormat, x.Version, x.PageSize)
	}
	return x, nil
}

// A -shm file is made of blocks. Each begins with the page numbers of its frames, the first
// after what WALIndex describes.
const (
	walIndexBlock       = 1 << 15
	walIndexBlockFrames = walIndexBlock / 2 / 4
)

// FramePages returns the page number of each of the frames 1 to last, of which none may be
// beyond WALIndex.MaxFrame. While the WAL is not held they may be of another generation.
func FramePages(f *Files, last uint32) ([]uint32, error) {
	d, err := f.held(&f.shm, ErrNoWALIndex)
	if err != nil {
		return nil, err
	}
	var pages []uint32
	block := make([]byte, walIndexBlock/2)
	for at, skip := int64(0), WALIndexSize; uint32(len(pages)) < last; at, skip = at+walIndexBlock, 0 {
		want := block[:min((int(last)-len(pages))*4, walIndexBlockFrames*4-skip)]
		if _, err := d.ReadAt(want, at+int64(skip)); err != nil {
			return nil, fmt.Errorf("read page numbers of %s-shm: %w", f.path, err)
		}
		for ; len(want) > 0; want = want[4:] {
			pages = append(pages, binary.NativeEndian.Uint32(want))
		}
	}
	return pages, nil
}

func nativeBigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }
