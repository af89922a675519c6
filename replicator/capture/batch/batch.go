// Package batch keeps what was read from a WAL and is not in the spool yet: the newest
// version of each page, in bounded memory.
package batch

import (
	"bytes"
	"io"
	"iter"
	"slices"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
)

// memory is how many bytes of pages a batch keeps. A transaction may be larger than any memory: beyond this
// limit the batch keeps references to frames only.
const memory = 16 << 20

// firstCompaction is the number of frame references at which superseded
// ones are dropped for the first time; then at every doubling.
const firstCompaction = 1 << 16

// frameRef is a page version that is in the WAL. The sum makes sure that the bytes read later are those whose
// running checksum was verified.
type frameRef struct {
	page, frame uint32
	sum         ltx.Checksum
}

// Batch is the newest version of each page, all of one WAL generation, ending at a
// commit. It is not for concurrent use.
type Batch struct {
	WALHeader dbfile.WALHeader
	From      dbfile.Position
	Lowest    uint32 // the smallest size of the database on the way, in pages

	frames    uint32         // how many were read
	slots     map[uint32]int // page → its place in data
	data      []byte         // one page a slot; kept for the next batch
	refs      []frameRef     // one per slot; all that is kept when spilled
	spilled   bool
	compactAt int
}

// Empty reports whether nothing was read.
func (b *Batch) Empty() bool { return b.frames == 0 }

// Frames returns how many were read.
func (b *Batch) Frames() int { return int(b.frames) }

// Spilled reports whether there were more bytes than the batch keeps: they are read from the WAL again.
func (b *Batch) Spilled() bool { return b.spilled }

// Len returns an upper bound of the number of pages in the batch.
func (b *Batch) Len() int { return len(b.refs) }

// Reset empties the batch; its memory is kept.
func (b *Batch) Reset() {
	clear(b.slots)
	*b = Batch{slots: b.slots, data: b.data[:0], refs: b.refs[:0]}
}

// Put adds a page version, later ones replacing earlier ones.
func (b *Batch) Put(page, frame uint32, data []byte) {
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
		case len(b.data)+len(data) <= memory:
			b.slots[page] = len(b.refs)
			b.refs = append(b.refs, frameRef{page: page, frame: frame})
			b.data = append(b.data, data...)
			return
		}
		b.spill(len(data))
	}
	b.refs = append(b.refs, frameRef{page, frame, pagecrc.Page(page, data)})
	if len(b.refs) >= b.compactAt {
		b.compact()
	}
}

// Holds reports whether the version of the page that was put last is data.
func (b *Batch) Holds(page uint32, data []byte) bool {
	if b.spilled {
		last := b.refs[len(b.refs)-1]
		return last.page == page && last.sum == pagecrc.Page(page, data)
	}
	slot, ok := b.slots[page]
	return ok && bytes.Equal(b.data[slot*len(data):(slot+1)*len(data)], data)
}

// spill drops the bytes and keeps their checksums.
func (b *Batch) spill(pageSize int) {
	for i := range b.refs {
		b.refs[i].sum = pagecrc.Page(b.refs[i].page, b.data[i*pageSize:(i+1)*pageSize])
	}
	clear(b.slots)
	b.data, b.spilled, b.compactAt = b.data[:0], true, firstCompaction
}

// compact keeps the newest version of each page, in ascending order.
func (b *Batch) compact() {
	slices.SortFunc(b.refs, func(x, y frameRef) int {
		if x.page != y.page {
			return int(int64(x.page) - int64(y.page))
		}
		return int(int64(y.frame) - int64(x.frame))
	})
	b.refs = slices.CompactFunc(b.refs, func(x, y frameRef) bool { return x.page == y.page })
	b.compactAt = max(firstCompaction, 2*len(b.refs))
}

// Pages yields the newest version of each page up to commit, ascending, without the lock page. The bytes are
// valid until the next iteration.
func (b *Batch) Pages(wal io.ReaderAt, commit uint32) iter.Seq2[uint32, Version] {
	size := b.WALHeader.PageSize
	lock := ltx.LockPgno(uint32(size))
	return func(yield func(uint32, Version) bool) {
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
			v := Version{Frame: ref.frame, Sum: ref.sum}
			switch {
			case b.spilled && wal == nil:
				v.Err = dbfile.ErrNoWAL
			case b.spilled:
				v.Data = buf
				_, v.Err = wal.ReadAt(buf, b.WALHeader.FrameOffset(ref.frame)+dbfile.FrameHeaderSize)
			default:
				v.Data = b.data[i*size : (i+1)*size]
			}
			if !yield(ref.page, v) {
				return
			}
		}
	}
}

// Version is one page's content. Sum is 0 where it has not been computed.
type Version struct {
	Frame uint32
	Data  []byte
	Sum   ltx.Checksum
	Err   error
}

// Missing returns how many of the pages by which the database grew are not in the
// batch: SQLite writes each of them to the WAL, so the lack of one proves that commits
// were missed.
func (b *Batch) Missing(from, to uint32) uint32 {
	from = min(from, b.Lowest)
	if to <= from {
		return 0
	}
	lock := ltx.LockPgno(uint32(b.WALHeader.PageSize))
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
	return missing
}
