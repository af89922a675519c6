// Package cksum recognises databases whose pages carry checksums: SQLite's extension
// cksumvfs reserves 8 bytes at the end of each page for one, and so do drivers that
// imitate it. A page that is written without such a checksum cannot be read any more
// by an application that has the extension.
package cksum

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Reserved is how many bytes of each page such a database reserves.
const Reserved = 8

// Valid reports whether the page ends with the checksum of what comes before, and is
// not all zero.
func Valid(page []byte) bool {
	n := len(page) - Reserved
	if n <= 0 || n%8 != 0 {
		return false
	}
	var s1, s2 uint32
	for i := 0; i < n; i += 8 {
		s1 += binary.LittleEndian.Uint32(page[i:]) + s2
		s2 += binary.LittleEndian.Uint32(page[i+4:]) + s1
	}
	var want [Reserved]byte
	binary.LittleEndian.PutUint32(want[:], s1)
	binary.LittleEndian.PutUint32(want[4:], s2)
	return (s1|s2) != 0 && bytes.Equal(want[:], page[n:])
}

// looked is how many pages are looked at: one may be being written at this moment.
const looked = 8

// Has reports whether the database's pages carry checksums. main is the main file,
// whose header says the other two.
func Has(main io.ReaderAt, pageSize, reserved int) bool {
	if reserved != Reserved || pageSize <= 0 {
		return false
	}
	page := make([]byte, pageSize)
	for i := range int64(looked) {
		if n, _ := main.ReadAt(page, i*int64(pageSize)); n < pageSize {
			return false
		}
		if Valid(page) {
			return true
		}
	}
	return false
}
