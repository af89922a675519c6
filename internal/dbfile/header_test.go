package dbfile

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// sampleHeader is a valid header with a different value in each field.
func sampleHeader() []byte {
	b := make([]byte, DatabaseHeaderSize)
	copy(b, databaseMagic)
	binary.BigEndian.PutUint16(b[16:], 4096)
	copy(b[18:], []byte{2, 2, 7, 64, 32, 32})
	for i, off := range []int{24, 28, 32, 36, 40, 44, 52, 56, 60, 64, 68, 92, 96} {
		binary.BigEndian.PutUint32(b[off:], uint32(i+1))
	}
	return b
}

func TestParseDatabaseHeader(t *testing.T) {
	got, err := ParseDatabaseHeader(sampleHeader())
	if err != nil {
		t.Fatal(err)
	}
	want := DatabaseHeader{
		PageSize: 4096, WriteVersion: 2, ReadVersion: 2, ReservedBytes: 7,
		ChangeCounter: 1, Pages: 2, FreelistTrunk: 3, FreelistPages: 4, SchemaCookie: 5, SchemaFormat: 6,
		LargestRoot: 7, TextEncoding: 8, UserVersion: 9, IncrementalVacuum: 10, ApplicationID: 11,
		VersionValidFor: 12, LibraryVersion: 13,
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestDatabaseHeaderFlips flips each byte: bytes that SQLite insists on must be refused, and
// every other byte with a meaning must change the result.
func TestDatabaseHeaderFlips(t *testing.T) {
	orig, err := ParseDatabaseHeader(sampleHeader())
	if err != nil {
		t.Fatal(err)
	}
	unread := func(off int) bool { return off >= 48 && off < 52 || off >= 72 && off < 92 }
	refused := func(off int) bool {
		return off < 16 || off == 16 || off == 17 || off == 19 || off >= 21 && off <= 23
	}
	for off := range DatabaseHeaderSize {
		b := sampleHeader()
		b[off] ^= 0xff
		got, err := ParseDatabaseHeader(b)
		switch {
		case refused(off) && !errors.Is(err, ErrNotDatabase):
			t.Errorf("byte %d flipped: got %v, want ErrNotDatabase", off, err)
		case !refused(off) && err != nil:
			t.Errorf("byte %d flipped: SQLite does not mind, we say %v", off, err)
		case !refused(off) && !unread(off) && got == orig:
			t.Errorf("byte %d flipped: not noticed", off)
		}
	}
}

// TestHeaderLies/D20 asks SQLite what it makes of each wrong header, and expects the same from
// ParseDatabaseHeader.
func TestHeaderLies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := startApp(t, filepath.Join(dir, "good.db"))
	a.do(`c = connect(); c.execute("pragma page_size=512"); c.execute("create table t(v)"); c.close()`)
	good, err := os.ReadFile(filepath.Join(dir, "good.db"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(b []byte)
	}{
		{"untouched", func([]byte) {}},
		{"page_count_too_large", func(b []byte) { binary.BigEndian.PutUint32(b[28:], 9999) }},
		{"page_count_zero", func(b []byte) { binary.BigEndian.PutUint32(b[28:], 0) }},
		{"reserved_32", func(b []byte) { b[20] = 32 }},
		{"reserved_33", func(b []byte) { b[20] = 33 }},
		{"reserved_255", func(b []byte) { b[20] = 255 }},
		{"write_version_3", func(b []byte) { b[18] = 3 }},
		{"read_version_3", func(b []byte) { b[19] = 3 }},
		{"page_size_0", func(b []byte) { b[16], b[17] = 0, 0 }},
		{"page_size_256", func(b []byte) { b[16], b[17] = 1, 0 }},
		{"page_size_513", func(b []byte) { b[16], b[17] = 2, 1 }},
		{"page_size_1000", func(b []byte) { b[16], b[17] = 3, 232 }},
		{"payload_fraction", func(b []byte) { b[22] = 31 }},
		{"magic_version_2", func(b []byte) { b[14] = '2' }},
		{"reserved_region", func(b []byte) { b[80] = 1 }},
	}
	for i, tt := range tests {
		t.Run("D20_"+tt.name, func(t *testing.T) {
			b := append([]byte(nil), good...)
			tt.change(b)
			path := filepath.Join(dir, fmt.Sprintf("lie%d.db", i))
			writeFile(t, path, b)
			want := a.do("r = is_database(%q)", path) == "True"
			if _, err := ParseDatabaseHeader(b); (err == nil) != want {
				t.Errorf("got %v, but SQLite says is a database: %v", err, want)
			} else if err != nil && !errors.Is(err, ErrNotDatabase) {
				t.Errorf("got %v, want ErrNotDatabase", err)
			}
		})
	}
}

func TestEngineVersion(t *testing.T) {
	for v, want := range map[uint32]string{0: "", 3040001: "3.40.1", 3054001: "3.54.1", 3007000: "3.7.0",
		3008011: "3.8.11"} {
		if got := EngineVersion(v); got != want {
			t.Errorf("EngineVersion(%d): got %q, want %q", v, got, want)
		}
	}
}

func TestHasWALResetBug(t *testing.T) {
	for v, want := range map[uint32]bool{
		0: false, 3006023: false, 3007000: true, 3040001: true,
		3044005: true, 3044006: false, 3044009: false, 3045000: true,
		3050006: true, 3050007: false, 3051000: true, 3051002: true, 3051003: false, 3054001: false,
	} {
		if got := HasWALResetBug(v); got != want {
			t.Errorf("HasWALResetBug(%d): got %v, want %v", v, got, want)
		}
	}
}

// TestLockPage/D17: the lock page begins at 1 GiB whatever the page size.
func TestLockPage(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		t.Run(fmt.Sprintf("D17_%d", size), func(t *testing.T) {
			if got := int64(LockPage(size)-1) * int64(size); got != 1<<30 {
				t.Errorf("page %d begins at %d, want %d", LockPage(size), got, 1<<30)
			}
		})
	}
}

func FuzzParseDatabaseHeader(f *testing.F) {
	f.Add(sampleHeader())
	f.Add([]byte("SQLite format 3"))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseDatabaseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrNotDatabase) {
				t.Errorf("got %v, want ErrNotDatabase", err)
			}
			return
		}
		if !validPageSize(h.PageSize) || h.PageSize-h.ReservedBytes < 480 {
			t.Errorf("accepted page size %d with %d reserved", h.PageSize, h.ReservedBytes)
		}
	})
}

// This is a header of SQLCipher 4.5.5 with cipher_plaintext_header_size=32: from byte 32 on it is
// encrypted.
func TestEncryptedBehindPlainHeader(t *testing.T) {
	t.Parallel()
	b, err := hex.DecodeString("53514c69746520666f726d617420330010000202504020200000000200000002" +
		"6447df44ef6eb2332d5b4b3dfa82527d627fde6ca0d1ba726f31487889120bd87402" +
		"23390d88cf88a11fb9a66013063a61dd1ad165566ec557849ae8ce372bf7de52c7dc")
	if err != nil {
		t.Fatal(err)
	}
	if h, err := ParseDatabaseHeader(b); err != nil || !h.Encrypted || !h.WAL() {
		t.Errorf("got %+v, %v", h, err)
	}
	plain := sampleHeader()
	plain[47] = 4                          // the newest format
	for _, change := range []int{47, 80} { // a future format, a reserved byte in use: neither alone shows encryption
		plain[change] ^= 0x10
		if h, err := ParseDatabaseHeader(plain); err != nil || h.Encrypted {
			t.Errorf("byte %d changed: %+v, %v", change, h, err)
		}
		plain[change] ^= 0x10
	}
}
