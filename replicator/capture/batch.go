package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// batchMemory is how many bytes of pages a batch keeps. A transaction may be
// larger than any memory: beyond it only their frames are remembered.
const batchMemory = 16 << 20

// refsFirstCompaction is the number of frame references at which superseded
// ones are dropped for the first time; then at every doubling.
const refsFirstCompaction = 1 << 16

// frameRef is a page version that is in the WAL. The sum makes sure that the
// bytes read later are those whose running checksum was verified.
type frameRef struct {
	page, frame uint32
	sum         ltx.Checksum
}

// batch is what was read from the WAL and is not in the spool yet: the newest
// version of each page, all of one WAL generation, ending at a commit.
type batch struct {
	walHeader dbfile.WALHeader
	from      dbfile.Position
	frames    uint32         // how many were read
	lowest    uint32         // the smallest size the database had meanwhile, in pages
	slots     map[uint32]int // page → its place in data
	data      []byte         // one page a slot; kept for the next batch
	refs      []frameRef     // used instead of slots when spilled
	spilled   bool
	compactAt int
}

func (b *batch) empty() bool { return b.frames == 0 }

func (b *batch) reset() {
	clear(b.slots)
	*b = batch{slots: b.slots, data: b.data[:0], refs: b.refs[:0]}
}

// put adds a page version, later ones replacing earlier ones.
func (b *batch) put(page, frame uint32, data []byte) {
	b.frames++
	if b.slots == nil {
		b.slots = make(map[uint32]int)
	}
	if !b.spilled {
		slot, ok := b.slots[page]
		switch {
		case ok:
			copy(b.data[slot*len(data):], data)
			b.refs[slot].frame = frame
			return
		case len(b.data)+len(data) <= batchMemory:
			b.slots[page] = len(b.refs)
			b.refs = append(b.refs, frameRef{page: page, frame: frame})
			b.data = append(b.data, data...)
			return
		}
		b.spill(len(data))
	}
	b.refs = append(b.refs, frameRef{page, frame, ltx.ChecksumPage(page, data)})
	if len(b.refs) >= b.compactAt {
		b.compact()
	}
}

// spill forgets the bytes and keeps their checksums.
func (b *batch) spill(pageSize int) {
	for i := range b.refs {
		b.refs[i].sum = ltx.ChecksumPage(b.refs[i].page, b.data[i*pageSize:(i+1)*pageSize])
	}
	clear(b.slots)
	b.data, b.spilled, b.compactAt = b.data[:0], true, refsFirstCompaction
}

// compact keeps the newest version of each page, in ascending order.
func (b *batch) compact() {
	slices.SortFunc(b.refs, func(x, y frameRef) int {
		if x.page != y.page {
			return int(int64(x.page) - int64(y.page))
		}
		return int(int64(y.frame) - int64(x.frame))
	})
	b.refs = slices.CompactFunc(b.refs, func(x, y frameRef) bool { return x.page == y.page })
	b.compactAt = max(refsFirstCompaction, 2*len(b.refs))
}

// pages yields the newest version of each page up to commit, ascending, without
// the lock page. The bytes are valid until the next one.
func (b *batch) pages(wal io.ReaderAt, commit uint32) iter.Seq2[uint32, pageVersion] {
	size := b.walHeader.PageSize
	lock := ltx.LockPgno(uint32(size))
	return func(yield func(uint32, pageVersion) bool) {
		order := make([]int, len(b.refs))
		if b.spilled {
			b.compact()
			order = order[:len(b.refs)]
		}
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(x, y int) int { return int(int64(b.refs[x].page) - int64(b.refs[y].page)) })
		buf := make([]byte, size)
		for _, i := range order {
			ref := b.refs[i]
			if ref.page > commit || ref.page == lock {
				continue
			}
			v := pageVersion{frame: ref.frame, sum: ref.sum}
			if b.spilled {
				v.data = buf
				_, v.err = wal.ReadAt(buf, b.walHeader.FrameOffset(ref.frame)+dbfile.FrameHeaderSize)
			} else {
				v.data = b.data[i*size : (i+1)*size]
			}
			if !yield(ref.page, v) {
				return
			}
		}
	}
}

// pageVersion is one page's content. sum is 0 where it was not computed yet.
type pageVersion struct {
	frame uint32
	data  []byte
	sum   ltx.Checksum
	err   error
}

// grew returns an error when a page by which the database grew is not in the
// batch: SQLite writes each of them to the WAL, so its lack proves that commits
// were missed.
func (b *batch) grew(from, to uint32) error {
	from = min(from, b.lowest)
	if to <= from {
		return nil
	}
	lock := ltx.LockPgno(uint32(b.walHeader.PageSize))
	missing := to - from
	if from < lock && lock <= to {
		missing--
	}
	if b.spilled {
		b.compact()
	}
	for _, ref := range b.refs {
		if from < ref.page && ref.page <= to && ref.page != lock {
			missing--
		}
	}
	if missing != 0 {
		return doubtful(ReasonGrowth, "%d of the pages %d to %d", missing, from+1, to)
	}
	return nil
}

// doubtError says that continuity cannot be proven, and why.
type doubtError struct {
	reason Reason
	detail string
}

func (e *doubtError) Error() string {
	return fmt.Sprintf("continuity not proven (%s): %s", e.reason, e.detail)
}

func doubtful(r Reason, format string, args ...any) error {
	return &doubtError{r, fmt.Sprintf(format, args...)}
}

// errUnsettled says that the WAL is being restarted at this very moment.
var errUnsettled = errors.New("wal is being restarted: look again")

// absorb reads the frames from where we are to x's head into the batch. The
// caller holds the WAL, and x was read after it began to. A *doubtError says
// that something was missed; the batch is then of no use.
func (c *Capture) absorb(x dbfile.WALIndex) error {
	if c.head.Current(x) {
		return nil
	}
	if x.PageSize != c.head.PageSize {
		return doubtful(ReasonPageSize, "from %d to %d bytes", c.head.PageSize, x.PageSize)
	}
	if int32(x.Change-c.head.Change) < 0 {
		return doubtful(ReasonWALIndex, "commit counter went from %d to %d", c.head.Change, x.Change)
	}
	if x.MaxFrame == 0 {
		return doubtful(ReasonWALReset, "%d commits are gone from the wal", x.Change-c.head.Change)
	}
	h, err := c.files.WALHeader()
	if err != nil {
		return err
	}
	if h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		return errUnsettled
	}
	from := h.Start()
	switch same := c.head.InGeneration(x); {
	case same && x.MaxFrame < c.head.Frames.Frame:
		return doubtful(ReasonFrames, "wal went back from frame %d to %d", c.head.Frames.Frame, x.MaxFrame)
	case same && c.head.Frames.Frame > 0: // at frame 0 there is no checksum to go on from
		from = c.head.Frames
	case !same && !c.batch.empty():
		if err := c.flush(context.Background()); err != nil { // of the generation before
			return err
		}
	}
	return c.scan(h, from, x)
}

// scan reads frames up to x's head and proves that they are all that was committed.
func (c *Capture) scan(h dbfile.WALHeader, from dbfile.Position, x dbfile.WALIndex) error {
	b := &c.batch
	if b.empty() {
		b.walHeader, b.from, b.lowest = h, from, c.head.Pages
	}
	wal := c.files.WAL()
	if wal == nil {
		return dbfile.ErrNoWAL
	}
	c.scanner.Reset(wal, h, from, x.MaxFrame)
	var commits, size uint32
	for c.scanner.Next() {
		f := c.scanner.Frame()
		b.put(f.Page, c.scanner.Position().Frame, c.scanner.Page())
		if size = f.Commit; size != 0 {
			commits++
			b.lowest = min(b.lowest, size)
		}
	}
	switch err := c.scanner.Err(); {
	case errors.Is(err, dbfile.ErrSalt), errors.Is(err, dbfile.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return doubtful(c.blame(x), "%v", err)
	case err != nil:
		return errors.Join(err, c.rewind())
	case c.scanner.Position() != x.Position(), size != x.Pages:
		return doubtful(ReasonFrames, "wal and wal-index differ at frame %d", x.MaxFrame)
	case commits != x.Change-c.head.Change:
		return doubtful(ReasonWALReset, "%d commits happened and %d are in the wal", x.Change-c.head.Change, commits)
	}
	c.tally.Frames += int(x.MaxFrame - from.Frame)
	c.tally.Commits += int(commits)
	c.head = c.head.Moved(x)
	if c.pending.IsZero() {
		c.pending = c.o.Clock()
	}
	return nil
}

// blame tells frames that were reset while we read them, as may happen when all
// were backfilled before our transaction began, from frames that are wrong.
func (c *Capture) blame(x dbfile.WALIndex) Reason {
	now, err := c.files.WALIndex()
	if err == nil && (now.Salt1 != x.Salt1 || now.Salt2 != x.Salt2) {
		return ReasonWALReset
	}
	return ReasonFrames
}

// rewind forgets what was read and is not in the spool; it is read again.
func (c *Capture) rewind() error {
	c.batch.reset()
	c.head, c.pending = c.pos, time.Time{}
	return nil
}

// absorbHead reads to the head.
func (c *Capture) absorbHead() error {
	x, err := readIndex(c.files)
	if err != nil {
		return err
	}
	return c.absorb(x)
}

// tailRate is how many bytes of frames are read and encoded in a second, at the least.
const tailRate = 400e6

// absorbTail reads to the head while writers wait, or returns errBudget where that
// much came meanwhile that it would take too long: a large transaction, say.
func (c *Capture) absorbTail(budget time.Duration) error {
	x, err := readIndex(c.files)
	if err != nil {
		return err
	}
	tail := x.MaxFrame
	if c.head.InGeneration(x) {
		tail -= min(tail, c.head.Frames.Frame)
	}
	if float64(tail)*float64(x.PageSize+dbfile.FrameHeaderSize) > budget.Seconds()*tailRate {
		return errBudget
	}
	return c.absorb(x)
}

// catchUp reads to the head and makes it durable.
func (c *Capture) catchUp(ctx context.Context) error {
	if err := c.absorbHead(); err != nil {
		return err
	}
	return c.flush(ctx)
}

// flush puts the batch into the spool.
func (c *Capture) flush(context.Context) error {
	if err := c.settleFlush(); err != nil {
		return err
	}
	commit, err := c.encode()
	if err != nil || commit == nil {
		return err
	}
	commit.err = c.commit(commit)
	return c.adopt(commit)
}

// beginFlush encodes the batch and sets out to make it durable. endFlush or
// settleFlush must follow before anything else is read.
func (c *Capture) beginFlush() error {
	if err := c.settleFlush(); err != nil {
		return err
	}
	commit, err := c.encode()
	if err != nil || commit == nil {
		return err
	}
	done := make(chan struct{})
	go func() { commit.err = c.commit(commit); close(done) }()
	c.flushing = &flushing{commit, done}
	return nil
}

// endFlush waits so long for the flush under way. A caller that freezes the
// application and gets errBudget must let writers go, and then call settleFlush.
func (c *Capture) endFlush(budget time.Duration) error {
	if c.flushing == nil {
		return nil
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-c.flushing.done:
		return c.settleFlush()
	case <-timer.C:
		return errBudget
	}
}

// settleFlush waits for the flush under way, however long it takes.
func (c *Capture) settleFlush() error {
	f := c.flushing
	if f == nil {
		return nil
	}
	<-f.done
	c.flushing = nil
	return c.adopt(f.commit)
}

// flushing is a segment on its way to the disk.
type flushing struct {
	commit *pendingCommit
	done   chan struct{}
}

// pendingCommit is an encoded segment that is not durable yet.
type pendingCommit struct {
	w       *spool.Writer
	record  spool.Record
	changes []pagesums.Change
	err     error // of run
}

func (p *pendingCommit) run() error { return p.w.Commit(p.record) }

// encode writes the batch as a segment and works out the position after it; nil
// if there is nothing to write.
func (c *Capture) encode() (_ *pendingCommit, err error) {
	b := &c.batch
	if b.empty() {
		return nil, nil
	}
	if err := b.grew(c.pos.Pages, c.head.Pages); err != nil {
		return nil, err
	}
	next := c.following(c.head)
	w, err := c.spool.Create(ltx.Header{
		PageSize: uint32(next.PageSize), Commit: next.Pages, MinTXID: next.TXID, MaxTXID: next.TXID, Timestamp: next.Timestamp,
		WALOffset: b.walHeader.FrameOffset(b.from.Frame + 1), WALSize: int64(c.head.Frames.Frame-b.from.Frame) * int64(b.walHeader.FrameSize()),
		WALSalt1: b.walHeader.Salt1, WALSalt2: b.walHeader.Salt2,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}()
	changes := make([]pagesums.Change, 0, len(b.refs))
	for page, v := range b.pages(c.files.WAL(), next.Pages) {
		if v.err != nil {
			return nil, fmt.Errorf("read wal frame %d again: %w", v.frame, v.err)
		}
		sum := w.Sum(page, v.data)
		if v.sum != 0 && v.sum != sum {
			return nil, doubtful(ReasonFrames, "frame %d changed after it was verified", v.frame)
		}
		if err := w.Add(page, v.data); err != nil {
			return nil, err
		}
		changes = append(changes, pagesums.Change{Page: page, Sum: sum})
	}
	delta, err := c.sums.Load().Delta(changes, next.Pages)
	if err != nil {
		return nil, err
	}
	next.Checksum = (next.Checksum ^ delta) | ltx.ChecksumFlag
	r, err := w.Finish(next, "")
	if err != nil {
		return nil, err
	}
	return &pendingCommit{w: w, record: r, changes: changes}, nil
}

// following returns p as the position after a next segment: the next TXID, and a
// time that has risen whatever the clock did.
func (c *Capture) following(p spool.Position) spool.Position {
	p.TXID = c.pos.TXID + 1
	p.Timestamp = max(c.pos.Timestamp+1, c.o.Clock().UnixMilli())
	p.Main = spool.MainFile{}
	return p
}

// adopt makes a durable segment the position. After an error of the commit
// the batch is kept: the same commits go into another file.
func (c *Capture) adopt(p *pendingCommit) error {
	if p.err != nil {
		return errors.Join(p.err, p.w.Abort())
	}
	c.pos = p.record.Position
	c.head = c.pos
	c.batch.reset()
	c.pending = time.Time{}
	c.tally.Spooled = true
	m := c.sums.Load()
	err := m.Put(p.changes)
	if err == nil { // or the map would claim to reach farther than it does
		err = m.Cut(c.pos.TXID, c.pos.Pages)
	}
	if err != nil {
		c.broken = true
		return fmt.Errorf("apply segment %s: %w", c.pos.TXID, err)
	}
	return nil
}
