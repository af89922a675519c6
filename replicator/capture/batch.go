package capture

import (
	"io"
	"iter"
	"slices"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// batchMemory is how many bytes of pages a batch keeps. A transaction may be
// larger than any memory: beyond it only their frames are remembered.
const batchMemory = 16 << 20

// refsFirstCompaction is the number of frame references at which superseded
// ones are dropped for the first time; then at every doubling.
const refsFirstCompaction = 1 << 16

// frameRef is a page version that is in the WAL. The sum makes sure that the
// bytes read later are those whose running checksum was verified.
type frameRef struct {
	page, frame uint32
	sum         ltx.Checksum
}

// batch is what was read from the WAL and is not in the spool yet: the newest
// version of each page, all of one WAL generation, ending at a commit.
type batch struct {
	walHeader dbfile.WALHeader
	from      dbfile.Position
	frames    uint32         // how many were read
	lowest    uint32         // the smallest size the database had meanwhile, in pages
	slots     map[uint32]int // page → its place in data
	data      []byte         // one page a slot; kept for the next batch
	refs      []frameRef     // used instead of slots when spilled
	spilled   bool
	compactAt int
}

func (b *batch) empty() bool { return b.frames == 0 }

func (b *batch) reset() {
	clear(b.slots)
	*b = batch{slots: b.slots, data: b.data[:0], refs: b.refs[:0]}
}

// put adds a page version, later ones replacing earlier ones.
func (b *batch) put(page, frame uint32, data []byte) {
	b.frames++
	if b.slots == nil {
		b.slots = make(map[uint32]int)
	}
	if !b.spilled {
		slot, ok := b.slots[page]
		switch {
		case ok:
			copy(b.data[slot*len(data):], data)
			b.refs[slot].frame = frame
			return
		case len(b.data)+len(data) <= batchMemory:
			b.slots[page] = len(b.refs)
			b.refs = append(b.refs, frameRef{page: page, frame: frame})
			b.data = append(b.data, data...)
			return
		}
		b.spill(len(data))
	}
	b.refs = append(b.refs, frameRef{page, frame, ltx.ChecksumPage(page, data)})
	if len(b.refs) >= b.compactAt {
		b.compact()
	}
}

// spill forgets the bytes and keeps their checksums.
func (b *batch) spill(pageSize int) {
	for i := range b.refs {
		b.refs[i].sum = ltx.ChecksumPage(b.refs[i].page, b.data[i*pageSize:(i+1)*pageSize])
	}
	clear(b.slots)
	b.data, b.spilled, b.compactAt = b.data[:0], true, refsFirstCompaction
}

// compact keeps the newest version of each page, in ascending order.
func (b *batch) compact() {
	slices.SortFunc(b.refs, func(x, y frameRef) int {
		if x.page != y.page {
			return int(int64(x.page) - int64(y.page))
		}
		return int(int64(y.frame) - int64(x.frame))
	})
	b.refs = slices.CompactFunc(b.refs, func(x, y frameRef) bool { return x.page == y.page })
	b.compactAt = max(refsFirstCompaction, 2*len(b.refs))
}

// pages yields the newest version of each page up to commit, ascending, without
// the lock page. The bytes are valid until the next one.
func (b *batch) pages(wal io.ReaderAt, commit uint32) iter.Seq2[uint32, pageVersion] {
	size := b.walHeader.PageSize
	lock := ltx.LockPgno(uint32(size))
	return func(yield func(uint32, pageVersion) bool) {
		order := make([]int, len(b.refs))
		if b.spilled {
			b.compact()
			order = order[:len(b.refs)]
		}
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(x, y int) int { return int(int64(b.refs[x].page) - int64(b.refs[y].page)) })
		buf := make([]byte, size)
		for _, i := range order {
			ref := b.refs[i]
			if ref.page > commit || ref.page == lock {
				continue
			}
			v := pageVersion{frame: ref.frame, sum: ref.sum}
			if b.spilled {
				v.data = buf
				_, v.err = wal.ReadAt(buf, b.walHeader.FrameOffset(ref.frame)+dbfile.FrameHeaderSize)
			} else {
				v.data = b.data[i*size : (i+1)*size]
			}
			if !yield(ref.page, v) {
				return
			}
		}
	}
}

// pageVersion is one page's content. sum is 0 where it was not computed yet.
type pageVersion struct {
	frame uint32
	data  []byte
	sum   ltx.Checksum
	err   error
}

// grew returns an error when a page by which the database grew is not in the
// batch: SQLite writes each of them to the WAL, so its lack proves that commits
// were missed.
func (b *batch) grew(from, to uint32) error {
	from = min(from, b.lowest)
	if to <= from {
		return nil
	}
	lock := ltx.LockPgno(uint32(b.walHeader.PageSize))
	missing := to - from
	if from < lock && lock <= to {
		missing--
	}
	if b.spilled {
		b.compact()
	}
	for _, ref := range b.refs {
		if from < ref.page && ref.page <= to && ref.page != lock {
			missing--
		}
	}
	if missing != 0 {
		return discontinuous(ReasonGrowth, "%d of the pages %d to %d", missing, from+1, to)
	}
	return nil
}
