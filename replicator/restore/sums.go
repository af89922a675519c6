package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/sumlist"
)

// PageChecksums reads a replica and returns the target's TXID and the checksum of each page of
// its state, so that a lost state directory costs a comparison and not a snapshot. For an empty
// replica it returns TXID 0. Instead of large files it reads the lists of checksums beside
// them.
func PageChecksums(ctx context.Context, st store.Store, target catalog.Target) (ltx.TXID, store.PageSums, error) {
	o := oracle{target: target, excluded: make(map[string]bool), suspects: make(map[string]bool)}
	for try, lists := 0, true; ; try++ {
		plan, err := catalog.PlanWithout(ctx, st, o.target, o.excluded)
		if errors.Is(err, catalog.ErrEmpty) && o.corrupt == nil {
			return 0, store.PageSums{}, nil
		}
		if err == nil {
			sums := &pageSums{lists: lists && plan.Checksum != 0}
			a := &application{store: st, plan: plan, sums: sums, inFull: o.inFull}
			if err = a.apply(ctx); err == nil {
				return plan.TXID, store.PageSums{PageSize: a.pageSize, Sums: sums.all, Timestamp: plan.Timestamp,
					Lineage: plan.Lineage, Taken: plan.Taken}, nil
			}
			if sums.taken && ctx.Err() == nil {
				lists = false // a list may be wrong: read the files themselves
				continue
			}
		} else {
			err = o.explain(err)
		}
		if try == maxReplans || !o.learn(err, plan) {
			return 0, store.PageSums{}, fmt.Errorf("page checksums of the replica: %w", err)
		}
	}
}

// pageSums are the checksums of a state's pages found so far.
type pageSums struct {
	all   []ltx.Checksum // of page i+1
	lists bool           // checksums may be taken from the lists beside files
	taken bool           // some were taken from there
}

// listed reports whether the checksums of a file's pages may be in a list beside it.
func (s *pageSums) listed(f store.LTXFile) bool {
	_, kept := store.SumsKey(f.Level, f.MinTXID, f.MaxTXID)
	return s != nil && s.lists && kept
}

// walk takes the checksums of a file's pages from the list beside it, and reports whether there
// was one. The database's checksum proves the result in the end.
func (s *pageSums) walk(ctx context.Context, a *application, f store.LTXFile) (found bool, err error) {
	if !s.listed(f) {
		return false, nil
	}
	key, _ := store.SumsKey(f.Level, f.MinTXID, f.MaxTXID)
	body, _, err := a.store.Get(ctx, key, 0, -1)
	if err != nil {
		return false, ctx.Err() // then the file itself is read
	}
	defer body.Close()
	s.taken = true
	begin := func(h sumlist.Header) error {
		return a.enter(ltx.Header{PageSize: h.PageSize, Commit: h.Pages})
	}
	var together ltx.Checksum
	err = sumlist.Read(body, begin, func(page uint32, sum ltx.Checksum) error {
		if a.claim(page) {
			s.all[page-1] = sum
			together ^= sum
		}
		return nil
	})
	a.addChecksum(together)
	return true, err
}
