// Package dbfile reads SQLite's files as bytes: the database header, the WAL, the wal-index and the lock bytes. It
// writes nothing, creates nothing, takes no locks but those of StandBack, Rejoin and Replacing, and is the only
// package that opens a watched file.
//
// It exists because a POSIX lock dies with any close of its inode in the process: SQLite's locks in this process
// survive only if each file is opened once, before the first SQL connection, and closed after the last one. Files
// keeps that promise; docs/formats.md describes the formats.
package dbfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// DatabaseHeaderSize is how many bytes at the start of page 1 are the header.
const DatabaseHeaderSize = 100

// databaseMagic opens every SQLite 3 database.
const databaseMagic = "SQLite format 3\x00"

// DatabaseHeader is the first 100 bytes of a database, big-endian:
//
//	offset size  field
//	     0   16  "SQLite format 3\0"
//	    16    2  PageSize: 512 to 32768, or 1 for 65536
//	    18    1  WriteVersion: 1 rollback journal, 2 WAL
//	    19    1  ReadVersion: likewise; above 2 SQLite refuses to read
//	    20    1  ReservedBytes at the end of each page
//	    21    3  payload fractions: always 64, 32, 32
//	    24    4  ChangeCounter: not raised by every commit in WAL mode
//	    28    4  Pages: trusted only while ChangeCounter = VersionValidFor
//	    32    4  FreelistTrunk: first page of the freelist
//	    36    4  FreelistPages
//	    40    4  SchemaCookie: raised with each change of the schema
//	    44    4  SchemaFormat: 1 to 4, 0 in a database without a schema
//	    52    4  LargestRoot: not 0 means auto_vacuum
//	    56    4  TextEncoding: 1 UTF-8, 2 UTF-16le, 3 UTF-16be
//	    60    4  UserVersion
//	    64    4  IncrementalVacuum: not 0 means incremental auto_vacuum
//	    68    4  ApplicationID
//	    92    4  VersionValidFor: ChangeCounter when Pages was written
//	    96    4  LibraryVersion that last wrote page 1, as 3040001
//
// In WAL mode this is the page as of the last checkpoint; newer values may
// stand in the WAL.
type DatabaseHeader struct {
	PageSize          int
	WriteVersion      byte
	ReadVersion       byte
	ReservedBytes     int
	ChangeCounter     uint32
	Pages             uint32
	FreelistTrunk     uint32
	FreelistPages     uint32
	SchemaCookie      uint32
	SchemaFormat      uint32
	LargestRoot       uint32
	TextEncoding      uint32
	UserVersion       uint32
	IncrementalVacuum uint32
	ApplicationID     uint32
	VersionValidFor   uint32
	LibraryVersion    uint32
	Encrypted         bool // the header is plain, but has an unknown schema format and values where SQLite leaves zeros
}

// ParseDatabaseHeader decodes the first bytes of a database file. It refuses,
// with ErrNotDatabase, what SQLite itself refuses with "file is not a
// database", and no more: the header carries no checksum.
func ParseDatabaseHeader(b []byte) (DatabaseHeader, error) {
	if len(b) < DatabaseHeaderSize {
		return DatabaseHeader{}, fmt.Errorf("%w: %d bytes, a header has %d", ErrNotDatabase, len(b), DatabaseHeaderSize)
	}
	if !bytes.HasPrefix(b, []byte(databaseMagic)) {
		return DatabaseHeader{}, fmt.Errorf("%w: it does not begin with %q (another file, or encrypted)", ErrNotDatabase,
			databaseMagic[:15])
	}
	u32 := func(off int) uint32 { return binary.BigEndian.Uint32(b[off:]) }
	h := DatabaseHeader{
		PageSize:          decodePageSize(binary.BigEndian.Uint16(b[16:])),
		WriteVersion:      b[18],
		ReadVersion:       b[19],
		ReservedBytes:     int(b[20]),
		ChangeCounter:     u32(24),
		Pages:             u32(28),
		FreelistTrunk:     u32(32),
		FreelistPages:     u32(36),
		SchemaCookie:      u32(40),
		SchemaFormat:      u32(44),
		LargestRoot:       u32(52),
		TextEncoding:      u32(56),
		UserVersion:       u32(60),
		IncrementalVacuum: u32(64),
		ApplicationID:     u32(68),
		VersionValidFor:   u32(92),
		LibraryVersion:    u32(96),
	}
	h.Encrypted = h.SchemaFormat > 4 && bytes.ContainsFunc(b[72:92], func(r rune) bool { return r != 0 })
	switch {
	case !validPageSize(h.PageSize):
		return h, fmt.Errorf("%w: page size %d", ErrNotDatabase, h.PageSize)
	case h.ReadVersion > 2:
		return h, fmt.Errorf("%w: read version %d, SQLite reads 1 and 2", ErrNotDatabase, h.ReadVersion)
	case b[21] != 64 || b[22] != 32 || b[23] != 32:
		return h, fmt.Errorf("%w: payload fractions %d %d %d, not 64 32 32", ErrNotDatabase, b[21], b[22], b[23])
	case h.PageSize-h.ReservedBytes < 480:
		return h, fmt.Errorf("%w: %d reserved bytes leave %d of a page, SQLite needs 480", ErrNotDatabase, h.ReservedBytes,
			h.PageSize-h.ReservedBytes)
	}
	return h, nil
}

// WAL reports whether the database is in WAL mode: both versions are 2.
func (h DatabaseHeader) WAL() bool { return h.WriteVersion == 2 && h.ReadVersion == 2 }

// PagesValid reports whether Pages can be trusted. Where it cannot, a writer
// older than SQLite 3.7.0 was at work and the file's size decides.
func (h DatabaseHeader) PagesValid() bool {
	return h.Pages > 0 && h.ChangeCounter == h.VersionValidFor
}

// LockPage returns the number of the page that holds the lock bytes. SQLite
// never stores anything in it; a database below 1 GiB does not have it.
func LockPage(pageSize int) uint32 { return uint32(pendingByte/pageSize) + 1 }

// decodePageSize undoes the header's trick to fit 65536 into 16 bits.
func decodePageSize(v uint16) int {
	if v == 1 {
		return 65536
	}
	return int(v)
}

func validPageSize(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// EngineVersion writes a library version as people do: 3040001 is "3.40.1".
// Zero, which writers before SQLite 3.7.0 leave, is "".
func EngineVersion(v uint32) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000)
}

// HasWALResetBug reports whether a library of this version can lose commits
// when a checkpoint starts just as a writer resets the WAL: 3.7.0 to 3.51.2,
// but for the fixed 3.44.6 and 3.50.7 and their successors.
func HasWALResetBug(v uint32) bool {
	switch minor := v / 1000; {
	case v < 3007000 || v >= 3051003:
		return false
	case minor == 3044:
		return v < 3044006
	case minor == 3050:
		return v < 3050007
	}
	return true
}
