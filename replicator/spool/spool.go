// Package spool keeps what was captured until every replica has it: LTX segments, each
// durable before it counts, and with each the position that it leads to.
package spool

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

// Segment is one captured piece of history: an LTX file in the spool, durable and immutable, that waits to be
// shipped.
//
// Its MinTXID is its MaxTXID, except where it is a whole database with MaxTXID > 1: then MinTXID is 1. It is a
// snapshot by LTX's rules and begins a chain of its own, because no earlier file may be combined with it. That
// happens when the page size changed (ReasonPageSize).
type Segment struct {
	MinTXID   ltx.TXID     `json:"min_txid"`
	MaxTXID   ltx.TXID     `json:"max_txid"`
	Path      string       `json:"-"`
	Size      int64        `json:"size"`
	Timestamp time.Time    `json:"timestamp"` // strictly rising with the TXID, whatever the clock does
	Checksum  ltx.Checksum `json:"checksum"`  // of the database after it
	Lineage   string       `json:"lineage"`
	Reason    string       `json:"reason,omitempty"` // why it is a comparison or a whole database; "" when it is WAL
	Commit    uint32       `json:"commit"`           // the database's size after it, in pages
	PageSize  int          `json:"page_size"`
	SHA256    string       `json:"sha256"` // of the file, in hex
	Pages     int          `json:"pages"`  // how many it holds

	Taken *moment.Stamp `json:"taken,omitempty"` // by the clock as it was; never changed in place, nil where not known
}

// Stamp returns when the segment was taken.
func (s Segment) Stamp() moment.Stamp { return moment.Known(s.Taken) }

// Snapshot reports whether the segment holds every page of the database.
func (s Segment) Snapshot() bool { return s.MinTXID == 1 }

// Spool is the directory of captured segments. Capture appends them; the code that ships them reads and releases
// them. All methods may be called from any goroutine.
type Spool struct {
	dir  string
	base string // position.json: what remains when the spool is empty

	releasing sync.Mutex // held over fsyncs, which an append, perhaps under a writer's lock, must not wait for; before mu
	sync      func() (ltx.TXID, error)

	mu      sync.Mutex
	records []Record // ascending; gaps only where Skip was called
	bytes   int64
	floor   Record        // the record in base
	last    Record        // the newest ever, released or not
	grown   chan struct{} // closed and replaced at every append
}

const (
	segmentSuffix = ".ltx"
	recordSuffix  = ".json"
	segmentsName  = "spool"         // the directory of both
	baseName      = "position.json" // the last record released
)

// Open reads the spool in dir and sweeps what a crash left: a segment without its record, or the reverse, was never
// finished. found is false when nothing was ever captured here. Errors: those of the disk; ErrCorrupt where the state
// in this directory cannot be trusted; ErrVersion.
func Open(dir string) (s *Spool, found bool, err error) {
	s = &Spool{dir: filepath.Join(dir, segmentsName), base: filepath.Join(dir, baseName), grown: make(chan struct{})}
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return nil, false, err
	}
	if err := errors.Join(durable.SweepTemp(dir), durable.SweepTemp(s.dir)); err != nil {
		return nil, false, err
	}
	base, err := readRecord(s.base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	found = err == nil
	s.floor = base
	if err := s.load(base); err != nil {
		return nil, false, err
	}
	return s, found || len(s.records) > 0, nil
}

func (s *Spool) load(base Record) error {
	skipped := base.Position.TXID
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		stem, isSegment := strings.CutSuffix(e.Name(), segmentSuffix)
		if !isSegment || !names[stem+recordSuffix] {
			continue
		}
		r, err := s.loadRecord(stem)
		if err != nil {
			return err
		}
		if r.Segment.MaxTXID <= skipped && (base.Kept == 0 || r.Segment.MaxTXID < base.Kept) {
			continue // released, then a crash before it was removed
		}
		if n := len(s.records); n > 0 && r.Segment.MaxTXID != s.records[n-1].Segment.MaxTXID+1 &&
			s.records[n-1].Segment.MaxTXID > skipped {
			return fmt.Errorf("%w: spool has a gap before %s", ErrCorrupt, e.Name())
		}
		s.append(r)
		delete(names, e.Name())
		delete(names, stem+recordSuffix)
	}
	if s.last.Position.TXID <= skipped {
		s.last = base
	}
	for name := range names {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("sweep spool: %w", err)
		}
	}
	return nil
}

func (s *Spool) loadRecord(stem string) (Record, error) {
	r, err := readRecord(filepath.Join(s.dir, stem+recordSuffix))
	if err != nil {
		return Record{}, err
	}
	r.Segment.Path = s.path(r.Segment.MaxTXID, segmentSuffix)
	info, err := os.Stat(r.Segment.Path)
	if err != nil || r.Segment.MaxTXID.String() != stem || info.Size() != r.Segment.Size {
		return Record{}, errors.Join(fmt.Errorf("%w: segment %s is not what its record says", ErrCorrupt, stem), err)
	}
	return r, nil
}

func (s *Spool) path(txid ltx.TXID, suffix string) string {
	return filepath.Join(s.dir, txid.String()+suffix)
}

func (s *Spool) append(r Record) {
	s.records = append(s.records, r)
	s.bytes += r.Segment.Size
	s.last = r
	close(s.grown)
	s.grown = make(chan struct{})
}

// Begin creates a spool that continues from p, in a dir that has none.
func Begin(dir string, p Position) error {
	return writeRecord(filepath.Join(dir, baseName), Record{Position: p})
}

// Discard removes a spool that cannot be trusted or is no longer wanted.
func Discard(dir string) error {
	err := durable.Remove(filepath.Join(dir, baseName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, segmentsName)))
}

// AfterSync sets the function that Release calls before it removes segments: sync makes durable the page-checksum
// map, whose redo log they are, and returns the TXID of the last segment in it.
func (s *Spool) AfterSync(sync func() (ltx.TXID, error)) {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.sync = sync
}

// Position returns the position of the newest segment ever, released or not, or the one that Skip has set since.
func (s *Spool) Position() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Position
}

// List returns the segments in the spool, oldest first.
func (s *Spool) List() []Segment { return s.After(0) }

// After returns the segments in the spool whose MaxTXID is above txid, oldest first.
func (s *Spool) After(txid ltx.TXID) []Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Segment
	for _, r := range s.records[s.index(txid):] {
		out = append(out, r.Segment)
	}
	return out
}

// index returns where the first segment above txid is.
func (s *Spool) index(txid ltx.TXID) int {
	i, _ := slices.BinarySearchFunc(s.records, txid+1, func(r Record, t ltx.TXID) int {
		switch {
		case r.Segment.MaxTXID < t:
			return -1
		case r.Segment.MaxTXID > t:
			return 1
		}
		return 0
	})
	return i
}

// Bytes returns how much the segments in the spool take.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Pressure returns the bytes that count against the limit. A segment of the whole database does not count: it is
// captured once and cannot be smaller.
func (s *Spool) Pressure() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, r := range s.records {
		if !r.Segment.Snapshot() {
			n += r.Segment.Size
		}
	}
	return n
}

// Last returns the TXID of Position, 0 when nothing was ever captured.
func (s *Spool) Last() ltx.TXID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Position.TXID
}

// ChecksumAt returns the database's checksum after a TXID that is still known.
func (s *Spool) ChecksumAt(txid ltx.TXID) (ltx.Checksum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.Position.TXID == txid {
		return s.last.Position.Checksum, true
	}
	for _, r := range s.records {
		if r.Segment.MaxTXID == txid {
			return r.Segment.Checksum, true
		}
	}
	return 0, false
}

// Wait returns when the position is above txid, because of a segment or of Skip, or with ctx's error.
func (s *Spool) Wait(ctx context.Context, txid ltx.TXID) error {
	for {
		s.mu.Lock()
		last, grown := s.last.Position.TXID, s.grown
		s.mu.Unlock()
		if last > txid {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Release removes the segments up to and including upTo, which every replica
// has. It may be repeated. The page-checksum map and the position are made
// durable first, since the segments are their redo log.
func (s *Spool) Release(upTo ltx.TXID) error {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	if held := s.List(); len(held) == 0 || held[0].MaxTXID > upTo {
		return nil
	}
	through, err := s.sync()
	if err != nil {
		return fmt.Errorf("release spool: %w", err)
	}
	s.mu.Lock()
	gone := slices.Clone(s.records[:s.index(min(upTo, through))])
	s.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	s.mu.Lock()
	floor := s.floor
	if last := gone[len(gone)-1]; last.Segment.MaxTXID >= floor.Position.TXID {
		floor = last
	} else if floor.Kept = 0; len(s.records) > len(gone) && s.records[len(gone)].Segment.MaxTXID < floor.Position.TXID {
		floor.Kept = s.records[len(gone)].Segment.MaxTXID
	}
	s.mu.Unlock()
	if err := writeRecord(s.base, floor); err != nil {
		return fmt.Errorf("release spool: %w", err)
	}
	s.mu.Lock()
	s.floor = floor
	s.mu.Unlock()
	for _, r := range gone {
		if err := s.remove(r.Segment.MaxTXID); err != nil {
			return fmt.Errorf("release segment %s: %w", r.Segment.MaxTXID, err)
		}
		s.mu.Lock()
		s.records, s.bytes = s.records[1:], s.bytes-r.Segment.Size
		s.mu.Unlock()
	}
	return nil
}

// remove unlinks a segment and its record. That this becomes durable late does
// no harm: Open removes what position.json says was released.
func (s *Spool) remove(txid ltx.TXID) error {
	for _, path := range []string{s.path(txid, recordSuffix), s.path(txid, segmentSuffix)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Restate replaces the newest record's position by p, which stands for the same content of the database.
func (s *Spool) Restate(p Position) error {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Record{Segment: s.last.Segment, Position: p, Kept: s.last.Kept}
	path, replaced := s.base, &s.floor
	if n := len(s.records); n > 0 && s.records[n-1].Segment.MaxTXID == p.TXID {
		path, replaced = s.path(p.TXID, recordSuffix), &s.records[n-1]
	}
	if err := writeRecord(path, r); err != nil {
		return fmt.Errorf("restate %s: %w", p.TXID, err)
	}
	s.last, *replaced = r, r
	return nil
}

// Skip makes p the position without a segment, where the pages that lead to it are more than may be staged: replicas
// read the database itself. The segments in the spool no longer lead to the position. With keep they still wait to be
// shipped, since each of them leads to a state that existed; else they are removed.
func (s *Spool) Skip(p Position, keep bool) error {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.mu.Lock()
	r, gone := Record{Position: p}, s.records
	if keep && len(gone) > 0 {
		r.Kept, gone = gone[0].Segment.MaxTXID, nil
	}
	s.mu.Unlock()
	if err := writeRecord(s.base, r); err != nil {
		return fmt.Errorf("skip to %s: %w", p.TXID, err)
	}
	s.mu.Lock()
	s.floor, s.last = r, r
	if r.Kept == 0 {
		s.records, s.bytes = nil, 0
	}
	close(s.grown)
	s.grown = make(chan struct{})
	s.mu.Unlock()
	for _, r := range gone {
		if err := s.remove(r.Segment.MaxTXID); err != nil {
			return fmt.Errorf("remove segment %s: %w", r.Segment.MaxTXID, err)
		}
	}
	return nil
}

// Writer writes one segment into the spool.
type Writer struct {
	spool *Spool
	file  *durable.File
	buf   *bufio.Writer
	enc   *ltx.Encoder
	sha   hash.Hash
	pages int
	size  countWriter

	record func(path string, r Record) error // writeRecord, except in tests
}

// buffers are for segments: one is written each second, and 256 kB of garbage each time would be most of the garbage
// there is.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 1<<18) }}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }

// Create begins the segment that h describes.
func (s *Spool) Create(h ltx.Header) (*Writer, error) {
	file, err := durable.Create(s.path(h.MaxTXID, segmentSuffix), 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{spool: s, file: file, sha: sha256.New(), record: writeRecord}
	w.buf = buffers.Get().(*bufio.Writer)
	w.buf.Reset(io.MultiWriter(file, w.sha, &w.size))
	if w.enc, err = ltx.NewEncoder(w.buf); err == nil {
		w.enc.SetSpillDir(s.dir)
		h.Version, h.Flags = ltx.Version, ltx.HeaderFlagNoChecksum
		err = w.enc.EncodeHeader(h)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin segment %s: %w", h.MaxTXID, err), file.Abort())
	}
	return w, nil
}

// Add writes the next page, in ascending order.
func (w *Writer) Add(page uint32, data []byte) error {
	w.pages++
	if err := w.enc.EncodePage(ltx.PageHeader{Pgno: page}, data); err != nil {
		return fmt.Errorf("encode page %d: %w", page, err)
	}
	return nil
}

// Pages returns how many pages were added.
func (w *Writer) Pages() int { return w.pages }

// Finish ends the file and returns its record; nothing is durable yet.
func (w *Writer) Finish(p Position, reason string) (Record, error) {
	if err := w.enc.Close(); err != nil {
		return Record{}, fmt.Errorf("end segment %s: %w", p.TXID, err)
	}
	if err := w.buf.Flush(); err != nil {
		return Record{}, fmt.Errorf("write segment %s: %w", p.TXID, err)
	}
	w.buf.Reset(nil)
	buffers.Put(w.buf)
	w.buf = nil
	return Record{Position: p, Segment: Segment{
		MinTXID: w.enc.Header().MinTXID, MaxTXID: p.TXID,
		Path: w.spool.path(p.TXID, segmentSuffix), Size: int64(w.size),
		Timestamp: time.UnixMilli(p.Timestamp).UTC(), Checksum: p.Checksum, Lineage: p.Lineage, Reason: reason,
		Commit: p.Pages, PageSize: p.PageSize, SHA256: hex.EncodeToString(w.sha.Sum(nil)), Pages: w.pages,
		Taken: p.Taken,
	}}, nil
}

// Commit makes the segment and its record durable, both at the same time because a writer may be waiting: either
// without the other counts as neither.
func (w *Writer) Commit(r Record) error {
	recorded := make(chan error, 1)
	go func() {
		recorded <- fault.Guard(func() error { return w.record(w.spool.path(r.Segment.MaxTXID, recordSuffix), r) })
	}()
	if err := errors.Join(w.file.Commit(), <-recorded); err != nil {
		err = errors.Join(fmt.Errorf("commit segment %s: %w", r.Segment.MaxTXID, err), w.spool.remove(r.Segment.MaxTXID))
		return fault.Pass(err)
	}
	w.spool.mu.Lock()
	defer w.spool.mu.Unlock()
	w.spool.append(r)
	return nil
}

// Abort throws the segment away.
func (w *Writer) Abort() error { return errors.Join(w.enc.Cleanup(), w.file.Abort()) }
