package restore

import (
	"bufio"
	"io"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Bounded returns a reader of f's bytes from r that fails as soon as they cannot be the file
// that its key names. It protects the decoder of superfly/ltx, which allocates whatever size
// a page header claims.
func Bounded(f store.LTXFile, r io.Reader) io.Reader {
	return &boundedReader{file: f, cutter: frameCutter{r: bufio.NewReaderSize(r, 1<<15)}}
}

type boundedReader struct {
	file    store.LTXFile
	cutter  frameCutter
	raw     []byte // one frame
	pending []byte // the part of raw that was not passed on yet
	begun   bool
	tail    bool // after the pages; from here on the decoder trusts no size in the file
}

// Read implements io.Reader.
func (b *boundedReader) Read(p []byte) (int, error) {
	for len(b.pending) == 0 {
		if b.tail {
			return b.cutter.r.Read(p)
		}
		if err := b.advance(); err != nil {
			return 0, &store.CorruptError{Key: b.file.Object.Key, Err: err}
		}
	}
	n := copy(p, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

// advance reads the header, or the next frame.
func (b *boundedReader) advance() (err error) {
	if b.begun {
		var cut frame
		cut, b.raw, err = b.cutter.next(b.raw[:0])
		b.tail = cut.pgno == 0
	} else {
		if b.raw, err = b.cutter.take(b.raw, ltx.HeaderSize); err == nil {
			b.cutter.header, err = checkHeader(b.file, b.raw)
		}
		b.begun = true
	}
	b.pending = b.raw
	return err
}
