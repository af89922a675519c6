package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// view is the database as one read transaction sees it, read past SQLite. As
// long as the transaction lasts, nobody can change what it reads: frames stay in the
// WAL, and nothing beyond the mark reaches the main file. So any commit at or behind
// the mark is readable: the newest frame of a page up to there, else the main file.
// Where everything was backfilled, the main file alone is the database, and stays so.
type view struct {
	files *dbfile.Files
	x     dbfile.WALIndex // the commit that is seen
	h     dbfile.WALHeader
	refs  []uint64 // page<<32 | frame, ascending, one a page
}

// viewTries bounds how often a transaction is begun that others keep from its mark.
const viewTries = 200

var errNothing = errors.New("nothing was ever written to the database")

var errNoView = errors.New("no moment found at which a read mark was to be had: try again")

// openView begins a read transaction on conn and a view of it. It has a mark, never
// READ0, which costs the application the more the longer it is held.
func openView(ctx context.Context, files *dbfile.Files, conn *sqlite.Conn) (*view, error) {
	for range viewTries {
		err := conn.BeginMarked(ctx)
		if errors.Is(err, sqlite.ErrBusy) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v := &view{files: files}
		if v.x, err = readIndex(files); err == nil && v.x.Backfilled < v.x.MaxFrame {
			err = v.mapFrames(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, conn.EndRead())
		}
		return v, nil
	}
	return nil, errNoView
}

// mapFrames finds the newest frame of each page.
func (v *view) mapFrames(ctx context.Context) (err error) {
	if v.h, err = v.files.WALHeader(); err != nil {
		return err
	}
	wal := v.files.WAL()
	if wal == nil || v.h.Salt1 != v.x.Salt1 || v.h.Salt2 != v.x.Salt2 {
		return fmt.Errorf("read wal of %s: %w", v.files.Path(), dbfile.ErrSalt)
	}
	s := dbfile.NewFrameScanner(wal, v.h, v.h.Start(), v.x.MaxFrame)
	compactAt := refsFirstCompaction
	for s.Next() {
		v.refs = append(v.refs, uint64(s.Frame().Page)<<32|uint64(s.Position().Frame))
		if len(v.refs) >= compactAt {
			v.compact()
			compactAt = max(compactAt, 2*len(v.refs))
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	v.compact()
	return s.Err()
}

// compact keeps the newest frame of each page.
func (v *view) compact() {
	slices.Sort(v.refs)
	slices.Reverse(v.refs)
	v.refs = slices.CompactFunc(v.refs, func(a, b uint64) bool { return a>>32 == b>>32 })
	slices.Reverse(v.refs)
}

// viewBlock is how many bytes of the main file are read at a time.
const viewBlock = 1 << 20

// each calls f with every page but the lock page, ascending. The bytes are valid
// during the call.
func (v *view) each(ctx context.Context, f func(page uint32, data []byte) error) error {
	size := v.x.PageSize
	perBlock := max(1, min(uint32(viewBlock/size), v.x.Pages))
	block := make([]byte, int(perBlock)*size)
	lock := ltx.LockPgno(uint32(size))
	refs := v.refs
	for first := uint64(1); first <= uint64(v.x.Pages); first += uint64(perBlock) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := v.files.Database().ReadAt(block, int64(first-1)*int64(size))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read database: %w", err)
		}
		for i := uint32(0); i < perBlock && first+uint64(i) <= uint64(v.x.Pages); i++ {
			page := uint32(first) + i
			data := block[int(i)*size : int(i+1)*size]
			for len(refs) > 0 && uint32(refs[0]>>32) < page {
				refs = refs[1:]
			}
			switch {
			case len(refs) > 0 && uint32(refs[0]>>32) == page:
				if _, err := v.files.WAL().ReadAt(data, v.h.FrameOffset(uint32(refs[0]))+dbfile.FrameHeaderSize); err != nil {
					return fmt.Errorf("read wal frame %d: %w", uint32(refs[0]), err)
				}
			case page == lock:
			case int(i+1)*size > n:
				return fmt.Errorf("database %s ends before page %d of %d: %w", v.files.Path(), page, v.x.Pages, io.ErrUnexpectedEOF)
			}
			if page == lock {
				continue
			}
			if err := f(page, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// SnapshotReader is the whole database as it was after one captured TXID, in a
// read transaction of its own. Pages are read while they are asked for; nothing
// is staged, and memory is 8 bytes for each page that is in the WAL.
//
// Until Close its read mark keeps the WAL from being restarted: read on.
type SnapshotReader struct {
	views  *atomic.Int32 // how many are open, of the Capture
	conn   *sqlite.Conn
	view   *view
	pos    spool.Position
	closed bool
}

// OpenSnapshot captures to the head and returns a reader of the database at
// that commit. The caller closes it.
func (c *Capture) OpenSnapshot(ctx context.Context) (_ *SnapshotReader, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(); err != nil {
		return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, err)
	}
	if err := c.ready(ctx); err != nil {
		return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, err)
	}
	conn, err := sqlite.Open(ctx, c.files.Path(), sqlite.Options{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open snapshot of %s: %w", c.o.Name, err)
	}
	v, err := openView(ctx, c.files, conn)
	if err == nil {
		err = c.reach(ctx, v.x)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshot of %s: %w", c.o.Name, err), conn.Close())
	}
	c.views.Add(1)
	return &SnapshotReader{views: &c.views, conn: conn, view: v, pos: c.state.Position()}, nil
}

// reach captures up to the commit that x describes, and no further.
func (c *Capture) reach(ctx context.Context, x dbfile.WALIndex) error {
	if err := c.compareIfLost(ctx, c.flusher.absorb(x)); err != nil {
		return err
	}
	if err := c.compareIfLost(ctx, c.flusher.flush()); err != nil {
		return err
	}
	if c.state.Position().TXID == 0 {
		return errNothing
	}
	if c.state.Position().Change != x.Change {
		return errNoView
	}
	return nil
}

// Header returns the LTX header of the snapshot: MinTXID 1, MaxTXID the captured
// TXID, Commit the number of pages.
func (r *SnapshotReader) Header() ltx.Header {
	return ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: uint32(r.pos.PageSize), Commit: r.pos.Pages,
		MinTXID: 1, MaxTXID: r.pos.TXID, Timestamp: r.pos.Timestamp,
	}
}

// Checksum returns the database checksum at the snapshot's TXID.
func (r *SnapshotReader) Checksum() ltx.Checksum { return r.pos.Checksum }

// Taken returns when the last segment that the snapshot holds was taken.
func (r *SnapshotReader) Taken() moment.Stamp { return r.pos.Stamp() }

// Lineage returns the lineage that the snapshot belongs to.
func (r *SnapshotReader) Lineage() string { return r.pos.Lineage }

// Each calls f with every page from 1 to Commit but the lock page, ascending;
// data is valid during the call. It ends with an error, after the last page,
// if the pages do not add up to Checksum: the snapshot must not be used then.
func (r *SnapshotReader) Each(ctx context.Context, f func(page uint32, data []byte) error) error {
	sum := ltx.ChecksumFlag
	hasher := ltx.NewHasher()
	err := r.view.each(ctx, func(page uint32, data []byte) error {
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPageWithHasher(hasher, page, data))
		return f(page, data)
	})
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if sum != r.pos.Checksum {
		return fmt.Errorf("read snapshot: %w: pages add up to %s, the captured state to %s", dbfile.ErrChecksum, sum, r.pos.Checksum)
	}
	return nil
}

// WriteLTX writes the snapshot as an LTX file. spillDir takes the page index of
// a very large one; "" keeps it in memory. After an error what was written must
// not be used.
func (r *SnapshotReader) WriteLTX(ctx context.Context, w io.Writer, spillDir string) error {
	enc, err := ltx.NewEncoder(w)
	if err != nil {
		return err
	}
	enc.SetSpillDir(spillDir)
	if err := enc.EncodeHeader(r.Header()); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	err = r.Each(ctx, func(page uint32, data []byte) error { return enc.EncodePage(ltx.PageHeader{Pgno: page}, data) })
	if err != nil {
		return errors.Join(err, enc.Cleanup())
	}
	return enc.Close()
}

// Close ends the read transaction. It may be called again.
func (r *SnapshotReader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.views.Add(-1)
	return r.conn.Close()
}
