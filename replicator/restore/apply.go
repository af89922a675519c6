package restore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// application executes one plan. It processes the files from the newest to the oldest and
// writes each page once, in its newest version:
//
//	fetcher ─ parts ─► walk (cuts frames, decides which are wanted) ─ batches ─► workers (decompress, sum, write)
//	                                                                └─ in order ► fold (joins a file's sums)
//
// walk is one goroutine, the only one that uses the bitmap; a batch belongs to one goroutine
// at a time. The number of batches and parts bounds the memory.
type application struct {
	store    store.Store
	plan     *catalog.Plan
	out      io.WriterAt                            // receives the pages; nil: they are not written
	sums     *pageSums                              // receives the checksum of each page; nil: not wanted
	inFull   bool                                   // read all of every file, to find out which one is corrupt
	prepare  func(pageSize int, pages uint32) error // called before the first write; may be nil
	progress func(done int64)                       // called with bytes of objects consumed; may be nil
	kept     *kept                                  // pages that an earlier restore wrote; nil: none

	pageSize int
	pages    uint32 // of the restored state
	limit    uint32 // the database was truncated to this since: larger page numbers of older files are gone
	missing  int64  // pages not found yet
	have     []uint64
	shift    *pagecrc.Shift

	buffers chan []byte // of fetchers
	queues
	checksum  atomic.Uint64 // XOR of the written pages' checksums
	announced ltx.Checksum  // post-apply checksum of the newest file, where its format has one
}

const (
	batchPages = 256 << 10 // most decompressed bytes of a batch: it stays in a processor's cache
	rangedSize = 8 << 20   // the smallest object whose page index is read, to fetch only wanted pages
)

// queues are the places where a batch can be.
type queues struct {
	work, order, free chan *pageBatch
}

// pageBatch is a run of frames of one file.
type pageBatch struct {
	file   *fileState
	before []byte // bytes of the file that precede the frames
	raw    []byte
	frames []frame
	after  []byte // bytes of the file that follow them
	ends   bool   // the file ends with this batch
	pages  []byte // decompressed
	crcs   []uint64
	ready  chan struct{}
	err    error
}

// fileState is one file while its batches are folded.
type fileState struct {
	store.LTXFile
	header ltx.Header
	verify bool // it is read in full, so its checksum can be verified
	crc    uint64
	tail   []byte // the last bytes read so far
}

// apply executes the plan. When it returns nil, every page was found, and the checksums match
// of every file that was read in full, and of the database if the replica knows its checksum.
func (a *application) apply(ctx context.Context) error {
	workers := runtime.GOMAXPROCS(0)
	batches := 2*workers + 2
	a.work, a.order, a.free = make(chan *pageBatch, batches), make(chan *pageBatch, batches), make(chan *pageBatch,
		batches)
	for range batches {
		a.free <- &pageBatch{}
	}
	a.buffers = make(chan []byte, partsAhead)
	g, ctx := errgroup.WithContext(ctx)
	protect := func(f func() error) { g.Go(func() error { return fault.Guard(f) }) } // a drill must not end the daemon
	for range workers {
		protect(func() error { return a.decompress(ctx) })
	}
	protect(func() error { return a.fold(ctx) })
	protect(func() error {
		defer close(a.work)
		defer close(a.order)
		return a.walk(ctx)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return a.verdict()
}

// verdict checks that no page is missing and that the database's checksum is the known one.
func (a *application) verdict() error {
	if a.missing > 0 {
		return fmt.Errorf("page %d of %d is in none of the %d planned files: %w", a.firstMissing(), a.pages,
			len(a.plan.Files), ErrIncomplete)
	}
	newest := a.plan.Files[len(a.plan.Files)-1].Object.Key
	got := ltx.Checksum(a.checksum.Load()) | ltx.ChecksumFlag
	for _, want := range []ltx.Checksum{a.plan.Checksum, a.announced} {
		if want != 0 && want != got {
			return &ChecksumError{Key: newest, Got: got, Want: want}
		}
	}
	return nil
}

// ChecksumError says that files, each of them intact, made a different database from the one
// that was replicated.
type ChecksumError struct {
	Key       string // of the newest file, which states the checksum
	Got, Want ltx.Checksum
}

// Error names both checksums.
func (e *ChecksumError) Error() string {
	return fmt.Sprintf("the restored pages have the checksum %s, %s says %s: one of the planned objects is not of this "+
		"history", e.Got, e.Key, e.Want)
}

// walk goes through the files from the newest to the oldest. It fetches small ones in full,
// ahead of time; for a large one it decides when its turn comes, by the pages that are still
// wanted from it.
func (a *application) walk(ctx context.Context) error {
	end := len(a.plan.Files)
	if a.kept != nil {
		older := a.kept.olderFiles(a.plan.Files)
		if err := a.walkFiles(ctx, older, end); err != nil {
			return err
		}
		if err := a.takeKept(ctx); err != nil || a.missing == 0 {
			return err
		}
		end = older
	}
	return a.walkFiles(ctx, 0, end)
}

// walkFiles is walk for the plan's files from first to end, which is exclusive.
func (a *application) walkFiles(ctx context.Context, first, end int) error {
	files := a.plan.Files
	for end > first {
		begin := end - 1
		listed, err := a.sums.walk(ctx, a, files[begin])
		if listed && err == nil {
			end = begin
			continue
		}
		if err != nil {
			return err
		}
		if a.ranged(begin) {
			err = a.walkRanges(ctx, files[begin])
		} else {
			for begin > first && !a.ranged(begin-1) && !a.sums.listed(files[begin-1]) {
				begin--
			}
			err = a.walkWhole(ctx, files[begin:end])
		}
		if err != nil {
			return err
		}
		end = begin
	}
	return nil
}

// ErrIncomplete says that a page of the database is in no file of the plan.
var ErrIncomplete = errors.New("the replica is incomplete")

// proven reports whether the database's checksum is known and is proof enough for a large
// file. Then it may be read in part; if it is read in full, its own checksum is compared, but
// not its SHA-256, which would take a fifth of a restore's time. After a failed attempt
// (inFull) every check is made, to find the object that is to blame.
func (a *application) proven(f store.LTXFile) bool {
	return !a.inFull && a.plan.Checksum != 0 && f.Object.Size >= rangedSize
}

// ranged reports whether only parts of file i may be read. All pages of the newest file are
// wanted, unless some were kept from an earlier restore.
func (a *application) ranged(i int) bool {
	return (i < len(a.plan.Files)-1 || a.have != nil) && a.proven(a.plan.Files[i])
}

// walkWhole reads files in full, the last one first.
func (a *application) walkWhole(ctx context.Context, files []store.LTXFile) error {
	extents := make([]extent, 0, len(files))
	for i := len(files) - 1; i >= 0; i-- {
		extents = append(extents, whole(files[i]))
	}
	f := newFetcher(ctx, a.store, extents, a.buffers)
	defer f.stop()
	for _, e := range extents {
		if err := a.walkFile(ctx, f, e); err != nil {
			return blame(e.file, err)
		}
	}
	return nil
}

// blame turns an error about a file's contents into one that names the file. It leaves
// errors of the store and the context alone.
func blame(f store.LTXFile, err error) error {
	var bad *badFileError
	if errors.As(err, &bad) {
		return &store.CorruptError{Key: f.Object.Key, Err: bad.err}
	}
	return err
}

// badFileError marks an error as being about a file's contents.
type badFileError struct{ err error }

func (e *badFileError) Error() string { return e.err.Error() }

func (a *application) walkFile(ctx context.Context, fetcher *fetcher, e extent) error {
	if e.length < ltx.HeaderSize+ltx.TrailerSize {
		return &badFileError{fmt.Errorf("it has %d bytes only", e.length)}
	}
	r := &objectReader{ctx: ctx, fetcher: fetcher, extent: e, hashed: !a.proven(e.file)}
	defer r.close()
	cut := &frameCutter{r: r}
	head, err := cut.take(nil, ltx.HeaderSize)
	if err != nil {
		return frameError(err)
	}
	state, err := a.begin(e.file, head)
	if err != nil {
		return err
	}
	state.verify = true
	cut.header = state.header
	return a.cutPages(ctx, state, cut, head, e.length)
}

// begin checks a file's header against its key and the files before it.
func (a *application) begin(f store.LTXFile, head []byte) (*fileState, error) {
	h, err := checkHeader(f, head)
	if err != nil {
		return nil, &badFileError{err}
	}
	return &fileState{LTXFile: f, header: h}, a.enter(h)
}

// enter checks that a file with this header fits the newer files, and applies its database size.
func (a *application) enter(h ltx.Header) error {
	if a.have == nil {
		if err := a.size(h); err != nil {
			return &badFileError{err}
		}
		if a.prepare != nil {
			if err := a.prepare(a.pageSize, a.pages); err != nil {
				return err
			}
		}
	}
	if int(h.PageSize) != a.pageSize {
		return &badFileError{fmt.Errorf("its pages have %d bytes, those of newer files %d", h.PageSize, a.pageSize)}
	}
	a.limit = min(a.limit, h.Commit)
	return nil
}

// size takes the size of the database from the newest file's header, if the files can
// possibly hold so many pages.
func (a *application) size(h ltx.Header) error {
	if most := maxPages(a.plan.Bytes, int(h.PageSize)); int64(h.Commit) > most+1 {
		return fmt.Errorf("its header claims %d pages, but all files together can hold %d", h.Commit, most)
	}
	a.pageSize, a.pages, a.limit = int(h.PageSize), h.Commit, h.Commit
	a.missing = int64(h.Commit)
	if h.LockPgno() <= h.Commit {
		a.missing--
	}
	a.have = make([]uint64, int(h.Commit)/64+1)
	a.shift = pagecrc.NewShift(a.pageSize)
	if a.sums != nil {
		a.sums.all = make([]ltx.Checksum, h.Commit)
	}
	return nil
}

// claim reports whether this version of a page is the one to write.
func (a *application) claim(pgno uint32) bool {
	word, bit := pgno/64, uint64(1)<<(pgno%64)
	if pgno > a.limit || a.have[word]&bit != 0 {
		return false
	}
	a.have[word] |= bit
	a.missing--
	return true
}

func (a *application) firstMissing() uint32 {
	for pgno := uint32(1); pgno <= a.pages; pgno++ {
		if a.have[pgno/64]&(1<<(pgno%64)) == 0 && pgno != ltx.LockPgno(uint32(a.pageSize)) {
			return pgno
		}
	}
	return 0
}

// cutPages sends a file's frames to the workers, then its page index and trailer.
func (a *application) cutPages(ctx context.Context, state *fileState, cut *frameCutter, before []byte,
	size int64) error {
	for last := false; !last; before = nil {
		b, err := a.take(ctx, state)
		if err != nil {
			return err
		}
		b.before = append(b.before, before...)
		for len(b.frames) < max(1, batchPages/a.pageSize) {
			var f frame
			if f, b.raw, err = cut.next(b.raw); err != nil {
				return frameError(err)
			}
			if f.pgno == 0 {
				b.after = append(b.after, b.raw[f.start:]...)
				b.raw, last = b.raw[:f.start], true
				break
			}
			f.wanted = a.claim(f.pgno)
			b.frames = append(b.frames, f)
		}
		a.send(b)
	}
	return a.cutTail(ctx, state, cut, size)
}

// frameError marks errors of decoding as badFileError, and leaves errors of reading
// alone.
func frameError(err error) error {
	var fetch *fetchError
	if errors.As(err, &fetch) {
		return fetch.err
	}
	return &badFileError{err}
}

// cutTail passes on the page index and the trailer. The index is only needed here because
// the file's checksum covers it.
func (a *application) cutTail(ctx context.Context, state *fileState, cut *frameCutter, size int64) error {
	if size-cut.offset < ltx.TrailerSize+8+1 {
		return &badFileError{errors.New("it ends within its page index")}
	}
	for cut.offset < size {
		b, err := a.take(ctx, state)
		if err != nil {
			return err
		}
		n := min(size-cut.offset, batchPages)
		if b.after, err = cut.take(b.after, int(n)); err != nil {
			return frameError(err)
		}
		b.ends = cut.offset == size
		a.send(b)
	}
	return nil
}

// take waits for a free batch.
func (a *application) take(ctx context.Context, state *fileState) (*pageBatch, error) {
	select {
	case b := <-a.free:
		*b = pageBatch{file: state, before: b.before[:0], raw: b.raw[:0], frames: b.frames[:0], after: b.after[:0],
			pages: b.pages, crcs: b.crcs, ready: make(chan struct{})}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// send hands a batch to a worker and to fold; both queues have room for all batches.
func (a *application) send(b *pageBatch) {
	a.work <- b
	a.order <- b
}

// decompress is one worker: it decodes batches until work is closed.
func (a *application) decompress(ctx context.Context) error {
	for b := range a.work {
		if ctx.Err() == nil {
			b.err = a.decode(b)
		}
		close(b.ready)
	}
	return nil
}

// decode decompresses a batch's pages, sums them and writes the wanted ones.
func (a *application) decode(b *pageBatch) error {
	if n := len(b.frames) * a.pageSize; cap(b.pages) < n {
		b.pages = make([]byte, n)
	}
	b.crcs = b.crcs[:0]
	var sum ltx.Checksum
	run := 0 // the frames before this one are written, or not wanted
	for i, f := range b.frames {
		page := b.pages[i*a.pageSize : (i+1)*a.pageSize : (i+1)*a.pageSize]
		if err := f.decompress(b.raw, page); err != nil {
			return &store.CorruptError{Key: b.file.Object.Key, Err: fmt.Errorf("page %d: %w", f.pgno, err)}
		}
		crc := pagecrc.Update(0, page)
		b.crcs = append(b.crcs, crc)
		if f.wanted {
			s := a.shift.Page(f.pgno, crc)
			sum ^= s
			if a.sums != nil {
				a.sums.all[f.pgno-1] = s
			}
		}
		if i > 0 && (!f.wanted || !b.frames[i-1].wanted || f.pgno != b.frames[i-1].pgno+1) {
			if err := a.write(b, run, i); err != nil {
				return err
			}
			run = i
		}
	}
	a.addChecksum(sum)
	return a.write(b, run, len(b.frames))
}

// addChecksum XORs sum into the database's checksum; any goroutine may call it.
func (a *application) addChecksum(sum ltx.Checksum) {
	for old := a.checksum.Load(); !a.checksum.CompareAndSwap(old, old^uint64(sum)); old = a.checksum.Load() {
	}
}

// write writes a batch's frames from..to-1, which are consecutive pages, if they are wanted.
func (a *application) write(b *pageBatch, from, to int) error {
	if a.out == nil || from == to || !b.frames[from].wanted {
		return nil
	}
	_, err := a.out.WriteAt(b.pages[from*a.pageSize:to*a.pageSize], int64(b.frames[from].pgno-1)*int64(a.pageSize))
	if err != nil {
		return fmt.Errorf("write page %d: %w", b.frames[from].pgno, err)
	}
	return nil
}

// fold takes the batches in order, joins their sums into the file's checksum
// and frees them.
func (a *application) fold(ctx context.Context) error {
	for b := range a.order {
		select {
		case <-b.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := errors.Join(b.err, ctx.Err()); err != nil { // batches are not decoded once ctx has ended
			return err
		}
		if b.file.verify {
			a.foldSums(b)
		}
		if b.ends {
			if err := a.endFile(b.file); err != nil {
				return &store.CorruptError{Key: b.file.Object.Key, Err: err}
			}
		}
		if a.progress != nil {
			a.progress(int64(len(b.before) + len(b.raw) + len(b.after)))
		}
		a.free <- b
	}
	return nil
}

func (a *application) foldSums(b *pageBatch) {
	s := b.file
	s.crc = pagecrc.Update(s.crc, b.before)
	for i, f := range b.frames {
		s.crc = pagecrc.Update(s.crc, b.raw[f.start:f.start+f.header])
		s.crc = a.shift.Join(s.crc, b.crcs[i])
	}
	// The last 24 bytes are kept for endFile: the size of the page index, the post-apply checksum,
	// and the file's checksum, which does not cover itself.
	s.tail = append(s.tail, b.after...)
	if keep := len(s.tail) - 8 - ltx.TrailerSize; keep > 0 {
		s.crc = pagecrc.Update(s.crc, s.tail[:keep])
		s.tail = append(s.tail[:0], s.tail[keep:]...)
	}
}

// endFile compares a file's checksum with its trailer. It need not check the page index,
// which was not used to find pages.
func (a *application) endFile(s *fileState) error {
	if len(s.tail) < 8+ltx.TrailerSize {
		return errors.New("it ends within its page index")
	}
	s.crc = pagecrc.Update(s.crc, s.tail[:16])
	post := ltx.Checksum(binary.BigEndian.Uint64(s.tail[8:]))
	if got, want := ltx.Checksum(s.crc)|ltx.ChecksumFlag, ltx.Checksum(binary.BigEndian.Uint64(s.tail[16:])); got != want {
		return fmt.Errorf("its checksum is %s, its trailer says %s", got, want)
	}
	if !s.header.NoChecksum() && s.MaxTXID == a.plan.TXID {
		a.announced = post
	}
	return nil
}
