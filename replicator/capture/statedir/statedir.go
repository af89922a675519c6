// Package statedir is the state directory of one captured database: the spool of segments, the page-checksum
// map that they are the redo log of, and the position after the last segment. On Open it decides where capture
// continues: from that position, from what a replica holds, or from nothing.
package statedir

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// sumsName is the page-checksum map's file in the state directory.
const sumsName = "pages.sum"

// Dir is one open state directory. Only its owner may call its methods; the Spool that it hands out may be used
// from any goroutine.
type Dir struct {
	Path  string
	Clock func() time.Time
	Log   *slog.Logger

	// Recover returns what the replica holds; it is called when the directory holds nothing to start from. It
	// returns TXID 0 for an empty replica. nil: there is no replica.
	Recover func(context.Context) (ltx.TXID, store.PageSums, error)

	lock   *durable.Flock
	spool  *spool.Spool
	sums   openSums
	pos    spool.Position // of the last segment
	broken bool           // the page-checksum map lacks a segment: Mend applies those in the spool again

	boot string         // the machine's boot id
	look moment.Reading // when the look under way began
	read moment.Reading // everything committed before was seen
	mark moment.Mark    // since when the next segment covers

	diskAsked time.Time // when to ask for the free space again
	diskLow   bool      // and whether it was short when last asked for
}

// Spool returns the captured segments. It is nil before Open.
func (s *Dir) Spool() *spool.Spool { return s.spool }

// Sums returns the page-checksum map, nil where there is none.
func (s *Dir) Sums() *pagesums.Map { return s.sums.open() }

// Position returns the position after the last segment.
func (s *Dir) Position() spool.Position { return s.pos }

// Broken reports whether the map lacks a segment: see Mend.
func (s *Dir) Broken() bool { return s.broken }

// CreateSums begins a new map, for AdoptMap or AdoptWhole.
func (s *Dir) CreateSums() (*pagesums.Writer, error) { return pagesums.Create(s.sumsPath()) }

func (s *Dir) sumsPath() string { return filepath.Join(s.Path, sumsName) }

// Origin is where Open took the position from.
type Origin int

// The origins.
const (
	FromNothing Origin = iota // nothing was ever captured
	FromReplica               // the directory held nothing that can be trusted, a replica does
	FromHere                  // the directory
)

// openSums is the page-checksum map while it is open, and afterwards the TXID up to which it is durable. The
// spool calls sync before it removes segments, from any goroutine.
type openSums struct {
	current atomic.Pointer[pagesums.Map]
	durable atomic.Uint64 // the TXID up to which the last sync made the map durable
}

func (o *openSums) open() *pagesums.Map { return o.current.Load() }

// sync makes the map durable and returns the TXID of the last segment in it.
func (o *openSums) sync() (ltx.TXID, error) {
	if m := o.open(); m != nil {
		return m.Sync()
	}
	return ltx.TXID(o.durable.Load()), nil
}

// replace makes m the map, and closes the previous one.
func (o *openSums) replace(m *pagesums.Map) error {
	if old := o.current.Swap(m); old != nil {
		return old.Close()
	}
	return nil
}

// close makes the map durable and closes it.
func (o *openSums) close() error {
	m := o.current.Swap(nil)
	if m == nil {
		return nil
	}
	through, err := m.Sync()
	o.durable.Store(uint64(through))
	return errors.Join(err, m.Close())
}

// Open locks the directory for this process and loads the position. *durable.HeldError: another process has it.
func (s *Dir) Open(ctx context.Context) (from Origin, err error) {
	if err := durable.MkdirAll(s.Path, 0o700); err != nil {
		return from, err
	}
	if s.lock, err = durable.Lock(filepath.Join(s.Path, "capture.lock")); err != nil {
		return from, err
	}
	if from, err = s.load(ctx); err != nil {
		err, s.lock = errors.Join(err, s.lock.Unlock()), nil
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, the clock was unwatched until now
	s.boot, s.mark = string(bytes.TrimSpace(boot)), s.pos.Mark
	if s.mark.Last.Wall.IsZero() {
		s.mark.Last.Wall = s.pos.Stamp().Time
	}
	s.read = s.mark.Last
	return from, err
}

// Close makes the map durable and unlocks the directory. The times of commits until the next Open will not be
// known, so the position records when that span began, and what the clocks showed.
func (s *Dir) Close() error {
	var err error
	if p := s.pos; s.lock != nil && p.TXID > 0 && s.mark != p.Mark {
		p.Mark = s.mark
		err = s.Restate(p)
	}
	return errors.Join(err, s.sums.close(), s.unlock())
}

// Abandon unlocks the directory as a killed process does: nothing is made durable.
func (s *Dir) Abandon() error {
	m := s.sums.current.Swap(nil)
	if m == nil {
		return s.unlock()
	}
	return errors.Join(m.Close(), s.unlock())
}

func (s *Dir) unlock() error {
	if s.lock == nil {
		return nil
	}
	lock := s.lock
	s.lock = nil
	return lock.Unlock()
}

// load finds the position that the state directory holds. If anything in the directory cannot be trusted, all
// of it is replaced by what the replica holds.
func (s *Dir) load(ctx context.Context) (Origin, error) {
	sp, found, err := spool.Open(s.Path)
	if err == nil && found {
		err = s.loadSums(sp)
	}
	switch {
	case err == nil && found:
		s.use(sp)
		return FromHere, nil
	case err == nil:
		return s.begin(ctx)
	case errors.Is(err, spool.ErrCorrupt), errors.Is(err, pagesums.ErrCorrupt):
		s.Log.Warn("state directory is corrupt; taking the position from the replica, no action needed", "err", err)
		return s.begin(ctx)
	}
	return FromNothing, err
}

func (s *Dir) use(sp *spool.Spool) {
	s.spool, s.pos = sp, sp.Position()
	sp.AfterSync(s.sums.sync)
}

// loadSums opens the page-checksum map and applies the segments that it may lack.
func (s *Dir) loadSums(sp *spool.Spool) error {
	m, err := pagesums.Open(s.sumsPath())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, pagesums.ErrCorrupt) {
		// A crash between the first segment and its map leaves this.
		if err := pagesums.Write(s.sumsPath(), 0, sp.Position().PageSize, nil); err != nil {
			return err
		}
		m, err = pagesums.Open(s.sumsPath())
	}
	if err != nil {
		return err
	}
	if err := redo(m, sp.After(m.Through())); err != nil {
		return errors.Join(err, m.Close())
	}
	sum, err := m.Checksum()
	if last := sp.Position(); err == nil && (sum != last.Checksum || m.Pages() != last.Pages) {
		err = fmt.Errorf("%w: adds up to %s, want %s", pagesums.ErrCorrupt, sum, last.Checksum)
	}
	if err != nil {
		return errors.Join(err, m.Close())
	}
	m.Reaches(sp.Position().TXID)
	return s.sums.replace(m)
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
		return fmt.Errorf("%w: %w", spool.ErrCorrupt, err)
	}
	data := make([]byte, dec.Header().PageSize)
	var changes []pagesums.Change
	for {
		var h ltx.PageHeader
		if err = dec.DecodePage(&h, data); err != nil {
			break
		}
		changes = append(changes, pagesums.Change{Page: h.Pgno, Sum: pagecrc.Page(h.Pgno, data)})
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
		return fmt.Errorf("%w: %w", spool.ErrCorrupt, err)
	}
	if hex.EncodeToString(sha.Sum(nil)) != s.SHA256 {
		return fmt.Errorf("%w: not the bytes that were captured", spool.ErrCorrupt)
	}
	return errors.Join(m.Put(changes), m.Cut(s.MaxTXID, s.Commit))
}

// begin makes a new state, from what the replica holds or from nothing.
func (s *Dir) begin(ctx context.Context) (from Origin, err error) {
	var last ltx.TXID
	var sums store.PageSums
	if s.Recover != nil {
		if last, sums, err = s.Recover(ctx); err != nil {
			return from, fmt.Errorf("ask the replica for its position: %w", err)
		}
	}
	if err := Discard(s.Path); err != nil {
		return from, err
	}
	if last > 0 {
		from = FromReplica
		if err := s.adoptReplica(last, sums); err != nil {
			return from, err
		}
	}
	sp, found, err := spool.Open(s.Path)
	if err == nil && found {
		err = s.loadSums(sp)
	}
	if err == nil {
		s.use(sp)
	}
	return from, err
}

// doubtOfReplica is the Doubt of a position that was taken from a replica.
const doubtOfReplica = "state"

// adoptReplica writes the state that corresponds to a replica at TXID last.
func (s *Dir) adoptReplica(last ltx.TXID, sums store.PageSums) error {
	if err := pagesums.Write(s.sumsPath(), last, sums.PageSize, sums.Sums); err != nil {
		return err
	}
	p := spool.Position{
		TXID: last, Lineage: sums.Lineage, PageSize: sums.PageSize, Pages: uint32(len(sums.Sums)),
		Checksum: ltx.ChecksumFlag, Doubt: doubtOfReplica,
	}
	for _, sum := range sums.Sums {
		p.Checksum = ltx.ChecksumFlag | (p.Checksum ^ sum)
	}
	if !sums.Taken.Time.IsZero() {
		p.Taken = &sums.Taken
	}
	if !sums.Timestamp.IsZero() {
		p.Timestamp = sums.Timestamp.UnixMilli() + 1 // above any fraction of the millisecond
	}
	return spool.Begin(s.Path, p)
}

// Mend repairs the map where it lacks a segment or could not be synced: the segments in the spool are its redo
// log. After a failed sync it writes the map to a new file.
func (s *Dir) Mend() error {
	m := s.sums.open()
	unsynced := m != nil && m.Failed()
	if !s.broken && !unsynced {
		return nil
	}
	s.broken = true // until all of this is done
	if unsynced {
		if err := pagesums.Rewrite(s.sumsPath()); err != nil {
			return fmt.Errorf("write the page checksums anew after a failed sync: %w", err)
		}
	}
	if err := s.loadSums(s.spool); err != nil {
		return err
	}
	s.broken = false
	return nil
}

// Following returns p as the position after the next segment: with the next TXID, and a time that rises
// whatever the clock did. Unless continuity is proven, looks since the last segment do not count for the time
// span that the next one covers.
func (s *Dir) Following(p spool.Position, proven bool) spool.Position {
	_, now := s.now()
	mark := s.mark
	mark.Watch(now)
	if !proven {
		mark.Since = s.pos.Mark.Since // as of the last segment, without the looks since
		if mark.Since.After(s.pos.Stamp().Time) {
			mark.Since = time.Time{}
		}
	}
	p.TXID = s.pos.TXID + 1
	p.Timestamp = max(s.pos.Timestamp+1, now.Wall.UnixMilli())
	taken := s.pos.Stamp().Next(p.TXID, now.Wall, time.UnixMilli(p.Timestamp).UTC(), mark)
	p.Taken = &taken
	p.Mark.Taken(s.read)
	p.Main = spool.MainFile{}
	return p
}

// now reads the clocks; it returns the time as Clock gave it, and the reading that contains it.
func (s *Dir) now() (now time.Time, r moment.Reading) {
	const atOnce = 10 * time.Millisecond
	r.Boot = s.boot
	for range 10 { // a process stopped between two clocks would read a step that no clock made
		before := sinceBoot()
		now = s.Clock()
		if r.Passed = sinceBoot(); r.Passed-before < atOnce {
			break
		}
	}
	r.Wall = now.UTC().Round(0)
	return now, r
}

// sinceBoot is how long ago the machine was started, time in suspension included where the system counts it.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(bootClock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Look begins a look at the database, and returns the time.
func (s *Dir) Look() (now time.Time) {
	now, s.look = s.now()
	return now
}

// Seen notes that everything committed before the look began was seen and, where settled, is in the spool.
func (s *Dir) Seen(settled bool) {
	if s.read = s.look; settled {
		s.mark.Look(s.look)
	} else {
		s.mark.Watch(s.look)
	}
}

// Anew notes that the whole database is about to be read: everything committed until now will be seen.
func (s *Dir) Anew() {
	_, s.read = s.now()
	s.mark.Watch(s.read)
}

// Adopt makes p, which a durable segment leads to, the position, and applies the segment's changes to the map.
func (s *Dir) Adopt(p spool.Position, changes []pagesums.Change) error {
	s.pos = p
	s.mark.Taken(s.read)
	m := s.sums.open()
	err := m.Put(changes)
	if err == nil { // otherwise the map would claim to include the segment
		err = m.Cut(p.TXID, p.Pages)
	}
	if err != nil {
		s.broken = true
		return fmt.Errorf("apply segment %s: %w", p.TXID, err)
	}
	return nil
}

// AdoptMap makes p, which a durable segment leads to, the position, and puts the map that was written in place
// of the old one.
func (s *Dir) AdoptMap(p spool.Position, written *pagesums.Writer) error {
	s.pos = p
	s.mark.Taken(s.read)
	err := written.Commit(p.TXID, p.PageSize)
	if err == nil {
		var m *pagesums.Map
		if m, err = pagesums.Open(s.sumsPath()); err == nil {
			return s.sums.replace(m)
		}
	}
	s.broken = true // Mend, or the next Open after a crash, makes the map again from the segment
	return err
}

// AdoptWhole makes p the position where no segment leads to it: the map was written, and replicas read the
// database itself. A crash between the map and the position leaves two that do not match, which the next Open
// notices. keep says whether the segments in the spool are still to be shipped.
func (s *Dir) AdoptWhole(p spool.Position, written *pagesums.Writer, keep bool) error {
	if err := written.Commit(p.TXID, p.PageSize); err != nil {
		return err
	}
	m, err := pagesums.Open(s.sumsPath())
	if err != nil {
		return err
	}
	if err := s.spool.Skip(p, keep); err != nil {
		return errors.Join(err, m.Close())
	}
	s.pos, s.broken = p, false
	s.mark.Taken(s.read)
	return s.sums.replace(m)
}

// Doubt makes p the position even if it cannot be written down.
func (s *Dir) Doubt(p spool.Position) error {
	s.pos = p
	return s.spool.Restate(p)
}

// Restate makes p the position, which stands for the same content of the database.
func (s *Dir) Restate(p spool.Position) error {
	if err := s.spool.Restate(p); err != nil {
		return err
	}
	s.pos = p
	return nil
}

// diskFloor is what capture leaves free on the state directory's file system, in bytes.
const diskFloor = 64 << 20

// DiskFull reports whether no more than that is free. It looks at most once a second.
func (s *Dir) DiskFull() bool {
	if now := s.Clock(); now.After(s.diskAsked) {
		s.diskAsked = now.Add(time.Second)
		var fs unix.Statfs_t
		err := unix.Statfs(s.Path, &fs)
		s.diskLow = err == nil && fs.Bavail*uint64(fs.Bsize) < diskFloor
	}
	return s.diskLow
}

// Room returns an error where the directory's file system has no space to spare.
func (s *Dir) Room() error {
	if s.DiskFull() {
		return fmt.Errorf("less than %d MB are free on the file system of %s", int64(diskFloor)>>20, s.Path)
	}
	return nil
}

// Discard removes the state in a directory, because it cannot be trusted or is no longer wanted. No other
// Capture than the caller's may have the directory open.
func Discard(stateDir string) error {
	err := durable.Remove(filepath.Join(stateDir, sumsName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(spool.Discard(stateDir), err)
}
