package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

func (r *restorer) describeV3(p *catalog.GenerationPlan) {
	r.result.Lineage, r.result.Objects, r.result.ObjectBytes, r.result.Timestamp = p.Generation, nil, 0, p.Time()
	for _, obj := range p.Objects() {
		r.result.Objects = append(r.result.Objects, obj.Key)
		r.result.ObjectBytes += obj.Size
	}
}

// buildGenerations fills the stage from a replica of Litestream 0.3.
func (r *restorer) buildGenerations(ctx context.Context, p *catalog.GenerationPlan) error {
	start := time.Now()
	defer func() { r.result.ApplyTime = time.Since(start) }()
	r.describeV3(p)
	if err := errors.Join(r.judgeV3(p), r.stage.Forget()); err != nil {
		return err
	}
	v := v3Restore{restorer: r}
	if err := v.copySnapshot(ctx, p.Snapshot.Object); err != nil {
		return err
	}
	for i := 0; i < len(p.Segments); {
		end := i
		for end < len(p.Segments) && p.Segments[end].Index == p.Segments[i].Index {
			end++
		}
		if err := v.replay(ctx, p.Segments[i:end]); err != nil {
			return err
		}
		i = end
	}
	r.result.PageSize, r.result.Pages = v.pageSize, v.pages
	return r.stage.Truncate(r.result.Size())
}

// v3Restore applies one plan to the stage.
type v3Restore struct {
	*restorer
	pageSize int
	pages    uint32
	done     int64
}

// fetch decompresses one object into w.
func (v *v3Restore) fetch(ctx context.Context, obj store.Object, w io.Writer) (int64, error) {
	r, got, err := v.store.Get(ctx, obj.Key, 0, -1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if got.Size != obj.Size {
		return 0, &store.CorruptError{Key: obj.Key, Err: fmt.Errorf("it has %d bytes, the listing said %d", got.Size,
			obj.Size)}
	}
	counted := &io.LimitedReader{R: r, N: math.MaxInt64}
	n, err := io.CopyBuffer(&roomy{w, v.stage}, struct{ io.Reader }{lz4.NewReader(counted)}, make([]byte, 1<<20))
	if err == nil && n == 0 {
		err = errors.New("it is empty")
	}
	if read := math.MaxInt64 - counted.N; err == nil && read != obj.Size {
		err = fmt.Errorf("only %d of %d bytes are one lz4 frame", read, obj.Size)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, unix.ENOSPC) {
		err = &store.CorruptError{Key: obj.Key, Err: err}
	}
	if v.done += obj.Size; v.o.Progress != nil {
		v.o.Progress(v.done, v.result.ObjectBytes)
	}
	return n, err
}

// roomy writes only while enough of the disk stays free: the size of a compressed object is
// not known beforehand.
type roomy struct {
	io.Writer
	stage *stage.Stage
}

// Write implements io.Writer.
func (w *roomy) Write(p []byte) (int, error) {
	if err := w.stage.Room(int64(len(p))); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (v *v3Restore) copySnapshot(ctx context.Context, obj store.Object) error {
	if err := v.stage.Truncate(0); err != nil {
		return err
	}
	if _, err := v.stage.Seek(0, io.SeekStart); err != nil {
		return err
	}
	size, err := v.fetch(ctx, obj, v.stage)
	if err != nil {
		return err
	}
	head := make([]byte, 100)
	if _, err := v.stage.ReadAt(head, 0); err != nil {
		return &store.CorruptError{Key: obj.Key, Err: err}
	}
	h, err := dbfile.ParseDatabaseHeader(head)
	if err == nil && (size%int64(h.PageSize) != 0 || size/int64(h.PageSize) > math.MaxUint32) {
		err = fmt.Errorf("%d bytes are no whole pages of %d", size, h.PageSize)
	}
	if err != nil {
		return &store.CorruptError{Key: obj.Key, Err: err}
	}
	v.pageSize, v.pages = h.PageSize, uint32(size/int64(h.PageSize))
	return nil
}

// replay applies the WAL of one index.
func (v *v3Restore) replay(ctx context.Context, segments []catalog.GenerationObject) error {
	name := v.stage.Name() + "-segments"
	wal, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer wal.Close()
	if err := os.Remove(name); err != nil { // unlinked at once: it exists only as long as its descriptor
		return err
	}
	var size int64
	for _, s := range segments {
		if s.Offset != size {
			return fmt.Errorf("wal index %08x: the segment at offset %d is missing before %s", s.Index, size, s.Object.Key)
		}
		n, err := v.fetch(ctx, s.Object, wal)
		if err != nil {
			return err
		}
		size += n
	}
	if err := v.applyWAL(wal, size); err != nil {
		return &store.CorruptError{Key: segments[0].Object.Key, Err: fmt.Errorf("the wal of this index: %w", err)}
	}
	return nil
}

// applyWAL writes the pages of the committed frames: it first verifies every frame and finds
// the last commit, then copies the frames up to there.
func (v *v3Restore) applyWAL(wal *os.File, size int64) error {
	head := make([]byte, dbfile.WALHeaderSize)
	if _, err := wal.ReadAt(head, 0); err != nil {
		return err
	}
	h, err := dbfile.ParseWALHeader(head)
	if err != nil {
		return err
	}
	if v.pageSize != 0 && h.PageSize != v.pageSize {
		return fmt.Errorf("its pages have %d bytes, the database's %d", h.PageSize, v.pageSize)
	}
	v.pageSize = h.PageSize
	frame := int64(dbfile.FrameHeaderSize + h.PageSize)
	if (size-dbfile.WALHeaderSize)%frame != 0 || (size-dbfile.WALHeaderSize)/frame > math.MaxUint32 {
		return fmt.Errorf("%d bytes are no whole frames", size)
	}
	start := dbfile.Position{Checksum: h.Checksum}
	scan := dbfile.NewFrameScanner(wal, h, start, uint32((size-dbfile.WALHeaderSize)/frame))
	var last uint32
	for scan.Next() {
		if scan.Frame().Commit != 0 {
			last = scan.Position().Frame
		}
	}
	if err := scan.Err(); err != nil {
		return err
	}
	if last != scan.Position().Frame { // Litestream cuts at commits: a segment is missing
		return fmt.Errorf("it ends %d frames after its last commit", scan.Position().Frame-last)
	}
	scan = dbfile.NewFrameScanner(wal, h, start, last)
	for scan.Next() {
		f := scan.Frame()
		if _, err := v.stage.WriteAt(scan.Page(), int64(f.Page-1)*int64(v.pageSize)); err != nil {
			return err
		}
		if f.Commit != 0 {
			v.pages = f.Commit
		}
	}
	return scan.Err()
}
