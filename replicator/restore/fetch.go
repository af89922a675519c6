package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	getTries   = 4
	getBackoff = 200 * time.Millisecond
)

// How far fetchers read ahead: the size of one GET, and how many of them are in flight or not
// yet decoded. The product bounds the memory.
const (
	// A store across a network answers late: request much, and early.
	partSize   = 4 << 20
	partsAhead = 6
	// A directory answers at once. With little read ahead, the data is still in the
	// processor's cache when it is decoded, and the buffers are reused.
	nearPartSize   = 1 << 20
	nearPartsAhead = 3
)

// readAhead returns how far to read extents ahead. If the listing came with metadata, the
// store is a directory, where requests are cheap.
func readAhead(extents []extent) (size int64, parts int) {
	if len(extents) > 0 && extents[0].file.Object.Metadata != nil {
		return nearPartSize, nearPartsAhead
	}
	return partSize, partsAhead
}

// extent is a range of an object's bytes.
type extent struct {
	file           store.LTXFile
	offset, length int64
}

// whole returns the extent of a whole file.
func whole(f store.LTXFile) extent { return extent{file: f, length: f.Object.Size} }

// part is a piece of an extent, fetched by one GET.
type part struct {
	extent
	done chan struct{}
	data []byte
	obj  store.Object
	err  error
}

// fetcher reads extents in order and fetches the next ones ahead. It is for one reader; stop
// cancels the requests in flight.
type fetcher struct {
	store  store.Store
	queue  chan *part
	slots  chan struct{}
	cancel context.CancelFunc
	free   chan []byte // buffers to reuse
}

// newFetcher begins to fetch extents.
func newFetcher(ctx context.Context, st store.Store, extents []extent, free chan []byte) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	size, parts := readAhead(extents)
	f := &fetcher{
		store: st, cancel: cancel, free: free,
		queue: make(chan *part, parts),
		slots: make(chan struct{}, parts),
	}
	go f.run(ctx, extents, size)
	return f
}

// run starts a GET per part, in order, as far ahead as there are slots.
func (f *fetcher) run(ctx context.Context, extents []extent, partSize int64) {
	defer close(f.queue)
	for _, e := range extents {
		for at := int64(0); at < e.length; at += partSize {
			p := &part{extent: extent{e.file, e.offset + at, min(partSize, e.length-at)}, done: make(chan struct{})}
			select {
			case f.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer close(p.done)
				p.err = fault.Guard(func() (err error) {
					p.data, p.obj, err = f.get(ctx, p.extent)
					return err
				})
			}()
			f.queue <- p // never blocks: as many places as slots
		}
	}
}

// stop ends the fetcher. It does not wait for the requests in flight, which it cancels.
func (f *fetcher) stop() { f.cancel() }

// next waits for the next part. The caller must release it.
func (f *fetcher) next(ctx context.Context) (*part, error) {
	select {
	case p, ok := <-f.queue:
		if !ok {
			return nil, errors.Join(ctx.Err(), io.ErrUnexpectedEOF)
		}
		select {
		case <-p.done:
			return p, p.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fetcher) release(p *part) {
	select {
	case f.free <- p.data[:0]:
	default:
	}
	<-f.slots
}

// get fetches one part and retries errors that may be temporary.
func (f *fetcher) get(ctx context.Context, e extent) ([]byte, store.Object, error) {
	var buf []byte
	select {
	case buf = <-f.free:
	default:
	}
	if int64(cap(buf)) < e.length {
		buf = make([]byte, e.length)
	}
	buf = buf[:e.length]
	for try := 1; ; try++ {
		obj, err := getFull(ctx, f.store, e, buf)
		if err == nil || try == getTries || final(err) || ctx.Err() != nil {
			return buf, obj, store.Unreadable(ctx, e.file.Object.Key, try, err)
		}
		wait := time.NewTimer(time.Duration(float64(getBackoff<<(try-1)) * (0.5 + rand.Float64())))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return buf, store.Object{}, ctx.Err()
		}
	}
}

// final reports whether a retry would fail in the same way.
func final(err error) bool {
	var corrupt *store.CorruptError
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrAuth) || errors.Is(err, store.ErrMisplaced) ||
		errors.As(err, &corrupt)
}

func getFull(ctx context.Context, st store.Store, e extent, buf []byte) (store.Object, error) {
	r, obj, err := st.Get(ctx, e.file.Object.Key, e.offset, e.length)
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	if obj.Size != e.file.Object.Size {
		return store.Object{}, &store.CorruptError{Key: e.file.Object.Key,
			Err: fmt.Errorf("it has %d bytes, the listing said %d", obj.Size, e.file.Object.Size)}
	}
	if n, err := io.ReadFull(r, buf); err != nil {
		return store.Object{}, fmt.Errorf("it ended after %d of %d bytes from offset %d: %w", n, e.length, e.offset, err)
	}
	return obj, nil
}

// objectReader reads one extent from a fetcher, which must be positioned at it.
type objectReader struct {
	ctx     context.Context // an io.Reader has no other way to get it, and this one lives for one call
	fetcher *fetcher
	extent  extent
	hashed  bool  // compare a whole object with the SHA-256 in its metadata
	read    int64 // bytes of the extent up to the end of the current part
	part    *part
	rest    []byte
	sum     hash.Hash
	want    string // the SHA-256 in the metadata
	etag    string
}

func (r *objectReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.read == r.extent.length {
			return 0, io.EOF
		}
		if err := r.load(); err != nil {
			return 0, &fetchError{err}
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// load releases the current part and takes the next one.
func (r *objectReader) load() error {
	r.close()
	p, err := r.fetcher.next(r.ctx)
	if err != nil {
		return err
	}
	key := r.extent.file.Object.Key
	if r.read == 0 {
		r.etag, r.want = p.obj.ETag, p.obj.Metadata[store.MetaSHA256]
		if r.hashed && r.want != "" && r.extent.length == p.obj.Size {
			r.sum = sha256.New()
		}
	} else if p.obj.ETag != r.etag {
		return &store.CorruptError{Key: key, Err: errors.New("it was replaced while it was read")}
	}
	r.part, r.rest = p, p.data
	r.read += p.length
	if r.sum == nil {
		return nil
	}
	r.sum.Write(p.data)
	if got := hex.EncodeToString(r.sum.Sum(nil)); r.read == r.extent.length && got != r.want {
		return &store.CorruptError{Key: key, Err: fmt.Errorf("its sha256 is %s, want %s", got, r.want)}
	}
	return nil
}

// fetchError marks an error as one of reading, not of decoding.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }

// close releases the current part.
func (r *objectReader) close() {
	if r.part != nil {
		r.fetcher.release(r.part)
		r.part, r.rest = nil, nil
	}
}
