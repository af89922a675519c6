package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Target says which state is wanted: the newest, when both fields are zero; the
// one after exactly TXID; or the one after the newest batch taken at or before
// Timestamp.
type Target struct {
	TXID      ltx.TXID
	Timestamp time.Time
}

// Plan names the files that make one state, in the order of their application:
// a snapshot first, then files without a gap.
type Plan struct {
	TXID      ltx.TXID     // the state's
	Timestamp time.Time    // when it was captured; rises with the TXID
	Taken     moment.Stamp // what the clock showed then, if known
	Files     []store.LTXFile
	Bytes     int64        // of all files
	Checksum  ltx.Checksum // of the database in that state, 0 if the replica does not tell
	Lineage   string

	Asked time.Time      // the moment asked for, if any
	Next  *Batch         // the next restore point; nil if there is none, or no moment was asked for
	Steps []moment.Step  // of the clock, as far as the replica tells
	Rival []RestorePoint // others at which a clock that was set also showed Asked
}

// Time returns when the state was captured: what the clock showed if known, else Timestamp.
func (p *Plan) Time() time.Time { return shown(p.Timestamp, p.Taken) }

// ErrEmpty says that a replica holds no LTX file at all.
var ErrEmpty = errors.New("the replica is empty: nothing was replicated to this place, or the URL is not the replica's")

// GapError says that the files between two TXIDs are missing, so that no later state can be
// restored.
type GapError struct {
	From, To ltx.TXID // the first and last one missing
	Reached  ltx.TXID // the newest state before the gap; 0: there is no snapshot
}

// Error names the missing TXIDs and what can be restored.
func (e *GapError) Error() string {
	if e.Reached == 0 {
		return fmt.Sprintf("txids %d to %d are missing: there is no snapshot to begin with", e.From, e.To)
	}
	return fmt.Sprintf("txids %d to %d are missing from the replica: the newest state before the gap is --txid %d", e.From,
		e.To, e.Reached)
}

// GoneError says that an object that was listed was gone when it was read, and which state was being planned.
type GoneError struct {
	TXID ltx.TXID
	Err  error // store.ErrNotFound
}

// Error names the object.
func (e *GoneError) Error() string { return e.Err.Error() }

// Unwrap returns the store's error.
func (e *GoneError) Unwrap() error { return e.Err }

// RestorePoint is a state that can be restored.
type RestorePoint struct {
	TXID      ltx.TXID  `json:"txid"`
	Timestamp time.Time `json:"timestamp"` // what the clock showed, if known
}

// String names the restore point. One of Litestream 0.3 has no TXID.
func (p RestorePoint) String() string {
	if p.TXID == 0 {
		return "the state of " + stamped(p.Timestamp)
	}
	return fmt.Sprintf("txid %d (%s)", p.TXID, stamped(p.Timestamp))
}

// RangeError says that the replica cannot restore the wanted state.
type RangeError struct {
	Target Target
	// what can be restored: the nearest points on both sides of the target if Inside, else the whole range
	First, Last RestorePoint
	Inside      bool
	Never       bool // Inside, and the target was never stored in a restorable form
}

// Error names what was asked for and what can be restored.
func (e *RangeError) Error() string {
	asked := fmt.Sprintf("txid %d", e.Target.TXID)
	if !e.Target.Timestamp.IsZero() {
		asked = e.Target.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	if e.Never {
		return fmt.Sprintf("%s was never stored: another chain begins there; the restore points next to it are --txid %d "+
			"and --txid %d", asked, e.First.TXID, e.Last.TXID)
	}
	if e.Inside {
		return fmt.Sprintf("%s was compacted away: the restore points next to it are --txid %d and --txid %d", asked,
			e.First.TXID, e.Last.TXID)
	}
	hint := ""
	if e.Target.Timestamp.After(e.Last.Timestamp) {
		hint = "; leave --timestamp out for the newest"
	}
	return fmt.Sprintf("%s is outside of what can be restored: %s to %s%s", asked, e.First, e.Last, hint)
}

// MakePlan finds the files that make the target's state: the newest snapshot at or before it,
// then always the file that reaches farthest, high levels first. It sends O(log n) requests
// for n objects. If the state cannot be made exactly, it returns a *RangeError or *GapError,
// never another state.
func MakePlan(ctx context.Context, st store.Store, target Target) (*Plan, error) {
	return PlanWithout(ctx, st, target, nil)
}

// PlanWithout is MakePlan as if the excluded keys did not exist. It lists the levels one after
// the other: if the writer begins a new chain in between, an intact replica seems to have a
// gap. So it reports a gap only if it finds one twice.
func PlanWithout(ctx context.Context, st store.Store, target Target, excluded map[string]bool) (*Plan, error) {
	plan, err := planOnce(ctx, st, target, excluded)
	if gap := (*GapError)(nil); errors.As(err, &gap) || errors.Is(err, ErrEmpty) {
		return planOnce(ctx, st, target, excluded)
	}
	return plan, err
}

func planOnce(ctx context.Context, st store.Store, target Target, excluded map[string]bool) (*Plan, error) {
	if target.TXID != 0 && !target.Timestamp.IsZero() {
		return nil, errors.New("plan restore: give a txid or a timestamp, not both")
	}
	p := planner{catalog: newCatalog(st, excluded)}
	if err := p.load(ctx); err != nil {
		return nil, fmt.Errorf("plan restore: %w", err)
	}
	plan, err := p.plan(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("plan restore: %w", err)
	}
	return plan, nil
}

// planner makes one plan.
type planner struct {
	*catalog
	levels []int           // the non-empty ones, highest first, without SnapshotLevel
	snaps  []store.LTXFile // by ascending max TXID
}

func (p *planner) load(ctx context.Context) (err error) {
	if p.levels, err = p.catalog.levels(ctx); err != nil {
		return err
	}
	if p.snaps, err = p.catalog.snapshots(ctx, p.levels); err != nil {
		return err
	}
	if len(p.snaps) > 0 {
		return nil
	}
	gap := &GapError{From: 1}
	for _, level := range p.levels {
		w, err := p.from(ctx, level, 1)
		if err != nil {
			return err
		}
		if len(w.files) > 0 && (gap.To == 0 || w.files[0].MinTXID <= gap.To) {
			gap.To = w.files[0].MinTXID - 1
		}
	}
	if gap.To > 0 {
		return gap
	}
	for key := range p.excluded {
		if _, _, end, err := store.ParseLTXKey(key); err == nil {
			gap.To = max(gap.To, end)
		}
	}
	if gap.To > 0 { // a replica that holds only what cannot be used is not an empty one
		return gap
	}
	return ErrEmpty
}

func (p *planner) plan(ctx context.Context, target Target) (*Plan, error) {
	if !target.Timestamp.IsZero() {
		return p.planMoment(ctx, target)
	}
	txid, err := p.resolve(ctx, target)
	if err != nil {
		return nil, err
	}
	base := p.base(txid)
	if base == nil {
		return nil, p.outOfRange(ctx, target)
	}
	files, err := p.chain(ctx, *base, txid)
	if err != nil {
		return nil, p.unstored(ctx, txid, err)
	}
	plan, err := p.finish(ctx, files)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &GoneError{TXID: txid, Err: err}
	}
	return plan, err
}

// base returns the newest snapshot at or before txid, nil when there is none.
func (p *planner) base(txid ltx.TXID) *store.LTXFile {
	for i := len(p.snaps) - 1; i >= 0; i-- {
		if p.snaps[i].MaxTXID <= txid {
			return &p.snaps[i]
		}
	}
	return nil
}

// resolve turns the target into the TXID of an existing batch.
func (p *planner) resolve(ctx context.Context, target Target) (ltx.TXID, error) {
	if target.TXID != 0 && target.TXID <= p.snaps[len(p.snaps)-1].MaxTXID {
		return target.TXID, nil // before the newest snapshot: the end does not matter
	}
	end, err := p.newest(ctx)
	if err != nil {
		return 0, err
	}
	if target.TXID > end {
		return 0, p.outOfRange(ctx, target)
	}
	if target.TXID != 0 {
		return target.TXID, nil
	}
	return end, nil
}

// newest returns the highest TXID of all levels. That is the newest state, even if a gap before
// it makes it impossible to restore: the gap is then an error, not a reason to choose an older one.
func (p *planner) newest(ctx context.Context) (ltx.TXID, error) {
	tip, err := p.tip(ctx)
	return tip.MaxTXID, err
}

// tip returns a file that ends at the highest TXID of all levels.
func (p *planner) tip(ctx context.Context) (tip store.LTXFile, err error) {
	if n := len(p.snaps); n > 0 {
		tip = p.snaps[n-1]
	}
	for _, level := range p.levels {
		end, err := p.end(ctx, level, tip.MaxTXID)
		if err != nil {
			return tip, err
		}
		if end.MaxTXID > tip.MaxTXID {
			tip = end
		}
	}
	return tip, nil
}

// finish describes the state that the files make.
func (p *planner) finish(ctx context.Context, files []store.LTXFile) (*Plan, error) {
	plan := &Plan{Files: files}
	for _, f := range files {
		plan.Bytes += f.Object.Size
	}
	last := files[len(files)-1]
	plan.TXID = last.MaxTXID
	var err error
	if plan.Timestamp, plan.Taken, err = p.taken(ctx, last); err != nil {
		return nil, store.Unreadable(ctx, last.Object.Key, 1, err)
	}
	meta := last.Object.Metadata
	if meta == nil {
		_, obj, err := p.store.Get(ctx, last.Object.Key, 0, 0)
		if err != nil {
			return nil, store.Unreadable(ctx, last.Object.Key, 1, err)
		}
		meta = obj.Metadata
	}
	plan.Lineage = meta[store.MetaLineage]
	if sum, err := ltx.ParseChecksum(meta[store.MetaChecksum]); err == nil {
		plan.Checksum = sum | ltx.ChecksumFlag
	}
	return plan, nil
}
