package cksum

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// sealed returns a page with its checksum, as the extension's documentation defines it.
func sealed(size int, first byte) []byte {
	page := make([]byte, size)
	for i := range size - Reserved {
		page[i] = first + byte(i*i>>3)
	}
	var s1, s2 uint32
	words := make([]uint32, (size-Reserved)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(page[4*i:])
	}
	for len(words) > 0 {
		s1 += words[0] + s2
		s2 += words[1] + s1
		words = words[2:]
	}
	binary.LittleEndian.PutUint32(page[size-8:], s1)
	binary.LittleEndian.PutUint32(page[size-4:], s2)
	return page
}

func TestHas_D74(t *testing.T) {
	t.Parallel()
	torn := append(sealed(512, 1), sealed(512, 2)...)
	torn[100]++
	plain := bytes.Repeat([]byte{1, 2, 3, 4}, 1024)
	for _, tc := range []struct {
		name     string
		main     []byte
		size     int
		reserved int
		want     bool
	}{
		{"checksums", sealed(4096, 7), 4096, 8, true},
		{"another page size", sealed(512, 7), 512, 8, true},
		{"first page is being written", torn, 512, 8, true},
		{"nothing reserved", sealed(4096, 7), 4096, 0, false},
		{"reserved for something else", plain, 4096, 8, false},
		{"zeros", make([]byte, 8192), 4096, 8, false},
		{"short", sealed(512, 7)[:300], 512, 8, false},
	} {
		if got := Has(bytes.NewReader(tc.main), tc.size, tc.reserved); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
