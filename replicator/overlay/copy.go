package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/superfly/ltx"
)

// block is how many bytes of the main file are read at a time.
const block = 1 << 20

// Copy is a database as it was when the Copy was made, read in portions from a main file that others write to. Its
// owner guarantees that a page is given to Keep or Preserve before it can change in the main file. So a page is in
// the main file as it was, or is kept:
//
//   - A portion is read first, and then those of its pages that are kept in the meantime
//     take the place of what was read. A page that was being written at that moment,
//     and may be torn, was kept before the write began, so it is replaced.
//   - A page that was handed out need not be kept any more.
//
// Methods may be called from any goroutine; Each from one at a time.
type Copy struct {
	main  io.ReaderAt
	size  int
	pages uint32

	mu    sync.Mutex
	next  uint32 // the first page that was not handed out
	kept  *Pages
	ended error // why it was given up
}

// NewCopy returns a Copy of the first pages of main.
func NewCopy(main io.ReaderAt, pageSize int, pages uint32, o Options) *Copy {
	return &Copy{main: main, size: pageSize, pages: pages, next: 1, kept: NewPages(pageSize, o)}
}

// Keep takes the page's version from the caller: the main file does not have it yet.
func (c *Copy) Keep(page uint32, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.needs(page) {
		c.endOn(c.kept.Put(page, data))
	}
}

// Preserve keeps what the main file has of a page that is about to change. A failure ends the copy and nothing else.
func (c *Copy) Preserve(page uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.needs(page) {
		return
	}
	data := make([]byte, c.size)
	if _, err := c.main.ReadAt(data, int64(page-1)*int64(c.size)); err != nil {
		c.endOn(fmt.Errorf("read page %d before it changes: %w", page, err))
		return
	}
	c.endOn(c.kept.Put(page, data))
}

// Prepare makes ready for Preserve, which others may wait for.
func (c *Copy) Prepare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.kept.Prepare()
	}
}

// needs reports whether the page is still to be handed out, and is not kept. c.mu is held.
func (c *Copy) needs(page uint32) bool {
	return c.ended == nil && page >= c.next && page <= c.pages && !c.kept.Has(page)
}

// GiveUp ends the copy: Each returns err.
func (c *Copy) GiveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endOn(err)
}

func (c *Copy) endOn(err error) {
	if c.ended == nil {
		c.ended = err
	}
}

// Each calls f with every page but the lock page, ascending. The bytes are valid
// during the call. It can be called once.
func (c *Copy) Each(ctx context.Context, f func(page uint32, data []byte) error) error {
	perBlock := max(1, min(uint32(block/c.size), c.pages))
	data := make([]byte, int(perBlock)*c.size)
	lock := ltx.LockPgno(uint32(c.size))
	for first := uint64(1); first <= uint64(c.pages); first += uint64(perBlock) {
		if err := ctx.Err(); err != nil {
			return err
		}
		last := uint32(min(first+uint64(perBlock)-1, uint64(c.pages)))
		if err := c.portion(uint32(first), last, data); err != nil {
			return err
		}
		for page := uint32(first); page <= last; page++ {
			if page == lock {
				continue
			}
			at := int(page-uint32(first)) * c.size
			if err := f(page, data[at:at+c.size]); err != nil {
				return err
			}
		}
	}
	return nil
}

// portion reads the pages from first to last.
func (c *Copy) portion(first, last uint32, data []byte) error {
	n, err := c.main.ReadAt(data[:int(last-first+1)*c.size], int64(first-1)*int64(c.size))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read database: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	for page := first; page <= last; page++ {
		at := int(page-first) * c.size
		kept, err := c.kept.Get(page, data[at:at+c.size])
		if err != nil {
			return err
		}
		if !kept && at+c.size > n && page != ltx.LockPgno(uint32(c.size)) {
			return fmt.Errorf("database ends before page %d of %d: %w", page, c.pages, io.ErrUnexpectedEOF)
		}
		c.kept.Drop(page)
	}
	c.next = last + 1
	return nil
}

// Close releases what is kept. It may be called again.
func (c *Copy) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endOn(errors.New("copy is closed"))
	return c.kept.Close()
}
