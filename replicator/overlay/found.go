package overlay

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
)

// ErrMissing says that a page is neither in the main file nor in the WAL.
var ErrMissing = errors.New("page is neither in the file nor in the wal")

// Found is what a comparison of a database with its page checksums has found so far. It is not for concurrent use.
type Found struct {
	newer map[uint32]ltx.Checksum // pages of the WAL, which the main file does not have, or not for certain
	pages *Pages                  // to be shipped, those of the WAL included; nil once they are too many
	spare *Pages                  // those that were too many, until drop
}

// NewFound returns an empty Found, which puts what is to be shipped into pages.
func NewFound(pages *Pages) *Found {
	return &Found{newer: map[uint32]ltx.Checksum{}, pages: pages}
}

// Newer returns the checksum of a page's version that takes precedence over the main file's, if there is one.
func (f *Found) Newer(page uint32) (ltx.Checksum, bool) { sum, ok := f.newer[page]; return sum, ok }

// Missing returns the first of the given number of pages that is neither in a main file of size bytes nor in the WAL, 0
// where there is none. What was backfilled before the WAL was read is in the file; what was not has been taken.
func (f *Found) Missing(size int64, pageSize int, pages uint32) uint32 {
	lock := ltx.LockPgno(uint32(pageSize))
	for page := size/int64(pageSize) + 1; page <= int64(pages); page++ {
		if _, newer := f.Newer(uint32(page)); !newer && uint32(page) != lock {
			return uint32(page)
		}
	}
	return 0
}

// Pages returns the pages to be shipped; nil when there was not enough room for them.
func (f *Found) Pages() *Pages { return f.pages }

// Take takes a page's newest version, which is from the WAL.
func (f *Found) Take(page uint32, data []byte) error {
	sum := pagecrc.Page(page, data)
	f.newer[page] = sum
	return f.Ship(page, data)
}

// Ship takes a page that differs. When there are too many, replicas will read the
// database itself instead.
func (f *Found) Ship(page uint32, data []byte) error {
	if f.pages == nil {
		return nil
	}
	err := f.pages.Put(page, data)
	if errors.Is(err, ErrRoom) {
		f.pages, f.spare = nil, f.pages // to remove a file may take long, and others may wait
		return nil
	}
	return err
}

// Prepare makes the file that Take and Ship may need, before others wait for them.
func (f *Found) Prepare() {
	if f.pages != nil {
		f.pages.Prepare()
	}
}

// drop releases pages that were too many.
func (f *Found) drop() error {
	if f.spare == nil {
		return nil
	}
	err := f.spare.Close()
	f.spare = nil
	return err
}

// ReadMain reads the given number of pages of a main file, in portions of portion bytes, and calls before ahead of
// each portion. It adds each page's checksum to sums, and ships the pages whose checksum is not the known one. It
// ends early where the file does: the file may have shrunk meanwhile.
func (f *Found) ReadMain(
	main io.ReaderAt, pageSize int, pages uint32, portion int, sums *pagesums.Writer,
	known func() (ltx.Checksum, error), before func() error,
) error {
	perPortion := max(1, min(uint32(portion/pageSize), pages))
	data, lock := make([]byte, int(perPortion)*pageSize), ltx.LockPgno(uint32(pageSize))
	for first := uint64(1); first <= uint64(pages); first += uint64(perPortion) {
		if err := errors.Join(before(), f.drop()); err != nil {
			return err
		}
		n, err := main.ReadAt(data, int64(first-1)*int64(pageSize))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read database: %w", err)
		}
		for i := 0; i < int(perPortion) && first+uint64(i) <= uint64(pages); i++ {
			page := uint32(first) + uint32(i)
			was, err := known()
			if err != nil {
				return err
			}
			sum, newer := f.Newer(page)
			switch {
			case page == lock:
				sum = 0
			case newer:
			case (i+1)*pageSize > n:
				return nil
			default:
				sum = pagecrc.Page(page, data[i*pageSize:(i+1)*pageSize])
				if sum != was {
					err = f.Ship(page, data[i*pageSize:(i+1)*pageSize])
				}
			}
			if err := errors.Join(err, sums.Add(sum)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Patch turns the sums of what was read into those of the resulting database, which has the given number of pages:
// pages from the WAL replace those of the main file. Errors: ErrMissing.
func (f *Found) Patch(sums *pagesums.Writer, pageSize int, pages uint32) error {
	lock := ltx.LockPgno(uint32(pageSize))
	for page := sums.Pages() + 1; page <= pages; page++ {
		if _, ok := f.newer[page]; !ok && page != lock {
			return fmt.Errorf("page %d of %d: %w", page, pages, ErrMissing)
		}
	}
	var changes []pagesums.Change
	for _, page := range slices.Sorted(maps.Keys(f.newer)) {
		if page <= pages && page != lock {
			changes = append(changes, pagesums.Change{Page: page, Sum: f.newer[page]})
		}
	}
	return sums.Patch(changes, pages)
}

// Close releases the pages. It may be called again.
func (f *Found) Close() error {
	err := f.drop()
	if f.pages != nil {
		err = errors.Join(err, f.pages.Close())
	}
	return err
}
