package capture

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// load finds the position that the state directory holds. Whatever in it cannot
// be believed, all of it is given up for what the replica holds.
func (c *Capture) load(ctx context.Context) error {
	s, found, err := spool.Open(c.o.StateDir)
	if err == nil && found {
		err = c.loadSums(s)
	}
	switch {
	case err == nil && found:
		c.use(s)
		if why := c.pos.Doubt; why != "" {
			c.distrust(Reason(why), "the comparison had not ended when sqlwatch did")
		}
		return nil
	case err == nil:
		return c.recover(ctx)
	case errors.Is(err, spool.ErrDamaged), errors.Is(err, pagesums.ErrDamaged):
		c.log.Warn("state directory is damaged; taking the position from the replica, nothing to do", "err", err)
		return c.recover(ctx)
	}
	return err
}

func (c *Capture) use(s *spool.Spool) {
	c.spool = s
	c.pos = s.Position()
	s.SettleBy(func() (ltx.TXID, error) {
		if m := c.sums.Load(); m != nil {
			return m.Sync()
		}
		return ltx.TXID(c.settled.Load()), nil
	})
}

// loadSums opens the page-checksum map and applies the segments it may lack.
func (c *Capture) loadSums(s *spool.Spool) error {
	m, err := pagesums.Open(c.sumsPath())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, pagesums.ErrDamaged) {
		// A crash between the first segment and its map leaves this.
		if err := pagesums.Write(c.sumsPath(), 0, s.Position().PageSize, nil); err != nil {
			return err
		}
		m, err = pagesums.Open(c.sumsPath())
	}
	if err != nil {
		return err
	}
	if err := redo(m, s.After(m.Through())); err != nil {
		return errors.Join(err, m.Close())
	}
	sum, err := m.Checksum()
	if last := s.Position(); err == nil && (sum != last.Checksum || m.Pages() != last.Pages) {
		err = fmt.Errorf("%w: adds up to %s, want %s", pagesums.ErrDamaged, sum, last.Checksum)
	}
	if err != nil {
		return errors.Join(err, m.Close())
	}
	m.Reaches(s.Position().TXID)
	if old := c.sums.Swap(m); old != nil {
		return old.Close()
	}
	return nil
}

// redo applies segments to the map.
func redo(m *pagesums.Map, segments []spool.Segment) error {
	for _, s := range segments {
		if s.Snapshot() {
			if err := m.Restart(s.PageSize); err != nil {
				return err
			}
		}
		if err := redoSegment(m, s); err != nil {
			return fmt.Errorf("apply segment %s to page-checksum map: %w", s.MaxTXID, err)
		}
	}
	return nil
}

// redoChunk is how many entries are applied at a time.
const redoChunk = 1 << 14

func redoSegment(m *pagesums.Map, s spool.Segment) (err error) {
	file, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sha := sha256.New()
	r := bufio.NewReaderSize(io.TeeReader(file, sha), 1<<18)
	dec := ltx.NewDecoder(r)
	dec.SetRetainPageIndex(false)
	if err := dec.DecodeHeader(); err != nil {
		return fmt.Errorf("%w: %w", spool.ErrDamaged, err)
	}
	data := make([]byte, dec.Header().PageSize)
	var changes []pagesums.Change
	for {
		var h ltx.PageHeader
		if err = dec.DecodePage(&h, data); err != nil {
			break
		}
		changes = append(changes, pagesums.Change{Page: h.Pgno, Sum: ltx.ChecksumPage(h.Pgno, data)})
		if len(changes) == redoChunk {
			if err := m.Put(changes); err != nil {
				return err
			}
			changes = changes[:0]
		}
	}
	if errors.Is(err, io.EOF) {
		err = dec.Close()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", spool.ErrDamaged, err)
	}
	if hex.EncodeToString(sha.Sum(nil)) != s.SHA256 {
		return fmt.Errorf("%w: not the bytes that were captured", spool.ErrDamaged)
	}
	return errors.Join(m.Put(changes), m.Cut(s.MaxTXID, s.Commit))
}

// recover begins from the replica, or from nothing.
func (c *Capture) recover(ctx context.Context) error {
	var last ltx.TXID
	var sums store.PageSums
	if c.o.Recover != nil {
		var err error
		if last, sums, err = c.o.Recover(ctx); err != nil {
			return fmt.Errorf("ask the replica for its position: %w", err)
		}
	}
	if err := Discard(c.o.StateDir); err != nil {
		return err
	}
	if last > 0 {
		if err := c.adoptReplica(last, sums); err != nil {
			return err
		}
	}
	s, found, err := spool.Open(c.o.StateDir)
	if err != nil {
		return err
	}
	if found {
		if err := c.loadSums(s); err != nil {
			return err
		}
	}
	c.use(s)
	c.head = c.pos
	if last == 0 {
		c.distrust(ReasonFirst, "")
	} else {
		c.distrust(ReasonState, "position taken from the replica: "+last.String())
	}
	return nil
}

// adoptReplica writes the state that a replica at TXID last stands for.
func (c *Capture) adoptReplica(last ltx.TXID, sums store.PageSums) error {
	if err := pagesums.Write(c.sumsPath(), last, sums.PageSize, sums.Sums); err != nil {
		return err
	}
	p := spool.Position{TXID: last, Lineage: sums.Lineage, PageSize: sums.PageSize, Pages: uint32(len(sums.Sums)), Checksum: ltx.ChecksumFlag, Doubt: string(ReasonState)}
	for _, sum := range sums.Sums {
		p.Checksum = ltx.ChecksumFlag | (p.Checksum ^ sum)
	}
	if !sums.Timestamp.IsZero() {
		p.Timestamp = sums.Timestamp.UnixMilli() + 1 // above any fraction of the millisecond
	}
	return spool.Begin(c.o.StateDir, p)
}

// Discard removes a state that cannot be believed, or shall not be. No Capture may
// have it open but the one that asks.
func Discard(stateDir string) error {
	err := durable.Remove(filepath.Join(stateDir, sumsName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(spool.Discard(stateDir), err)
}

func newLineage() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
