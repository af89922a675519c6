//go:build linux && cgo

package sqlite

/*
#include "shim.h"
*/
import "C"

import (
	"encoding/binary"
	"io"
	"unsafe"

	"github.com/sqlwatch/sqlwatch/internal/cksum"
)

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
