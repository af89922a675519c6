package capture

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/batch"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// tail is what was read from the WAL and is not in the spool yet.
type tail struct {
	files *dbfile.Files
	clock func() time.Time

	spooled spool.Position // of the last segment: where a tail begins
	head    spool.Position // of the last frame in batch; equals spooled when that is empty
	batch   batch.Batch
	scanner dbfile.FrameScanner
	pending time.Time // when the oldest commit that is not in the spool was met, read or not
	commits int       // read since reset to 0
	frames  int       // likewise

	deadline time.Time     // while others wait: to be read by then, or not; zero: there is none
	spent    time.Duration // reading what is in batch
	rate     float64       // bytes of frames read and encoded in a second, as last measured
}

// firstRate is believed of a machine on which nothing was measured yet, in bytes a second.
const firstRate = 100e6

// takes returns how long it takes to read and encode so many frames.
func (t *tail) takes(frames uint32, pageSize int) time.Duration {
	rate := t.rate
	if rate == 0 {
		rate = firstRate
	}
	bytes := float64(frames) * float64(pageSize+dbfile.FrameHeaderSize)
	return time.Duration(bytes / rate * float64(time.Second))
}

// measure takes in how long it took to encode what is in the batch. Few frames tell
// nothing; a slow moment counts at once, a quick one little by little.
func (t *tail) measure(encoding time.Duration) {
	bytes := int64(t.batch.Frames()) * int64(t.batch.WALHeader.FrameSize())
	if bytes < 1<<18 {
		return
	}
	rate := float64(bytes) / max(t.spent+encoding, time.Microsecond).Seconds()
	if t.rate == 0 || rate < t.rate {
		t.rate = rate
		return
	}
	t.rate += (rate - t.rate) / 4
}

// restart empties the tail: everything up to p is in the spool.
func (t *tail) restart(p spool.Position) {
	t.spooled = p
	t.rewind()
}

// rewind forgets what was read and is not in the spool; it is read again.
func (t *tail) rewind() {
	t.batch.Reset()
	t.head, t.pending, t.spent = t.spooled, time.Time{}, 0
}

// release gives the memory of an idle database to those who write.
func (t *tail) release() { t.batch, t.scanner = batch.Batch{}, dbfile.FrameScanner{} }

// met notes commits that stay where they are for now.
func (t *tail) met(now time.Time) {
	if t.pending.IsZero() {
		t.pending = now
	}
}

// otherGeneration reports whether the batch is of a WAL generation before x's: it
// must then be flushed before anything of x's is read.
func (t *tail) otherGeneration(x dbfile.WALIndex) bool {
	return !t.batch.Empty() && !t.head.Current(x) && !t.head.InGeneration(x)
}

// discontinuityError says that continuity cannot be proven, and why.
type discontinuityError struct {
	reason Reason
	detail string
}

func (e *discontinuityError) Error() string {
	return fmt.Sprintf("continuity not proven (%s): %s", e.reason, e.detail)
}

func discontinuous(r Reason, format string, args ...any) error {
	return &discontinuityError{r, fmt.Sprintf(format, args...)}
}

// errRestarting says that the WAL is being restarted at this very moment.
var errRestarting = errors.New("wal is being restarted: look again")

// proves returns a *discontinuityError where x does not follow from the head.
func (t *tail) proves(x dbfile.WALIndex) error {
	switch behind := x.Change - t.head.Change; {
	case x.PageSize != t.head.PageSize:
		return discontinuous(ReasonPageSize, "from %d to %d bytes", t.head.PageSize, x.PageSize)
	case int32(behind) < 0:
		return discontinuous(ReasonWALIndex, "commit counter went from %d to %d", t.head.Change, x.Change)
	case x.MaxFrame == 0:
		return discontinuous(ReasonWALReset, "%d commits are gone from the wal", behind)
	}
	return nil
}

// absorb reads the frames from where we are to x's head into the batch, which is
// empty or of x's generation. The caller holds the WAL, and x was read after it
// began to. A *discontinuityError says that something was missed; the batch is
// then of no use.
func (t *tail) absorb(x dbfile.WALIndex) error {
	if t.head.Current(x) {
		return nil
	}
	if err := t.proves(x); err != nil {
		return err
	}
	h, err := t.files.WALHeader()
	if err != nil {
		return err
	}
	if h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		return errRestarting
	}
	from := h.Start()
	switch same := t.head.InGeneration(x); {
	case same && x.MaxFrame < t.head.Frames.Frame:
		return discontinuous(ReasonFrames, "wal went back from frame %d to %d", t.head.Frames.Frame, x.MaxFrame)
	case same && t.head.Frames.Frame > 0: // at frame 0 there is no checksum to go on from
		from = t.head.Frames
	}
	return t.scan(h, from, x)
}

// clockEvery is after how many pages the clock is looked at.
const clockEvery = 64

// late reports whether the deadline has passed, if there is one.
func (t *tail) late(pages int) bool {
	return pages%clockEvery == 0 && !t.deadline.IsZero() && time.Now().After(t.deadline)
}

// scan reads frames up to x's head and proves that they are all that was committed.
func (t *tail) scan(h dbfile.WALHeader, from dbfile.Position, x dbfile.WALIndex) error {
	b := &t.batch
	if b.Empty() {
		b.WALHeader, b.From, b.Lowest = h, from, t.head.Pages
	}
	wal := t.files.WAL()
	if wal == nil {
		return dbfile.ErrNoWAL
	}
	t.scanner.Reset(wal, h, from, x.MaxFrame)
	began := time.Now()
	var commits, repeats, size uint32
	var before dbfile.FrameHeader
	for t.scanner.Next() {
		if t.late(b.Frames()) {
			t.rewind()
			return errBudget
		}
		f := t.scanner.Frame()
		if f.Commit != 0 && f.Page == before.Page && f.Commit == before.Commit && b.Holds(f.Page, t.scanner.Page()) {
			repeats++
		}
		before = f
		b.Put(f.Page, t.scanner.Position().Frame, t.scanner.Page())
		if size = f.Commit; size != 0 {
			commits++
			b.Lowest = min(b.Lowest, size)
		}
	}
	switch err := t.scanner.Err(); {
	case errors.Is(err, dbfile.ErrSalt), errors.Is(err, dbfile.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return discontinuous(t.blame(x), "%v", err)
	case err != nil:
		t.rewind()
		return err
	case t.scanner.Position() != x.Position(), size != x.Pages:
		return discontinuous(ReasonFrames, "wal and wal-index differ at frame %d", x.MaxFrame)
	case !counted(x.Change-t.head.Change, commits, repeats):
		return discontinuous(ReasonWALReset, "%d commits happened and %d are in the wal", x.Change-t.head.Change, commits)
	}
	t.spent += time.Since(began)
	t.frames += int(x.MaxFrame - from.Frame)
	t.commits += int(x.Change - t.head.Change)
	t.head = t.head.Moved(x)
	t.met(t.clock())
	return nil
}

// counted reports whether so many commits may have left so many commit frames. Where
// a disk does not promise to leave the rest of a sector alone (psow=0), SQLite fills
// the sector up by writing the last frame again, commit mark included; but an
// application that writes the same row twice leaves such frames too.
func counted(commits, frames, repeats uint32) bool {
	return frames-repeats <= commits && commits <= frames
}

// grew returns a *discontinuityError when a page by which the database grew since it had
// so many is not in the batch.
func (t *tail) grew(pages uint32) error {
	if missing := t.batch.Missing(pages, t.head.Pages); missing != 0 {
		return discontinuous(ReasonGrowth, "%d of the pages by which the database grew from %d to %d", missing, pages,
			t.head.Pages)
	}
	return nil
}

// blame tells frames that were reset while we read them, as may happen when all
// were backfilled before our transaction began, from frames that are wrong.
func (t *tail) blame(x dbfile.WALIndex) Reason {
	now, err := t.files.WALIndex()
	if err == nil && (now.Salt1 != x.Salt1 || now.Salt2 != x.Salt2) {
		return ReasonWALReset
	}
	return ReasonFrames
}
