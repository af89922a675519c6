package dbfile

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the WAL file's two headers in bytes.
const (
	WALHeaderSize   = 32
	FrameHeaderSize = 24
)

// The WAL's magic number; its lowest bit says that the checksums take the
// content as big-endian words. Writers pick their machine's own order.
const (
	walMagic   = 0x377f0682
	walVersion = 3007000
)

// WALHeader is the first 32 bytes of a -wal file, big-endian:
//
//	offset size  field
//	     0    4  magic 0x377f0682, or ...83 when BigEndian
//	     4    4  format version 3007000
//	     8    4  PageSize
//	    12    4  Sequence: +1 with each restart of the WAL
//	    16    4  Salt1: +1 with each restart, random at first
//	    20    4  Salt2: random for each restart
//	    24    8  Checksum of bytes 0 to 23
//
// Frames follow, each a FrameHeader and a page.
type WALHeader struct {
	BigEndian bool // checksums take the content as big-endian words
	PageSize  int
	Sequence  uint32
	Salt1     uint32
	Salt2     uint32
	Checksum  Checksum // where the first frame's checksum goes on
}

// ParseWALHeader decodes and verifies the start of a -wal file. Errors:
// ErrNoWAL for fewer than 32 bytes, ErrFormat, ErrChecksum.
func ParseWALHeader(b []byte) (WALHeader, error) {
	if len(b) < WALHeaderSize {
		return WALHeader{}, fmt.Errorf("%w: %d bytes", ErrNoWAL, len(b))
	}
	u32 := func(off int) uint32 { return binary.BigEndian.Uint32(b[off:]) }
	magic, version, pageSize := u32(0), u32(4), u32(8)
	if magic&^1 != walMagic {
		return WALHeader{}, fmt.Errorf("%w: magic %#08x", ErrFormat, magic)
	}
	h := WALHeader{
		BigEndian: magic&1 != 0,
		Sequence:  u32(12),
		Salt1:     u32(16),
		Salt2:     u32(20),
		Checksum:  Checksum{u32(24), u32(28)},
	}
	if sum := (Checksum{}).Add(h.BigEndian, b[:24]); sum != h.Checksum {
		return WALHeader{}, fmt.Errorf("wal header: %w: %08x, computed %08x", ErrChecksum, h.Checksum, sum)
	}
	if version != walVersion {
		return WALHeader{}, fmt.Errorf("%w: wal version %d", ErrFormat, version)
	}
	if pageSize > 65536 || !validPageSize(int(pageSize)) {
		return WALHeader{}, fmt.Errorf("%w: wal page size %d", ErrFormat, pageSize)
	}
	h.PageSize = int(pageSize)
	return h, nil
}

// FrameSize returns how many bytes one frame takes in the file.
func (h WALHeader) FrameSize() int { return FrameHeaderSize + h.PageSize }

// FrameOffset returns where a frame begins in the file; frame 1 is the first.
func (h WALHeader) FrameOffset(frame uint32) int64 {
	return WALHeaderSize + (int64(frame)-1)*int64(h.FrameSize())
}

// Start returns the position before the first frame.
func (h WALHeader) Start() Position { return Position{Checksum: h.Checksum} }

// Checksum is SQLite's running checksum of two 32-bit words. It is cumulative:
// a frame's value depends on every frame of the generation before it.
type Checksum [2]uint32

// Add continues the checksum over b, taken as 32-bit words of the given byte
// order. A length that is not a multiple of 8 leaves the rest out; the WAL has
// none such.
func (c Checksum) Add(bigEndian bool, b []byte) Checksum {
	s0, s1 := c[0], c[1]
	if bigEndian {
		for ; len(b) >= 8; b = b[8:] {
			x := binary.BigEndian.Uint64(b)
			s0 += uint32(x>>32) + s1
			s1 += uint32(x) + s0
		}
		return Checksum{s0, s1}
	}
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		s0 += uint32(x) + s1
		s1 += uint32(x>>32) + s0
	}
	return Checksum{s0, s1}
}
