package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// keepFrom is the size of the smallest database of which an interrupted restore keeps what it
// has fetched.
const keepFrom = 64 << 20

// kept is the unfinished file of an earlier restore of the same lineage. A page that it did
// not write is all zeros. There is no proof of a single page, only of all together: the
// database's checksum, which is known.
type kept struct {
	stage.Content
	file  io.ReaderAt
	taken func() error // called once the wanted pages were taken: from now on the file is of the new plan
	pages uint32       // how many were taken
}

// content describes what a plan puts together in a stage. worth reports whether it is worth
// keeping after an interruption: large enough, and its checksum known.
func content(p *catalog.Plan, pageSize int, pages uint32) (c stage.Content, worth bool) {
	c = stage.Content{Lineage: p.Lineage, TXID: p.TXID, PageSize: pageSize, Pages: pages}
	return c, p.Lineage != "" && p.Checksum != 0 && int64(pageSize)*int64(pages) >= keepFrom
}

// serves reports whether the plan can use the pages that a stage holds.
func serves(c stage.Content, p *catalog.Plan) bool {
	return c.TXID != 0 && c.TXID <= p.TXID && c.Lineage == p.Lineage && p.Checksum != 0
}

// olderFiles returns how many of files, which are in plan order, hold nothing newer than the
// kept pages.
func (k *kept) olderFiles(files []store.LTXFile) int {
	n := len(files)
	for n > 0 && files[n-1].MaxTXID > k.TXID {
		n--
	}
	return n
}

// takeKept claims the kept pages that no newer file has.
func (a *application) takeKept(ctx context.Context) error {
	newest := a.plan.Files[len(a.plan.Files)-1]
	if a.have == nil {
		head, err := a.read(ctx, extent{newest, 0, ltx.HeaderSize})
		if err != nil {
			return err
		}
		if _, err := a.begin(newest, head[0]); err != nil {
			return blame(newest, err)
		}
	}
	if a.kept.PageSize != a.pageSize {
		return nil
	}
	last := min(a.kept.Pages, a.limit)
	perRead := uint32(max(1, batchPages/a.pageSize))
	buf, zero := make([]byte, int(perRead)*a.pageSize), make([]byte, a.pageSize)
	var sum ltx.Checksum
	for first := uint32(1); first <= last; first += perRead {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := min(perRead, last-first+1)
		data := buf[:int(n)*a.pageSize]
		if _, err := a.kept.file.ReadAt(data, int64(first-1)*int64(a.pageSize)); err != nil {
			return fmt.Errorf("read what is already there: %w", err)
		}
		for i := range n {
			pgno, page := first+i, data[int(i)*a.pageSize:int(i+1)*a.pageSize]
			if pgno == ltx.LockPgno(uint32(a.pageSize)) || bytes.Equal(page, zero) || !a.claim(pgno) {
				continue
			}
			sum ^= a.shift.Page(pgno, pagecrc.Update(0, page))
			a.kept.pages++
		}
		if a.progress != nil {
			a.progress(int64(float64(a.plan.Bytes) * float64(n) / float64(a.pages)))
		}
	}
	a.addChecksum(sum)
	return a.kept.taken()
}

// keeps reports whether the pages written before err are worth keeping: the store became
// unreachable, or the restore was cancelled. On a full disk the space is freed instead.
func keeps(ctx context.Context, err error) bool {
	var refused *store.UnreadableError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return false
	}
	return ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.As(err, &refused) || os.IsTimeout(err)
}
