package overlay

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
)

// frameRef is a page version in the WAL. The sum makes sure that the bytes that are
// read later are those whose running checksum was verified.
type frameRef struct {
	page, frame uint32
	sum         ltx.Checksum
}

// firstCompaction is the number of frame references at which superseded ones are
// dropped for the first time; then at every doubling.
const firstCompaction = 1 << 16

// framesPerLook is how many frames are read between two calls of look.
const framesPerLook = 1 << 11

// NotBackfilled calls f with the newest frame of each page up to x's commit, ascending by page, except for frames
// that are certainly backfilled. The caller holds the WAL, and read x after it began to hold it. The bytes are valid
// during the call. A WAL may be as large as its disk: look is called every few milliseconds, and its error ends the
// reading.
func NotBackfilled(files *dbfile.Files, x dbfile.WALIndex, look func() error,
	f func(page uint32, data []byte) error) error {
	if x.Backfilled >= x.MaxFrame {
		return nil
	}
	h, err := files.WALHeader()
	if err != nil {
		return err
	}
	wal := files.WAL()
	if wal == nil || h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		return fmt.Errorf("read wal of %s: %w", files.Path(), dbfile.ErrSalt)
	}
	var refs []frameRef
	s, compactAt := dbfile.NewFrameScanner(wal, h, h.Start(), x.MaxFrame), firstCompaction
	for s.Next() {
		if s.Position().Frame%framesPerLook == 0 {
			if err := look(); err != nil {
				return err
			}
		}
		if frame := s.Position().Frame; frame > x.Backfilled {
			refs = append(refs, frameRef{s.Frame().Page, frame, pagecrc.Page(s.Frame().Page, s.Page())})
		}
		if len(refs) >= compactAt {
			refs = newest(refs)
			compactAt = max(compactAt, 2*len(refs))
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	data := make([]byte, x.PageSize)
	for i, ref := range newest(refs) {
		if i%framesPerLook == framesPerLook-1 {
			if err := look(); err != nil {
				return err
			}
		}
		if _, err := wal.ReadAt(data, h.FrameOffset(ref.frame)+dbfile.FrameHeaderSize); err != nil {
			return fmt.Errorf("read wal frame %d: %w", ref.frame, err)
		}
		if pagecrc.Page(ref.page, data) != ref.sum {
			return fmt.Errorf("wal frame %d changed after it was verified: %w", ref.frame, dbfile.ErrChecksum)
		}
		if err := f(ref.page, data); err != nil {
			return err
		}
	}
	return nil
}

// newest keeps the newest frame of each page, ascending by page.
func newest(refs []frameRef) []frameRef {
	slices.SortFunc(refs, func(a, b frameRef) int {
		return cmp.Or(cmp.Compare(a.page, b.page), cmp.Compare(b.frame, a.frame))
	})
	return slices.CompactFunc(refs, func(a, b frameRef) bool { return a.page == b.page })
}
