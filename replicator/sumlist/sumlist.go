// Package sumlist keeps the checksums of a stored file's pages in an object beside it. Who
// lost what it knew of a database then reads nine bytes for each page, and not the page.
package sumlist

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// A list is magic, page size and pages, then for each page how much its number is above the
// last one's and its checksum, a zero, and the checksum of all that.
const magic = "sqlwatch sums 1\n"

var table = crc64.MakeTable(crc64.ECMA)

// Header is of which database a file is.
type Header struct {
	PageSize uint32
	Pages    uint32 // of the database after it
}

// write lists the pages of the LTX file r.
func write(w io.Writer, r io.Reader) error {
	dec := ltx.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	dec.SetRetainPageIndex(false)
	if err := dec.DecodeHeader(); err != nil {
		return fmt.Errorf("list page checksums: %w", err)
	}
	h := dec.Header()
	sum := crc64.New(table)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	head := binary.BigEndian.AppendUint32([]byte(magic), h.PageSize)
	out.Write(binary.BigEndian.AppendUint32(head, h.Commit)) // the writer remembers errors until Flush
	data := make([]byte, h.PageSize)
	var entry []byte
	for last := uint32(0); ; {
		var page ltx.PageHeader
		err := dec.DecodePage(&page, data)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("list page checksums: %w", err)
		}
		entry = binary.AppendUvarint(entry[:0], uint64(page.Pgno-last))
		last = page.Pgno
		out.Write(binary.BigEndian.AppendUint64(entry, uint64(pagecrc.Page(page.Pgno, data))))
	}
	if err := dec.Close(); err != nil {
		return fmt.Errorf("list page checksums: %w", err)
	}
	out.WriteByte(0)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("list page checksums: %w", err)
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// Read calls begin, and then page for each page of the list, ascending. What it called
// them with counts only where it returns nil.
func Read(r io.Reader, begin func(Header) error, page func(uint32, ltx.Checksum) error) error {
	in := &summed{r: bufio.NewReaderSize(r, 1<<16), sum: crc64.New(table)}
	head := make([]byte, len(magic)+8)
	if _, err := io.ReadFull(in, head); err != nil {
		return corrupt(err)
	}
	if string(head[:len(magic)]) != magic {
		return corrupt(errors.New("it is none"))
	}
	h := Header{binary.BigEndian.Uint32(head[len(magic):]), binary.BigEndian.Uint32(head[len(magic)+4:])}
	if err := begin(h); err != nil {
		return err
	}
	var sum [8]byte
	for number := uint64(0); ; {
		above, err := binary.ReadUvarint(in)
		if err != nil {
			return corrupt(err)
		}
		if above == 0 {
			break
		}
		if number += above; above > uint64(h.Pages) || number > uint64(h.Pages) {
			return corrupt(fmt.Errorf("page %d of %d", number, h.Pages))
		}
		if _, err := io.ReadFull(in, sum[:]); err != nil {
			return corrupt(err)
		}
		if err := page(uint32(number), ltx.Checksum(binary.BigEndian.Uint64(sum[:]))); err != nil {
			return err
		}
	}
	want := in.sum.Sum64()
	if _, err := io.ReadFull(in.r, sum[:]); err != nil {
		return corrupt(err)
	}
	if _, err := in.r.ReadByte(); err != io.EOF || binary.BigEndian.Uint64(sum[:]) != want {
		return corrupt(errors.New("its checksum is another"))
	}
	return nil
}

func corrupt(err error) error {
	return fmt.Errorf("list of page checksums: %w: %w", store.ErrCorrupt, err)
}

// summed sums what is read.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash64
	one [1]byte
}

// Read implements io.Reader.
func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

// ReadByte implements io.ByteReader.
func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum.Write(s.one[:])
	}
	return b, err
}
