package catalog

import (
	"context"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// chain returns base and the files that lead from it to exactly txid. At each step it takes,
// from the highest level that leads on, the file that reaches farthest; a file may begin
// before the position. This greedy choice reaches txid if any choice does: a file that covered
// the next TXID can still be used later.
func (p *planner) chain(ctx context.Context, base store.LTXFile, txid ltx.TXID) ([]store.LTXFile, error) {
	files := []store.LTXFile{base}
	cursors := make([]*levelCursor, len(p.levels))
	for i, level := range p.levels {
		cursors[i] = &levelCursor{level: level, until: txid}
	}
	for at := base.MaxTXID; at < txid; at = files[len(files)-1].MaxTXID {
		var next *store.LTXFile
		for _, c := range cursors {
			if err := c.advance(ctx, p.catalog, at); err != nil {
				return nil, err
			}
			if c.best != nil {
				next = c.best
				break
			}
		}
		if next == nil {
			return nil, stuck(cursors, at, txid)
		}
		files = append(files, *next)
	}
	return files, nil
}

// stuck explains why no file leads on from the state `at` to txid.
func stuck(cursors []*levelCursor, at, txid ltx.TXID) error {
	gap := &GapError{From: at + 1, To: txid, Reached: at}
	var beyond ltx.TXID // the end of a file that leads on, but past the target
	for _, c := range cursors {
		if c.beyond != 0 && (beyond == 0 || c.beyond < beyond) {
			beyond = c.beyond
		}
		if c.i < len(c.files) {
			gap.To = min(gap.To, c.files[c.i].MinTXID-1)
		}
	}
	if beyond != 0 {
		return &RangeError{Target: Target{TXID: txid}, First: RestorePoint{TXID: at}, Last: RestorePoint{TXID: beyond},
			Inside: true}
	}
	return gap
}

// levelCursor moves through one level as the chain advances.
type levelCursor struct {
	keyWindow
	level   int
	started bool
	until   ltx.TXID       // files that reach past it cannot be used
	i       int            // files[:i] begin at or before the position + 1
	best    *store.LTXFile // of those, the one that reaches farthest, if it leads on
	beyond  ltx.TXID       // the least TXID past until that a file leads to; 0: none
}

// advance looks for the best file that leads on from the state `at`.
func (c *levelCursor) advance(ctx context.Context, catalog *catalog, at ltx.TXID) error {
	if c.best != nil && c.best.MaxTXID <= at {
		c.best = nil
	}
	for {
		for ; c.i < len(c.files) && c.files[c.i].MinTXID <= at+1; c.i++ {
			c.consider(c.files[c.i], at)
		}
		if c.i < len(c.files) || c.started && c.complete {
			return nil
		}
		if err := c.load(ctx, catalog, at); err != nil {
			return err
		}
	}
}

func (c *levelCursor) consider(f store.LTXFile, at ltx.TXID) {
	switch {
	case f.MaxTXID <= at:
	case f.MaxTXID > c.until:
		if c.beyond == 0 || f.MaxTXID < c.beyond {
			c.beyond = f.MaxTXID
		}
	case c.best == nil || f.MaxTXID > c.best.MaxTXID:
		c.best = &f
	}
}

// load lists more files: the next ones, or, if a file of a higher level has moved the
// position far ahead, those around the new position.
func (c *levelCursor) load(ctx context.Context, catalog *catalog, at ltx.TXID) (err error) {
	if c.started && at < c.last().MinTXID+listWindow {
		c.keyWindow, err = catalog.after(ctx, c.level, c.last().Object.Key)
	} else {
		c.keyWindow, err = catalog.around(ctx, c.level, at+1)
	}
	c.started, c.i = true, 0
	if len(c.files) == 0 {
		c.complete = true
	}
	return err
}
