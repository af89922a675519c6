package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

// Snapshot is the whole database as it was after one captured TXID. Pages are read as they are asked for, at any
// pace: no lock or read mark is held for it beyond capture's own, which moves on in the meantime.
type Snapshot struct {
	copy    *Copy
	copies  *Copies
	header  ltx.Header
	sum     ltx.Checksum
	lineage string
	taken   moment.Stamp

	streams sync.WaitGroup
	mu      sync.Mutex // guards pipes
	pipes   []*io.PipeReader
}

// NewSnapshot returns the snapshot that reads o, which is one of copies. h says which
// state it is; sum is its database checksum.
func NewSnapshot(o *Copy, copies *Copies, h ltx.Header, sum ltx.Checksum, lineage string,
	taken moment.Stamp) *Snapshot {
	h.Version, h.Flags = ltx.Version, ltx.HeaderFlagNoChecksum
	return &Snapshot{copy: o, copies: copies, header: h, sum: sum, lineage: lineage, taken: taken}
}

// Header returns the LTX header of the snapshot: MinTXID 1, MaxTXID the captured
// TXID, Commit the number of pages.
func (s *Snapshot) Header() ltx.Header { return s.header }

// Checksum returns the database checksum at the snapshot's TXID.
func (s *Snapshot) Checksum() ltx.Checksum { return s.sum }

// Taken returns when the last segment that the snapshot holds was taken.
func (s *Snapshot) Taken() moment.Stamp { return s.taken }

// Lineage returns the lineage that the snapshot belongs to.
func (s *Snapshot) Lineage() string { return s.lineage }

// Each calls f with every page from 1 to Commit but the lock page, ascending;
// data is valid during the call. It ends with an error, after the last page,
// if the pages do not add up to Checksum: the snapshot must not be used then.
func (s *Snapshot) Each(ctx context.Context, f func(page uint32, data []byte) error) error {
	sum := ltx.ChecksumFlag
	err := s.copy.Each(ctx, func(page uint32, data []byte) error {
		sum = ltx.ChecksumFlag | (sum ^ pagecrc.Page(page, data))
		return f(page, data)
	})
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if sum != s.sum {
		return fmt.Errorf("read snapshot: %w: pages add up to %s, the captured state to %s", dbfile.ErrChecksum, sum, s.sum)
	}
	return nil
}

// WriteLTX writes the snapshot as an LTX file. spillDir takes the page index of
// a very large one; "" keeps it in memory. After an error what was written must
// not be used.
func (s *Snapshot) WriteLTX(ctx context.Context, w io.Writer, spillDir string) error {
	enc, err := ltx.NewEncoder(w)
	if err != nil {
		return err
	}
	enc.SetSpillDir(spillDir)
	if err := enc.EncodeHeader(s.header); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	err = s.Each(ctx, func(page uint32, data []byte) error { return enc.EncodePage(ltx.PageHeader{Pgno: page}, data) })
	if err != nil {
		return errors.Join(err, enc.Cleanup())
	}
	return enc.Close()
}

// Stream returns the snapshot as an LTX file, made while it is read. Any failure in making it, a panic included, is
// an error of the reader, which the caller closes.
func (s *Snapshot) Stream(ctx context.Context, spillDir string) io.ReadCloser {
	r, w := io.Pipe()
	s.mu.Lock()
	s.pipes = append(s.pipes, r)
	s.mu.Unlock()
	s.streams.Go(func() {
		w.CloseWithError(fault.Guard(func() error { return s.WriteLTX(ctx, w, spillDir) }))
	})
	return r
}

// Close ends the streams, waits for the goroutines that make them, and releases what was kept for the snapshot. It
// may be called again.
func (s *Snapshot) Close() error {
	s.mu.Lock()
	for _, r := range s.pipes {
		r.Close()
	}
	s.mu.Unlock()
	s.streams.Wait()
	s.copies.Remove(s.copy)
	return s.copy.Close()
}
