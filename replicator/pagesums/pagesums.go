// Package pagesums keeps the checksum of every page of a database in a file: 8 bytes
// a page, from which a difference can be told without the pages themselves.
package pagesums

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"sync"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Change is one page's checksum.
type Change struct {
	Page uint32
	Sum  ltx.Checksum
}

// The page-checksum map, pages.sum, little-endian:
//
//	offset size  field
//	     0    8  "sqwsums1"
//	     8    8  through: segments up to this TXID are in the map for certain
//	    16    4  page size
//	    20    4  0
//	    24    8  CRC-64 (ISO) of bytes 0 to 23
//	  4096  8*n  ltx.ChecksumPage of page 1, 2, … n; 0 for the lock page
//
// It is changed in place and not fsynced, after its segment was. That is safe
// because the spool is its redo log: a segment is removed only when the map is
// durable beyond it, and applying segments again, in order, gives the same map
// whatever part of them had reached the disk. The XOR of all entries is the
// database checksum; it must be the position's, or the map is not believed.
const (
	magic      = "sqwsums1"
	headerSize = 4096
	blockSize  = 4096 // bytes read and written at a time
	inBlock    = blockSize / 8
)

// ErrCorrupt says that the page-checksum map cannot be believed.
var ErrCorrupt = errors.New("page-checksum map is corrupt")

// Map is an open pages.sum. Its methods may be called from any goroutine.
type Map struct {
	mu       sync.Mutex
	file     *os.File
	pageSize int
	pages    uint32
	through  ltx.TXID // what the header on disk says
	applied  ltx.TXID // what the entries say
	sync     func() error
	failed   error // of the sync that failed: the file is not believed any more
}

// Open opens the map at path. Errors: fs.ErrNotExist, ErrCorrupt.
func Open(path string) (*Map, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m := &Map{file: file, sync: file.Sync}
	if err := m.readHeader(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), file.Close())
	}
	return m, nil
}

func (m *Map) readHeader() error {
	var b [32]byte
	if _, err := m.file.ReadAt(b[:], 0); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if string(b[:8]) != magic || crcISO(b[:24]) != binary.LittleEndian.Uint64(b[24:]) {
		return ErrCorrupt
	}
	info, err := m.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < headerSize {
		return ErrCorrupt
	}
	m.through = ltx.TXID(binary.LittleEndian.Uint64(b[8:]))
	m.applied = m.through
	m.pageSize = int(binary.LittleEndian.Uint32(b[16:]))
	m.pages = uint32((info.Size() - headerSize) / 8)
	return nil
}

func headerBytes(through ltx.TXID, pageSize int) []byte {
	b := make([]byte, 32)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], uint64(through))
	binary.LittleEndian.PutUint32(b[16:], uint32(pageSize))
	binary.LittleEndian.PutUint64(b[24:], crcISO(b[:24]))
	return b
}

func crcISO(b []byte) uint64 { return crc64.Checksum(b, crc64.MakeTable(crc64.ISO)) }

// block reads the entries of block i; entries beyond the end are 0.
func (m *Map) block(i int64, b []byte) error {
	n, err := m.file.ReadAt(b, headerSize+i*blockSize)
	clear(b[n:])
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read page-checksum map: %w", err)
	}
	return nil
}

// PageSize returns the database's page size in bytes.
func (m *Map) PageSize() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pageSize
}

// Pages returns the database's size in pages.
func (m *Map) Pages() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pages
}

// Through returns up to which TXID the map is durable.
func (m *Map) Through() ltx.TXID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.through
}

// Reaches says up to which TXID the entries are known to be.
func (m *Map) Reaches(txid ltx.TXID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = txid
}

// Delta returns what to XOR into the database checksum when the pages in
// changes, ascending, become theirs and the database is cut to commit pages.
func (m *Map) Delta(changes []Change, commit uint32) (ltx.Checksum, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x, err := m.walk(changes, false)
	if err != nil {
		return 0, err
	}
	for cut, b := commit, make([]byte, blockSize); cut < m.pages; {
		i := int64(cut) / inBlock
		if err := m.block(i, b); err != nil {
			return 0, err
		}
		for ; cut < m.pages && int64(cut)/inBlock == i; cut++ {
			x ^= ltx.Checksum(binary.LittleEndian.Uint64(b[cut%inBlock*8:]))
		}
	}
	return x, nil
}

// Put writes the entries of changes, ascending.
func (m *Map) Put(changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.walk(changes, true)
	return err
}

// Cut ends the changes of segment txid, after which the database has commit
// pages. To make all its changes again does no harm.
func (m *Map) Cut(txid ltx.TXID, commit uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.file.Truncate(headerSize + int64(commit)*8); err != nil {
		return fmt.Errorf("resize page-checksum map: %w", err)
	}
	m.pages, m.applied = commit, txid
	return nil
}

// Restart empties the map for a chain that starts over.
func (m *Map) Restart(pageSize int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.file.Truncate(headerSize); err != nil {
		return fmt.Errorf("empty page-checksum map: %w", err)
	}
	m.pages, m.pageSize = 0, pageSize
	if _, err := m.file.WriteAt(headerBytes(m.through, pageSize), 0); err != nil {
		return fmt.Errorf("write header of page-checksum map: %w", err)
	}
	return nil
}

// walk visits the entries of changes block by block, returns the XOR of old and
// new values, and writes the new ones if it is to.
func (m *Map) walk(changes []Change, write bool) (ltx.Checksum, error) {
	var x ltx.Checksum
	b := make([]byte, blockSize)
	for len(changes) > 0 {
		i := int64(changes[0].Page-1) / inBlock
		if err := m.block(i, b); err != nil {
			return 0, err
		}
		last := 0
		for len(changes) > 0 && int64(changes[0].Page-1)/inBlock == i {
			last = int((changes[0].Page - 1) % inBlock * 8)
			old := binary.LittleEndian.Uint64(b[last:])
			x ^= ltx.Checksum(old) ^ changes[0].Sum
			binary.LittleEndian.PutUint64(b[last:], uint64(changes[0].Sum))
			changes = changes[1:]
		}
		if !write {
			continue
		}
		n := max(last+8, int(min(int64(m.pages)-i*inBlock, inBlock))*8)
		if _, err := m.file.WriteAt(b[:n], headerSize+i*blockSize); err != nil {
			return 0, fmt.Errorf("write page-checksum map: %w", err)
		}
	}
	return x, nil
}

// Sync makes the map durable and notes in its header how far it reaches, so
// that the segments up to there may go. It returns that TXID. What a failed fsync left
// of the file nobody knows, and a second one would not tell: after one every Sync
// fails, until the map was made again (see Rewrite).
func (m *Map) Sync() (ltx.TXID, error) {
	m.mu.Lock()
	through, applied, failed := m.through, m.applied, m.failed
	m.mu.Unlock()
	if failed != nil {
		return 0, failed
	}
	if through == applied {
		return through, nil
	}
	// No lock here: an entry changed in the meantime belongs to a later segment, which is still in the spool.
	if err := m.sync(); err != nil {
		return 0, m.fail(fmt.Errorf("sync page-checksum map: %w", err))
	}
	if _, err := m.file.WriteAt(headerBytes(applied, m.pageSize), 0); err != nil {
		return 0, m.fail(fmt.Errorf("write header of page-checksum map: %w", err))
	}
	if err := m.sync(); err != nil {
		return 0, m.fail(fmt.Errorf("sync header of page-checksum map: %w", err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.through = applied
	return applied, nil
}

func (m *Map) fail(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = err
	return err
}

// Failed reports whether a Sync has failed.
func (m *Map) Failed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed != nil
}

// Rewrite makes the map at path again, in a new file, of what the old one holds. What
// that may lack are changes of segments above its header's TXID: apply those again.
func Rewrite(path string) (err error) {
	m, err := Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	w, err := Create(path)
	if err != nil {
		return err
	}
	next := m.Entries()
	for range m.Pages() {
		sum, err := next()
		if err == nil {
			err = w.Add(sum)
		}
		if err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Commit(m.Through(), m.PageSize())
}

// Entries returns a function that returns the entries in order, and 0 after the last.
func (m *Map) Entries() func() (ltx.Checksum, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(m.file, headerSize, int64(m.pages)*8), 1<<16)
	var b [8]byte
	return func() (ltx.Checksum, error) {
		_, err := io.ReadFull(r, b[:])
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read page-checksum map: %w", err)
		}
		return ltx.Checksum(binary.LittleEndian.Uint64(b[:])), nil
	}
}

// Checksum returns the database checksum that the entries add up to.
func (m *Map) Checksum() (ltx.Checksum, error) {
	next, x := m.Entries(), ltx.ChecksumFlag
	for range m.pages {
		sum, err := next()
		if err != nil {
			return 0, err
		}
		x = ltx.ChecksumFlag | (x ^ sum)
	}
	return x, nil
}

// Close closes the file.
func (m *Map) Close() error { return m.file.Close() }

// Writer writes a whole new pages.sum, which takes the old one's place
// when it is committed.
type Writer struct {
	file  *durable.File
	buf   *bufio.Writer
	pages uint32
	xor   ltx.Checksum
}

// Create begins a new map.
func Create(path string) (*Writer, error) {
	file, err := durable.Create(path, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: file, buf: bufio.NewWriterSize(file, 1<<16)}
	if _, err := w.buf.Write(make([]byte, headerSize)); err != nil {
		return nil, errors.Join(err, file.Abort())
	}
	return w, nil
}

// Add appends the next page's checksum.
func (w *Writer) Add(sum ltx.Checksum) error {
	w.pages++
	w.xor ^= sum
	_, err := w.buf.Write(binary.LittleEndian.AppendUint64(w.buf.AvailableBuffer(), uint64(sum)))
	return err
}

// Patch replaces the entries of changes, ascending, adds those behind the end, and
// cuts the map to so many pages. It ends the adding.
func (w *Writer) Patch(changes []Change, pages uint32) error {
	if err := w.buf.Flush(); err != nil {
		return fmt.Errorf("write page-checksum map: %w", err)
	}
	for _, c := range changes {
		if err := w.set(c); err != nil {
			return err
		}
	}
	for page := pages + 1; page <= w.pages; page++ {
		if err := w.set(Change{Page: page}); err != nil {
			return err
		}
	}
	w.pages = pages
	return w.file.Truncate(headerSize + int64(pages)*8)
}

// set writes one entry. Between the end and one behind it there are zeros.
func (w *Writer) set(c Change) error {
	var b [8]byte
	at := headerSize + int64(c.Page-1)*8
	if c.Page <= w.pages {
		if _, err := w.file.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("read page-checksum map: %w", err)
		}
	}
	w.xor ^= ltx.Checksum(binary.LittleEndian.Uint64(b[:])) ^ c.Sum
	w.pages = max(w.pages, c.Page)
	binary.LittleEndian.PutUint64(b[:], uint64(c.Sum))
	if _, err := w.file.WriteAt(b[:], at); err != nil {
		return fmt.Errorf("write page-checksum map: %w", err)
	}
	return nil
}

// Pages returns how many entries were added.
func (w *Writer) Pages() uint32 { return w.pages }

// Checksum returns the database checksum that the entries so far add up to.
func (w *Writer) Checksum() ltx.Checksum { return w.xor | ltx.ChecksumFlag }

// Commit makes the map durable in its place.
func (w *Writer) Commit(through ltx.TXID, pageSize int) error {
	if err := w.buf.Flush(); err != nil {
		return fmt.Errorf("write page-checksum map: %w", err)
	}
	if _, err := w.file.WriteAt(headerBytes(through, pageSize), 0); err != nil {
		return fmt.Errorf("write page-checksum map: %w", err)
	}
	return w.file.Commit()
}

// Abort throws the new map away.
func (w *Writer) Abort() error { return w.file.Abort() }

// Write makes a map of sums, in place of what is at path.
func Write(path string, through ltx.TXID, pageSize int, sums []ltx.Checksum) error {
	w, err := Create(path)
	if err != nil {
		return err
	}
	for _, sum := range sums {
		if err := w.Add(sum); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Commit(through, pageSize)
}
