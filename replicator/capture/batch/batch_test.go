package batch

import (
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// TestGrowth: if the database grew by a page that is not in the WAL, something was missed (D9). The
// lock page is never in the WAL, so it proves nothing (D17).
func TestGrowth(t *testing.T) {
	t.Parallel()
	const size = 65536
	lock := ltx.LockPgno(size)
	put := func(pages ...uint32) *Batch {
		b := &Batch{WALHeader: dbfile.WALHeader{PageSize: size}, Lowest: pages[0]}
		for _, page := range pages[1:] {
			b.Put(page, page, make([]byte, size))
		}
		return b
	}
	for _, c := range []struct {
		name     string
		b        *Batch // put's first number is the smallest size that the database had in between
		from, to uint32
		missing  bool
	}{
		{"all there", put(4, 1, 5, 6), 4, 6, false},
		{"D9 one missing", put(4, 1, 5, 7), 4, 7, true},
		{"D9 shrunk and grown again", put(3, 1, 5, 6), 6, 6, true},
		{"D17 across the lock page", put(lock-1, 1, lock+1), lock - 1, lock + 1, false},
		{"smaller", put(2, 1), 4, 2, false},
	} {
		if got := c.b.Missing(c.from, c.to); got > 0 != c.missing {
			t.Errorf("%s: %d are missing, want some: %v", c.name, got, c.missing)
		}
	}
}

// TestBatchSpill: a batch yields the same pages and checksums when its frames no longer fit in
// memory.
func TestBatchSpill(t *testing.T) {
	t.Parallel()
	const size, frames = 65536, 2000
	rnd := rand.New(rand.NewPCG(5, 6))
	b := &Batch{WALHeader: dbfile.WALHeader{PageSize: size}}
	wal := make(sparseWAL)
	newest := make(map[uint32]uint32)
	data := make([]byte, size)
	for frame := uint32(1); frame <= frames; frame++ {
		page := 1 + uint32(rnd.IntN(700))
		for i := 0; i < size; i += 512 {
			data[i] = byte(rnd.Uint32())
		}
		wal[b.WALHeader.FrameOffset(frame)+dbfile.FrameHeaderSize] = string(data)
		newest[page] = frame
		b.Put(page, frame, data)
	}
	if !b.spilled || len(b.data) != 0 {
		t.Fatalf("%d frames of %d bytes: spilled %v, %d bytes kept", frames, size, b.spilled, len(b.data))
	}
	last, n := uint32(0), 0
	for page, v := range b.Pages(wal, 650) {
		if page <= last || page > 650 {
			t.Fatalf("page %d after %d", page, last)
		}
		if v.Err != nil || v.Frame != newest[page] || v.Sum != ltx.ChecksumPage(page, v.Data) {
			t.Fatalf("page %d: frame %d, want %d; checksum right: %v; %v", page, v.Frame, newest[page],
				v.Sum == ltx.ChecksumPage(page, v.Data), v.Err)
		}
		last, n = page, n+1
		delete(newest, page)
	}
	for page := range newest {
		if page <= 650 {
			t.Errorf("page %d was not yielded", page)
		}
	}
}

// sparseWAL holds pages by their offset in the WAL.
type sparseWAL map[int64]string

func (w sparseWAL) ReadAt(p []byte, off int64) (int, error) { return copy(p, w[off]), nil }
