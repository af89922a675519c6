package restore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// rangeGap is how many unwanted bytes are cheaper to read than another request.
const rangeGap = 256 << 10

// walkRanges reads only the wanted pages of a large file, if they are less than half of it
// (or, when resuming, nearly any part). It trusts the file's page index, because the
// database's checksum is known and compared in the end.
func (a *application) walkRanges(ctx context.Context, file store.LTXFile) error {
	head, wanted, err := a.wantedRanges(ctx, file)
	if err != nil {
		return blame(file, err)
	}
	var length int64
	for _, e := range wanted {
		length += e.length
	}
	most := file.Object.Size / 2
	if a.kept != nil {
		most = file.Object.Size - rangedSize/8 // an earlier restore has fetched the rest: do not fetch it again
	}
	if length > most {
		return a.walkWhole(ctx, []store.LTXFile{file})
	}
	state, err := a.begin(file, head)
	if err != nil {
		return blame(file, err)
	}
	f := newFetcher(ctx, a.store, wanted, a.buffers)
	defer f.stop()
	for _, e := range wanted {
		if err := a.walkRange(ctx, state, f, e); err != nil {
			return blame(file, err)
		}
	}
	return nil
}

// walkRange cuts the frames that fill one extent.
func (a *application) walkRange(ctx context.Context, state *fileState, f *fetcher, e extent) error {
	r := &objectReader{ctx: ctx, fetcher: f, extent: e}
	defer r.close()
	cut := &frameCutter{r: r, header: state.header}
	for cut.offset < e.length {
		b, err := a.take(ctx, state)
		if err != nil {
			return err
		}
		for cut.offset < e.length && len(b.frames) < max(1, batchPages/a.pageSize) {
			var f frame
			if f, b.raw, err = cut.next(b.raw); err != nil {
				return frameError(err)
			}
			if f.pgno == 0 {
				return &badFileError{errors.New("its page index points behind the pages")}
			}
			f.wanted = a.claim(f.pgno)
			b.frames = append(b.frames, f)
		}
		a.send(b)
	}
	return nil
}

// wantedRanges reads a file's header and page index and returns the extents that hold wanted
// pages; extents close to each other are merged.
func (a *application) wantedRanges(ctx context.Context, file store.LTXFile) (head []byte, wanted []extent, err error) {
	size := file.Object.Size
	const footer = 8 + ltx.TrailerSize
	ends, err := a.read(ctx, extent{file, 0, ltx.HeaderSize}, extent{file, size - footer, footer})
	if err != nil {
		return nil, nil, err
	}
	head, foot := ends[0], ends[1]
	length := binary.BigEndian.Uint64(foot)
	if length == 0 || length > uint64(size-footer-ltx.HeaderSize) {
		return nil, nil, &badFileError{fmt.Errorf("its page index claims %d bytes", length)}
	}
	index := extent{file, size - footer - int64(length), int64(length)}
	f := newFetcher(ctx, a.store, []extent{index}, a.buffers)
	defer f.stop()
	r := &objectReader{ctx: ctx, fetcher: f, extent: index}
	defer r.close()
	wanted, err = a.readIndex(bufio.NewReader(r), index)
	return head, wanted, err
}

// readIndex collects the extents of wanted pages from a page index, entry by entry, because
// the index of a large file is too large for memory.
func (a *application) readIndex(r io.ByteReader, index extent) ([]extent, error) {
	var wanted []extent
	end := int64(ltx.HeaderSize) // of the previous entry's frame
	for {
		var v [3]uint64
		for i := range v {
			var err error
			if v[i], err = binary.ReadUvarint(r); err != nil {
				return nil, frameError(fmt.Errorf("page index: %w", err))
			}
			if v[0] == 0 {
				return wanted, nil
			}
		}
		pgno, offset, size := v[0], int64(v[1]), int64(v[2])
		if pgno > 1<<32-1 || offset < end || size <= ltx.PageHeaderSize || size > index.offset || offset > index.offset-size {
			return nil, &badFileError{fmt.Errorf("page index: page %d at %d, %d bytes", pgno, offset, size)}
		}
		end = offset + size
		if uint32(pgno) > a.limit || a.have[pgno/64]&(1<<(pgno%64)) != 0 {
			continue
		}
		if n := len(wanted) - 1; n >= 0 && offset-(wanted[n].offset+wanted[n].length) <= rangeGap {
			wanted[n].length = end - wanted[n].offset
			continue
		}
		wanted = append(wanted, extent{file: index.file, offset: offset, length: size})
	}
}

// read fetches small extents in parallel.
func (a *application) read(ctx context.Context, extents ...extent) ([][]byte, error) {
	f := newFetcher(ctx, a.store, extents, a.buffers)
	defer f.stop()
	var all [][]byte
	for range extents {
		p, err := f.next(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, bytes.Clone(p.data))
		f.release(p)
	}
	return all, nil
}
