// Package tail holds what was read from a WAL and is not in the spool yet, and proves that no commit was missed
// while it was read.
package tail

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/batch"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Tail is what was read from the WAL and is not in the spool yet.
type Tail struct {
	files *dbfile.Files
	clock func() time.Time

	Spooled spool.Position // of the last segment: where a tail begins
	Head    spool.Position // of the last frame in Batch; equals Spooled when that is empty
	Batch   batch.Batch
	scanner dbfile.FrameScanner
	Pending time.Time // when the oldest commit that is not in the spool was first seen, read or not
	Commits int       // read since reset to 0
	Whole   bool      // the WAL as it is now, of a generation after the head's, has everything committed since
	Frames  int       // likewise

	Deadline time.Time     // set while others wait: reading stops with ErrBudget then; zero: no deadline
	spent    time.Duration // time to read what is in Batch
	Rate     float64       // bytes of frames read and encoded in a second, as last measured
}

// New returns an empty tail.
func New(files *dbfile.Files, clock func() time.Time) *Tail { return &Tail{files: files, clock: clock} }

// firstRate is assumed until something was measured, in bytes per second.
const firstRate = 100e6

// Takes estimates how long it takes to read and encode frames.
func (t *Tail) Takes(frames uint32, pageSize int) time.Duration {
	rate := t.Rate
	if rate == 0 {
		rate = firstRate
	}
	bytes := float64(frames) * float64(pageSize+dbfile.FrameHeaderSize)
	return time.Duration(bytes / rate * float64(time.Second))
}

// Measure updates Rate with the time it took to encode what is in the batch. Few frames tell nothing; a slow
// result counts at once, a quick one little by little.
func (t *Tail) Measure(encoding time.Duration) {
	bytes := int64(t.Batch.Frames()) * int64(t.Batch.WALHeader.FrameSize())
	if bytes < 1<<18 {
		return
	}
	rate := float64(bytes) / max(t.spent+encoding, time.Microsecond).Seconds()
	if t.Rate == 0 || rate < t.Rate {
		t.Rate = rate
		return
	}
	t.Rate += (rate - t.Rate) / 4
}

// Restart empties the tail: everything up to p is in the spool.
func (t *Tail) Restart(p spool.Position) {
	t.Spooled = p
	t.Rewind()
}

// Rewind forgets what was read and is not in the spool; it is read again.
func (t *Tail) Rewind() {
	t.Batch.Reset()
	t.Head, t.Pending, t.spent = t.Spooled, time.Time{}, 0
}

// Release frees the memory of an idle database for others.
func (t *Tail) Release() { t.Batch, t.scanner = batch.Batch{}, dbfile.FrameScanner{} }

// Met notes that commits were seen that are not in the spool yet.
func (t *Tail) Met(now time.Time) {
	if t.Pending.IsZero() {
		t.Pending = now
	}
}

// OtherGeneration reports whether the batch is of a WAL generation before x's: it
// must then be flushed before anything of x's is read.
func (t *Tail) OtherGeneration(x dbfile.WALIndex) bool {
	return !t.Batch.Empty() && !t.Head.Current(x) && !t.Head.InGeneration(x)
}

// DiscontinuityError says that continuity cannot be proven, and why.
type DiscontinuityError struct {
	Reason Reason
	Detail string
}

// Error says what was found.
func (e *DiscontinuityError) Error() string {
	return fmt.Sprintf("continuity not proven (%s): %s", e.Reason, e.Detail)
}

// Discontinuous returns a *DiscontinuityError.
func Discontinuous(r Reason, format string, args ...any) error {
	return &DiscontinuityError{r, fmt.Sprintf(format, args...)}
}

// Errors that end a reading and prove nothing: the caller tries again.
var (
	// ErrRestarting says that the WAL is being restarted at this very moment.
	ErrRestarting = errors.New("wal is being restarted: look again")
	// ErrBudget says that reading would have taken longer than writers may wait.
	ErrBudget = errors.New("stall budget spent")
)

// Proves returns a *DiscontinuityError where x cannot follow from the head.
func (t *Tail) Proves(x dbfile.WALIndex) error {
	switch behind := x.Change - t.Head.Change; {
	case x.PageSize != t.Head.PageSize:
		return Discontinuous(ReasonPageSize, "from %d to %d bytes", t.Head.PageSize, x.PageSize)
	case int32(behind) < 0 && !t.goesOn(x):
		return Discontinuous(ReasonWALIndex, "commit counter went from %d to %d", t.Head.Change, x.Change)
	case x.MaxFrame == 0:
		return Discontinuous(ReasonWALReset, "%d commits are gone from the wal", behind)
	}
	return nil
}

// goesOn reports whether x is of the head's generation and not behind the head, or Whole applies. The running
// checksum from the head to x's end is then the proof, and the commit counter is not: after a kill the
// wal-index is rebuilt from the WAL and counts from 0. Any reset draws other salts, and a process that writes
// over frames that we have read breaks the checksum.
func (t *Tail) goesOn(x dbfile.WALIndex) bool {
	if t.Whole && !t.Head.InGeneration(x) {
		return x.MaxFrame > 0
	}
	return t.Head.InGeneration(x) && x.Salt2 != 0 && x.MaxFrame > 0 && x.MaxFrame >= t.Head.Frames.Frame
}

// Absorb reads the frames from the head to the end of x into the batch, which is empty or of x's generation.
// The caller holds the WAL, and read x after it began to hold it. A *DiscontinuityError says that something was
// missed; the batch must then not be used.
func (t *Tail) Absorb(x dbfile.WALIndex) error {
	if t.Head.Current(x) {
		return nil
	}
	if err := t.Proves(x); err != nil {
		return err
	}
	h, err := t.files.WALHeader()
	if err != nil {
		return err
	}
	if h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		return ErrRestarting
	}
	from := h.Start()
	switch same := t.Head.InGeneration(x); {
	case same && x.MaxFrame < t.Head.Frames.Frame:
		return Discontinuous(ReasonFrames, "wal went back from frame %d to %d", t.Head.Frames.Frame, x.MaxFrame)
	case same && t.Head.Frames.Frame > 0: // at frame 0 there is no checksum to go on from
		from = t.Head.Frames
	}
	return t.scan(h, from, x)
}

// clockEvery is how many pages are read between two looks at the clock.
const clockEvery = 64

// Late reports whether the deadline has passed, if there is one.
func (t *Tail) Late(pages int) bool {
	return pages%clockEvery == 0 && !t.Deadline.IsZero() && time.Now().After(t.Deadline)
}

// scan reads the frames up to x's end and proves that they are all that was committed.
func (t *Tail) scan(h dbfile.WALHeader, from dbfile.Position, x dbfile.WALIndex) error {
	b := &t.Batch
	if b.Empty() {
		b.WALHeader, b.From, b.Lowest = h, from, t.Head.Pages
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
		if t.Late(b.Frames()) {
			t.Rewind()
			return ErrBudget
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
	counts := x.Change - t.Head.Change
	if !counted(counts, commits, repeats) && t.goesOn(x) && int32(counts) < int32(commits) {
		counts = commits - repeats // the wal-index was rebuilt
	}
	switch err := t.scanner.Err(); {
	case errors.Is(err, dbfile.ErrSalt), errors.Is(err, dbfile.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return Discontinuous(t.blame(x), "%v", err)
	case err != nil:
		t.Rewind()
		return err
	case t.scanner.Position() != x.Position(), size != x.Pages:
		return Discontinuous(ReasonFrames, "wal and wal-index differ at frame %d", x.MaxFrame)
	case !counted(counts, commits, repeats):
		return Discontinuous(ReasonWALReset, "%d commits happened and %d are in the wal", counts, commits)
	}
	t.spent += time.Since(began)
	t.Frames += int(x.MaxFrame - from.Frame)
	t.Commits += int(counts)
	t.Head = t.Head.Moved(x)
	t.Met(t.clock())
	return nil
}

// counted reports whether commits may have left that number of commit frames, of which repeats repeat the frame
// before. On a disk that does not promise powersafe overwrite (psow=0), SQLite fills a sector up by writing the last
// frame again, commit mark included; but an application that writes the same row twice leaves such frames too.
func counted(commits, frames, repeats uint32) bool {
	return frames-repeats <= commits && commits <= frames
}

// Grew returns a *DiscontinuityError when the batch lacks one of the pages by which the database grew beyond
// its former size, pages.
func (t *Tail) Grew(pages uint32) error {
	if missing := t.Batch.Missing(pages, t.Head.Pages); missing != 0 {
		return Discontinuous(ReasonGrowth, "%d of the pages by which the database grew from %d to %d", missing, pages,
			t.Head.Pages)
	}
	return nil
}

// blame distinguishes frames that were reset while we read them, as may happen when all of them were backfilled
// before our transaction began, from frames that are wrong.
func (t *Tail) blame(x dbfile.WALIndex) Reason {
	now, err := t.files.WALIndex()
	if err == nil && (now.Salt1 != x.Salt1 || now.Salt2 != x.Salt2) {
		return ReasonWALReset
	}
	return ReasonFrames
}

// Index reads the wal-index. When the WAL is empty and the wal-index was created after that, it knows neither
// the page size nor the size of the database; they are then taken from the main file, which is all there is.
// The caller holds the WAL if it is to rely on them.
func Index(files *dbfile.Files) (dbfile.WALIndex, error) {
	x, err := files.WALIndex()
	if err != nil || x.MaxFrame > 0 || x.PageSize > 0 && x.Pages > 0 {
		return x, err
	}
	h, err := files.Header()
	if errors.Is(err, dbfile.ErrEmpty) {
		return x, nil
	}
	if err != nil {
		return x, err
	}
	x.PageSize, x.Pages = h.PageSize, h.Pages
	if !h.PagesValid() {
		st, err := files.Stat()
		if err != nil {
			return x, err
		}
		x.Pages = uint32(st.DatabaseSize / int64(h.PageSize))
	}
	return x, nil
}
