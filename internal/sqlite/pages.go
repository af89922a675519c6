package sqlite

/*
#include "shim.h"
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"io"
	"unsafe"

	"github.com/sqlwatch/sqlwatch/internal/cksum"
)

// ErrPageChecksums says that the database's pages carry checksums that this SQLite does
// not write: one checkpoint of ours, and the application could not read it any more.
var ErrPageChecksums = errors.New("the database's pages carry checksums (cksumvfs, 8 reserved bytes): sqlwatch only " +
	"measures it and does not checkpoint or replicate it, " +
	"because a page without its checksum is an I/O error for the application; to have it replicated, rebuild it " +
	"without: .filectrl reserve_bytes 0 and VACUUM in the sqlite3 shell")

// pageChecksums reports whether the pages in the main file carry checksums. It reads
// through SQLite's own descriptor: opening another here would cost SQLite its locks.
func (c *Conn) pageChecksums() bool {
	main := mainFile{c.gate.file}
	if main.file == nil {
		return false
	}
	var header [100]byte
	if n, _ := main.ReadAt(header[:], 0); n < len(header) {
		return false
	}
	size := int(binary.BigEndian.Uint16(header[16:]))
	if size == 1 {
		size = 65536
	}
	return cksum.Has(main, size, int(header[20]))
}

// mainFile reads SQLite's main file.
type mainFile struct{ file *C.sqlite3_file }

// ReadAt reads all of b or nothing.
func (m mainFile) ReadAt(b []byte, off int64) (int, error) {
	rc := C.sqlwatch_real_read(m.file, unsafe.Pointer(&b[0]), C.int(len(b)), C.longlong(off))
	if rc != C.SQLITE_OK {
		return 0, io.ErrUnexpectedEOF
	}
	return len(b), nil
}
