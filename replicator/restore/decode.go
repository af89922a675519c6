package restore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// The decoder of superfly/ltx allocates as many bytes as a page header claims, and decodes a
// file in one goroutine. This decoder is for untrusted files: it bounds a page's compressed
// size before it allocates anything, and it only cuts frames, which workers decompress in
// parallel.

// frameOverhead is the least number of bytes that a page takes in an LTX file beside its data.
const frameOverhead = ltx.PageHeaderSize + 4

// maxPages returns the most pages that files of so many bytes can hold: LZ4 does not compress
// better than 255 to 1.
func maxPages(bytes int64, pageSize int) int64 { return bytes / int64(frameOverhead+pageSize/255) }

// checkHeader decodes the header and checks that it is valid and belongs to the file that f's key names.
func checkHeader(f store.LTXFile, data []byte) (ltx.Header, error) {
	var h ltx.Header
	if err := h.UnmarshalBinary(data); err != nil {
		return h, err
	}
	if err := h.Validate(); err != nil {
		return h, err
	}
	if h.MinTXID != f.MinTXID || h.MaxTXID != f.MaxTXID {
		return h, fmt.Errorf("it holds txids %d to %d", h.MinTXID, h.MaxTXID)
	}
	return h, nil
}

// frame is one page of an LTX file, still compressed, in a batch's raw bytes.
type frame struct {
	pgno       uint32
	header     int // length of the page header, with the size field where there is one
	start, end int // in raw, of header and data
	wanted     bool
}

// frameCutter cuts page frames from an LTX file's bytes.
type frameCutter struct {
	r        io.Reader // read a few bytes at a time
	header   ltx.Header
	previous uint32
	offset   int64 // in the file, of the next byte
}

// next appends the next frame's bytes to raw. At the end of the page block it
// returns pgno 0 and the empty page header.
func (c *frameCutter) next(raw []byte) (frame, []byte, error) {
	f := frame{start: len(raw), header: ltx.PageHeaderSize}
	raw, err := c.take(raw, ltx.PageHeaderSize)
	if err != nil {
		return f, raw, err
	}
	f.pgno = binary.BigEndian.Uint32(raw[f.start:])
	flags := binary.BigEndian.Uint16(raw[f.start+4:])
	f.end = len(raw)
	switch {
	case f.pgno == 0 && flags == 0:
		return f, raw, nil
	case f.pgno <= c.previous || f.pgno > c.header.Commit || f.pgno == c.header.LockPgno():
		return f, raw, fmt.Errorf("page %d after page %d of %d is not possible", f.pgno, c.previous, c.header.Commit)
	case flags == ltx.PageHeaderFlagSize:
		raw, err = c.takeBlock(raw)
		f.header += 4
	case flags == 0:
		raw, err = c.takeLZ4Frame(raw)
	default:
		err = fmt.Errorf("unknown flags %#x", flags)
	}
	if err != nil {
		return f, raw, fmt.Errorf("page %d at offset %d: %w", f.pgno, c.offset, err)
	}
	c.previous, f.end = f.pgno, len(raw)
	return f, raw, nil
}

// take appends n bytes of the file to raw.
func (c *frameCutter) take(raw []byte, n int) ([]byte, error) {
	start := len(raw)
	raw = slices.Grow(raw, n)[:start+n]
	read, err := io.ReadFull(c.r, raw[start:])
	c.offset += int64(read)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return raw, err
}

// takeBlock appends the size field and the LZ4 block of today's encoding.
func (c *frameCutter) takeBlock(raw []byte) ([]byte, error) {
	raw, err := c.take(raw, 4)
	if err != nil {
		return raw, err
	}
	size := binary.BigEndian.Uint32(raw[len(raw)-4:])
	if size == 0 || int64(size) > int64(lz4.CompressBlockBound(int(c.header.PageSize))) {
		return raw, fmt.Errorf("%d compressed bytes cannot be a page of %d", size, c.header.PageSize)
	}
	return c.take(raw, int(size))
}

// takeLZ4Frame appends one LZ4 frame, the encoding of Litestream before 0.5.4. The file does
// not state its length, so its blocks are read one by one.
func (c *frameCutter) takeLZ4Frame(raw []byte) ([]byte, error) {
	const magic, contentSize, contentSum, blockSum, dictionary = 0x184D2204, 1 << 3, 1 << 2, 1 << 4, 1
	start := len(raw)
	raw, err := c.take(raw, 6)
	if err != nil {
		return raw, err
	}
	flags := raw[start+4]
	if binary.LittleEndian.Uint32(raw[start:]) != magic || flags>>6 != 1 || flags&dictionary != 0 {
		return raw, errors.New("not an lz4 frame")
	}
	rest := 1 // checksum of the descriptor
	if flags&contentSize != 0 {
		rest += 8
	}
	if raw, err = c.take(raw, rest); err != nil {
		return raw, err
	}
	limit := 2*lz4.CompressBlockBound(int(c.header.PageSize)) + 64
	for len(raw)-start <= limit {
		if raw, err = c.take(raw, 4); err != nil {
			return raw, err
		}
		size := int(binary.LittleEndian.Uint32(raw[len(raw)-4:]) &^ (1 << 31))
		if size == 0 {
			if flags&contentSum != 0 {
				raw, err = c.take(raw, 4)
			}
			return raw, err
		}
		if flags&blockSum != 0 {
			size += 4
		}
		if size > limit {
			break
		}
		if raw, err = c.take(raw, size); err != nil {
			return raw, err
		}
	}
	return raw, fmt.Errorf("the lz4 frame is too long for a page of %d bytes", c.header.PageSize)
}

// decompress decodes a frame's data into page, which has the database's page size.
func (f frame) decompress(raw, page []byte) error {
	data := raw[f.start+f.header : f.end]
	if f.header > ltx.PageHeaderSize {
		n, err := lz4.UncompressBlock(data, page)
		if err == nil && n != len(page) {
			err = fmt.Errorf("it decompresses to %d bytes, not %d", n, len(page))
		}
		return err
	}
	r := lz4.NewReader(bytes.NewReader(data))
	if _, err := io.ReadFull(r, page); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("it does not end with the page (%v)", err)
	}
	return nil
}
