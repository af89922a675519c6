// Package segments writes what was read from a WAL into the spool, as segments.
package segments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Flusher turns the tail into segments of the spool.
type Flusher struct {
	files *dbfile.Files
	tail  *tail.Tail
	state *statedir.Dir
	found *overlay.Found // the comparison under way takes what would become a segment; nil: none

	Create func(*spool.Spool, ltx.Header) (*spool.Writer, error) // (*spool.Spool).Create, and
	Store  func(*Commit) error                                   // (*Commit).Run, except in tests of a bad disk

	Faulted func(*fault.Error) // told of each panic while a segment was stored, in the goroutine that had it

	// nil: none; it may outlast a freeze that waiting for it would make too long
	flushing *flushing
}

// flushing is a segment on its way to the disk. Until done is closed, the batch is the goroutine's.
type flushing struct {
	commit *Commit // nil: it could not be encoded
	err    error   // of encoding it
	told   bool    // End has returned why it failed
	done   chan struct{}
}

// Commit is an encoded segment that is not durable yet.
type Commit struct {
	w        *spool.Writer
	Record   spool.Record
	changes  []pagesums.Change
	encoding time.Duration // how long encoding it took
	err      error         // what Run returned
}

// Run makes the segment durable.
func (p *Commit) Run() error { return p.w.Commit(p.Record) }

// New returns a Flusher that writes the tail into the spool of the state directory.
func New(files *dbfile.Files, t *tail.Tail, state *statedir.Dir) *Flusher {
	return &Flusher{files: files, tail: t, state: state, Create: (*spool.Spool).Create, Store: (*Commit).Run,
		Faulted: func(*fault.Error) {}}
}

// Busy reports whether a segment is on its way to the disk.
func (f *Flusher) Busy() bool { return f.flushing != nil }

// Gather adds what is read from now on to what a comparison has found, instead of making segments of it, until
// the caller calls end.
func (f *Flusher) Gather(found *overlay.Found) (end func()) {
	f.found = found
	return func() { f.found = nil }
}

// Prepare makes the file that the comparison under way may need, before a freeze in which others wait.
func (f *Flusher) Prepare() {
	if f.found != nil {
		f.found.Prepare()
	}
}

// Absorb reads to x's end. What was read of an earlier generation is put into the spool first. See tail.Absorb.
func (f *Flusher) Absorb(x dbfile.WALIndex) error {
	if err := f.Wait(); err != nil {
		return err
	}
	if f.tail.OtherGeneration(x) {
		if err := f.tail.Proves(x); err != nil {
			return err
		}
		if err := f.Flush(); err != nil {
			return err
		}
	}
	return f.tail.Absorb(x)
}

// AbsorbWhole is Absorb with tail.Tail.Whole set to whole.
func (f *Flusher) AbsorbWhole(x dbfile.WALIndex, whole bool) error {
	f.tail.Whole = whole
	defer func() { f.tail.Whole = false }()
	return f.Absorb(x)
}

// AbsorbHead reads to the head.
func (f *Flusher) AbsorbHead() error {
	x, err := tail.Index(f.files)
	if err != nil {
		return err
	}
	return f.Absorb(x)
}

// Hurry sets how long reading and encoding may take, because others wait: they then end in tail.ErrBudget, and
// nothing is lost. The caller calls end when nobody waits any more.
func (f *Flusher) Hurry(budget time.Duration) (end func()) {
	f.tail.Deadline = time.Now().Add(budget)
	return func() { f.tail.Deadline = time.Time{} }
}

// AbsorbTail reads to the head before the deadline that Hurry has set, or returns tail.ErrBudget where so much
// has arrived meanwhile that it would take too long, going by what was measured before.
func (f *Flusher) AbsorbTail() error {
	x, err := tail.Index(f.files)
	if err != nil {
		return err
	}
	frames := x.MaxFrame
	if head := f.tail.Head; head.InGeneration(x) {
		frames -= min(frames, head.Frames.Frame)
	}
	if f.tail.Takes(frames, x.PageSize) > time.Until(f.tail.Deadline) {
		return tail.ErrBudget
	}
	return f.Absorb(x)
}

// Capture reads to x's end and makes what was read durable.
func (f *Flusher) Capture(x dbfile.WALIndex) error {
	if err := f.Absorb(x); err != nil {
		return err
	}
	return f.Flush()
}

// CaptureHead reads to the head and makes what was read durable.
func (f *Flusher) CaptureHead() error {
	if err := f.AbsorbHead(); err != nil {
		return err
	}
	return f.Flush()
}

// CaptureHeadUntil is CaptureHead with FlushUntil.
func (f *Flusher) CaptureHeadUntil(ctx context.Context) error {
	if err := f.AbsorbHead(); err != nil {
		return err
	}
	return f.FlushUntil(ctx)
}

// FlushUntil is Flush, but returns when ctx ends. The segment is then still on its way to a disk that may be slow, and
// Wait must follow. So whoever has to let go of the database at once need not wait for the disk.
func (f *Flusher) FlushUntil(ctx context.Context) error {
	if err := f.Begin(); err != nil || f.flushing == nil {
		return err
	}
	select {
	case <-f.flushing.done:
		return f.Wait()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Flush puts the batch into the spool.
func (f *Flusher) Flush() error {
	if err := f.Begin(); err != nil {
		return err
	}
	return f.Wait()
}

// Begin begins to encode the batch and to make it durable, in a goroutine: on a slow disk even the creation of a file
// may take long. End or Wait must follow before the tail is used again.
func (f *Flusher) Begin() error {
	if err := f.Wait(); err != nil {
		return err
	}
	if f.found != nil {
		return f.find()
	}
	if f.tail.Batch.Empty() {
		return nil
	}
	if err := f.tail.Grew(f.state.Position().Pages); err != nil {
		return err
	}
	next := f.state.Following(f.tail.Head, true)
	flushing := &flushing{done: make(chan struct{})}
	go func() {
		defer close(flushing.done)
		flushing.err = fault.Guard(func() (err error) {
			if flushing.commit, err = f.encode(next); err == nil {
				flushing.commit.err = f.Store(flushing.commit)
			}
			return err
		})
		if bug := fault.First(flushing.err); bug != nil {
			f.Faulted(bug)
		}
	}()
	f.flushing = flushing
	return nil
}

// End waits up to budget until the flush under way is durable. It writes and removes nothing: that is left to Wait,
// which a caller that freezes the application calls when it has let writers go, also after an error.
func (f *Flusher) End(budget time.Duration) error {
	if f.flushing == nil {
		return nil
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-f.flushing.done:
		f.flushing.told = true
		return f.flushing.failed()
	case <-timer.C:
		return tail.ErrBudget
	}
}

// failed returns why a flush that is done has failed, nil where it has not.
func (f *flushing) failed() error {
	if f.err != nil {
		return f.err
	}
	return f.commit.err
}

// Wait waits for the flush under way, however long it takes. An error that End has returned is not returned again.
func (f *Flusher) Wait() error {
	flushing := f.flushing
	if flushing == nil {
		return nil
	}
	<-flushing.done
	f.flushing = nil
	return f.adopt(flushing)
}

// encode writes the batch as a segment, which leads to the position next.
func (f *Flusher) encode(next spool.Position) (done *Commit, err error) {
	b, began := &f.tail.Batch, time.Now()
	w, err := f.Create(f.state.Spool(), ltx.Header{
		PageSize: uint32(next.PageSize), Commit: next.Pages, MinTXID: next.TXID, MaxTXID: next.TXID,
		Timestamp: next.Timestamp,
		WALOffset: b.WALHeader.FrameOffset(b.From.Frame + 1),
		WALSize:   int64(next.Frames.Frame-b.From.Frame) * int64(b.WALHeader.FrameSize()),
		WALSalt1:  b.WALHeader.Salt1, WALSalt2: b.WALHeader.Salt2,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if done == nil { // also where a panic leaves it
			err = errors.Join(err, w.Abort())
		}
	}()
	changes := make([]pagesums.Change, 0, b.Len())
	for page, v := range b.Pages(f.files.WAL(), next.Pages) {
		if v.Err != nil {
			return nil, fmt.Errorf("read wal frame %d again: %w", v.Frame, v.Err)
		}
		sum := pagecrc.Page(page, v.Data)
		if v.Sum != 0 && v.Sum != sum {
			return nil, tail.Discontinuous(tail.ReasonFrames, "frame %d changed after it was verified", v.Frame)
		}
		if err := w.Add(page, v.Data); err != nil {
			return nil, err
		}
		changes = append(changes, pagesums.Change{Page: page, Sum: sum})
	}
	delta, err := f.state.Sums().Delta(changes, next.Pages)
	if err != nil {
		return nil, err
	}
	next.Checksum = (next.Checksum ^ delta) | ltx.ChecksumFlag
	r, err := w.Finish(next, "")
	if err != nil {
		return nil, err
	}
	return &Commit{w: w, Record: r, changes: changes, encoding: time.Since(began)}, nil
}

// find adds the batch to what the comparison under way has found.
func (f *Flusher) find() error {
	b, head := &f.tail.Batch, f.tail.Head
	if b.Empty() {
		return nil
	}
	if err := f.tail.Grew(f.tail.Spooled.Pages); err != nil {
		return err
	}
	for page, v := range b.Pages(f.files.WAL(), head.Pages) {
		if v.Err != nil {
			return fmt.Errorf("read wal frame %d again: %w", v.Frame, v.Err)
		}
		if v.Sum != 0 && v.Sum != pagecrc.Page(page, v.Data) {
			return tail.Discontinuous(tail.ReasonFrames, "frame %d changed after it was verified", v.Frame)
		}
		if err := f.found.Take(page, v.Data); err != nil {
			return err
		}
	}
	f.tail.Restart(head)
	return nil
}

// adopt makes the position that a durable segment leads to the current one. If the commit failed, the batch is
// kept: the same commits go into another file.
func (f *Flusher) adopt(flushed *flushing) error {
	p := flushed.commit
	if err := flushed.failed(); err != nil {
		if flushed.told {
			err = nil
		}
		if p != nil {
			err = errors.Join(err, p.w.Abort())
		}
		return err
	}
	f.tail.Measure(p.encoding)
	f.tail.Restart(p.Record.Position)
	return f.state.Adopt(p.Record.Position, p.changes)
}
