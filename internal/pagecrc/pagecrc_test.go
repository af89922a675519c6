package pagecrc

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

// TestCRC compares our CRC with the standard library's, at every length that takes a different code
// path, and from any start value.
func TestCRC(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	sizes := []int{512, 1024, 4096, 65536}
	for n := range 200 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for _, start := range []uint64{0, ^uint64(0), rnd.Uint64()} {
			if got, want := Update(start, data[:n]), crc64.Update(start, table, data[:n]); got != want {
				t.Fatalf("%d bytes from %x: %x, want %x", n, start, got, want)
			}
		}
	}
	for bit := range 1024 { // each bit alone
		one := make([]byte, 160)
		one[bit/8] = 1 << (bit % 8)
		if got, want := Update(0, one), crc64.Checksum(one, table); got != want {
			t.Fatalf("bit %d: %x, want %x", bit, got, want)
		}
	}
}

func TestCRCOfPagesJoins(t *testing.T) {
	for _, size := range []int{512, 4096, 65536} {
		rnd := rand.New(rand.NewPCG(1, uint64(size)))
		page, before := make([]byte, size), make([]byte, 110)
		for i := range page {
			page[i] = byte(rnd.Uint32())
		}
		for i := range before {
			before[i] = byte(rnd.Uint32())
		}
		shift := NewShift(size)
		want := crc64.Checksum(append(before, page...), table)
		if got := shift.Join(crc64.Checksum(before, table), Update(0, page)); got != want {
			t.Errorf("page size %d: joined %x, want %x", size, got, want)
		}
		if got, want := shift.Page(77, Update(0, page)), ltx.ChecksumPage(77, page); got != want {
			t.Errorf("page size %d: page checksum %s, want %s", size, got, want)
		}
	}
}

// BenchmarkCRC compares the standard library's CRC of pages with ours.
func BenchmarkCRC(b *testing.B) {
	pages := make([]byte, 1<<20)
	var sum uint64
	var theirs, ours time.Duration
	for b.Loop() {
		start := time.Now()
		for p := pages; len(p) > 0; p = p[4096:] {
			sum ^= crc64.Update(sum, table, p[:4096])
		}
		theirs += time.Since(start)
		start = time.Now()
		for p := pages; len(p) > 0; p = p[4096:] {
			sum ^= Update(sum, p[:4096])
		}
		ours += time.Since(start)
	}
	b.ReportMetric(float64(theirs)/float64(ours), "crc64/ours")
	b.ReportMetric(float64(len(pages)*b.N)/1e6/ours.Seconds(), "MB/s")
}
