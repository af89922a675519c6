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

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// keepFrom is the size of a database from which on what an interrupted restore has
// fetched is kept.
const keepFrom = 64 << 20

// kept is what an earlier restore of a state of the same lineage has written. A page that
// it did not write is zeros. Nothing proves a single page: that all of them
// together make the database's checksum, which is known, does.
type kept struct {
	stage.Content
	file  io.ReaderAt
	taken func() error // told when the pages are the plan's, as far as they are there
	pages uint32       // how many were taken
}

// content says what a plan puts together in a stage. Worth reports whether it can be
// proven, and is worth keeping.
func content(p *catalog.Plan, pageSize int, pages uint32) (c stage.Content, worth bool) {
	c = stage.Content{Lineage: p.Lineage, TXID: p.TXID, PageSize: pageSize, Pages: pages}
	return c, p.Lineage != "" && p.Checksum != 0 && int64(pageSize)*int64(pages) >= keepFrom
}

// serves reports whether what a stage holds is of use for the plan.
func serves(c stage.Content, p *catalog.Plan) bool {
	return c.TXID != 0 && c.TXID <= p.TXID && c.Lineage == p.Lineage && p.Checksum != 0
}

// olderFiles returns how many of files, in the order of their application, hold nothing
// newer than what is kept.
func (k *kept) olderFiles(files []store.LTXFile) int {
	n := len(files)
	for n > 0 && files[n-1].MaxTXID > k.TXID {
		n--
	}
	return n
}

// takeKept takes the pages that are kept and in no newer file.
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
			sum ^= a.shift.pageChecksum(pgno, crcUpdate(0, page))
			a.kept.pages++
		}
		if a.progress != nil {
			a.progress(int64(float64(a.plan.Bytes) * float64(n) / float64(a.pages)))
		}
	}
	a.addChecksum(sum)
	return a.kept.taken()
}

// keeps reports whether what was written before err is worth keeping: the way to the
// store broke, or somebody ended the restore. A full disk wants its room back.
func keeps(ctx context.Context, err error) bool {
	var refused *store.UnreadableError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return false
	}
	return ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.As(err, &refused) || os.IsTimeout(err)
}
