package dbfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

func encodeWALIndex(x WALIndex) []byte {
	b := make([]byte, WALIndexSize)
	put := func(off int, v uint32) { binary.NativeEndian.PutUint32(b[off:], v) }
	put(0, x.Version)
	put(8, x.Change)
	b[12] = 1
	if x.BigEndian {
		b[13] = 1
	}
	size := x.PageSize
	if size == 65536 {
		size = 1
	}
	binary.NativeEndian.PutUint16(b[14:], uint16(size))
	put(16, x.MaxFrame)
	put(20, x.Pages)
	put(24, x.Checksum[0])
	put(28, x.Checksum[1])
	binary.BigEndian.PutUint32(b[32:], x.Salt1)
	binary.BigEndian.PutUint32(b[36:], x.Salt2)
	sealWALIndex(b)
	put(96, x.Backfilled)
	for i, m := range x.ReadMarks {
		put(100+4*i, m)
	}
	put(128, x.BackfillAttempted)
	return b
}

// sealWALIndex computes the checksum of the first copy and repeats that copy.
func sealWALIndex(b []byte) {
	sum := slowSum(Checksum{}, nativeBigEndian(), b[:walIndexSummed])
	binary.NativeEndian.PutUint32(b[40:], sum[0])
	binary.NativeEndian.PutUint32(b[44:], sum[1])
	copy(b[walIndexCopy:], b[:walIndexCopy])
}

func sampleWALIndex() WALIndex {
	return WALIndex{
		Version: walIndexVersion, Change: 9, BigEndian: true, PageSize: 4096, MaxFrame: 11, Pages: 12,
		Checksum: Checksum{13, 14}, Salt1: 15, Salt2: 16, Backfilled: 17,
		ReadMarks: [5]uint32{18, 19, 20, 21, 0xffffffff}, BackfillAttempted: 22,
	}
}

func TestWALIndexRoundTrip(t *testing.T) {
	for _, size := range []int{512, 1024, 4096, 32768, 65536} {
		t.Run(fmt.Sprintf("D18_%d", size), func(t *testing.T) {
			want := sampleWALIndex()
			want.PageSize = size
			got, err := ParseWALIndex(encodeWALIndex(want))
			if err != nil || got != want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// TestWALIndexFlips flips every bit. In the two copies each flip must be noticed, in one copy and
// in both at once; beyond them, where there is no checksum, a flip must change the field's value.
func TestWALIndexFlips(t *testing.T) {
	good := encodeWALIndex(sampleWALIndex())
	orig, err := ParseWALIndex(good)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * WALIndexSize {
		off, mask := bit/8, byte(1<<(bit%8))
		b := bytes.Clone(good)
		b[off] ^= mask
		got, err := ParseWALIndex(b)
		switch {
		case off < 2*walIndexCopy:
			if !errors.Is(err, ErrTorn) {
				t.Errorf("byte %d bit %d, one copy: got %v, want ErrTorn", off, bit%8, err)
			}
		case off >= 120 && off < 128 || off >= 132: // lock bytes and what follows: not data
			if err != nil || got != orig {
				t.Errorf("byte %d: got %+v, %v, want no difference", off, got, err)
			}
		case err != nil || got == orig:
			t.Errorf("byte %d bit %d: not noticed (%v)", off, bit%8, err)
		}
		if off >= walIndexCopy {
			continue
		}
		b[off+walIndexCopy] ^= mask
		want := ErrTorn
		if off == 12 && mask == 1 {
			want = ErrUninitialised
		}
		if _, err := ParseWALIndex(b); !errors.Is(err, want) {
			t.Errorf("byte %d bit %d, both copies: got %v, want %v", off, bit%8, err, want)
		}
	}
}

func TestWALIndexStates(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte)
		want   error
	}{
		{"zeroed", func(b []byte) { clear(b) }, ErrUninitialised},
		{"other_version", func(b []byte) { binary.NativeEndian.PutUint32(b, 3007001); sealWALIndex(b) }, ErrFormat},
		{"page_size_300", func(b []byte) { binary.NativeEndian.PutUint16(b[14:], 300); sealWALIndex(b) }, ErrFormat},
		{"no_page_size_but_frames", func(b []byte) { binary.NativeEndian.PutUint16(b[14:], 0); sealWALIndex(b) }, ErrFormat},
		{"no_page_size_no_frames", func(b []byte) { clear(b[14:32]); sealWALIndex(b) }, nil},
		{"backfilled_beyond_head", func(b []byte) { binary.NativeEndian.PutUint32(b[96:], 1<<30) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := encodeWALIndex(sampleWALIndex())
			tt.change(b)
			if _, err := ParseWALIndex(b); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := ParseWALIndex(make([]byte, WALIndexSize-1)); !errors.Is(err, ErrUninitialised) {
		t.Errorf("short: got %v, want ErrUninitialised", err)
	}
}

func FuzzParseWALIndex(f *testing.F) {
	f.Add(encodeWALIndex(sampleWALIndex()))
	f.Add(make([]byte, WALIndexSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 2*walIndexCopy { // with a valid checksum, because otherwise only ErrTorn is ever seen
			sealWALIndex(b)
		}
		x, err := ParseWALIndex(b)
		if err != nil {
			return
		}
		again, err := ParseWALIndex(encodeWALIndex(x))
		if err != nil || again != x {
			t.Errorf("got %+v, %v after a round trip of %+v", again, err, x)
		}
	})
}
