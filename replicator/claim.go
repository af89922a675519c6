package replicator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// errComparing says that it is not known yet whether the database is what the replica's tip is.
var errComparing = fmt.Errorf("the database is being compared with the replica: %w", lease.ErrConfirming)

// sight is what one look at a replica found.
type sight struct {
	lease lease.Finding
	line  lineage.Stored
	tip   catalog.Tip
	taken bool // something of a replica's is there
}

// continuous reports whether nothing of another writer can still be under way, so that the
// next file may join the last.
func (s sight) continuous() bool { return !s.lease.Found || s.lease.Vouched || s.lease.Ended }

// look reads the replica's lease, its lineage and its tip.
func (p *replica) look(ctx context.Context) (s sight, err error) {
	if s.lease, err = p.lease.Inspect(ctx, p.saved.Get().Nonces); err != nil {
		return s, err
	}
	if s.line, err = lineage.Read(ctx, p.store); err != nil {
		return s, err
	}
	if s.tip, err = catalog.FindTip(ctx, p.store); err != nil {
		return s, err
	}
	s.taken, err = catalog.Taken(ctx, p.store, s.tip)
	return s, err
}

// evidence collects what is known about the replica, and about us.
func (p *replica) evidence(s sight) lineage.Evidence {
	mine, id := p.r.custody.Get(), p.r.identity()
	fresh := mine.ID == "" && len(p.saved.Get().Nonces) == 0 // the state directory is new, or was lost
	sameBoot := p.r.o.Boot != "" && s.lease.Note.Boot == p.r.o.Boot
	e := lineage.Evidence{
		Empty: !s.taken, Named: s.line.Found, Leased: s.lease.Found,
		Mine:    s.line.Found && (s.line.Follows(mine.ID) || mine.ID == "" && s.lease.Vouched),
		Last:    s.lease.Vouched && !p.contradicted(s.tip),
		Holds:   p.holds(s.tip) || s.line.Found && s.line.ID == mine.ID && s.tip.TXID <= mine.Reached,
		Equal:   p.equals(s.tip),
		Same:    id.file != "" && id.file == s.lease.Note.File && (fresh || sameBoot),
		Adopted: p.o.Adopt || slices.Contains(mine.Succeeds, s.line.ID),
	}
	e.Noted = id.noted && s.line.Found && id.note.Lineage == s.line.ID && id.note.TXID == s.tip.TXID
	return e
}

// holds reports whether our state directory knows the state at the replica's tip.
func (p *replica) holds(t catalog.Tip) bool {
	spool := p.r.spool()
	if spool == nil || t.TXID == 0 {
		return false
	}
	if sum, known := spool.ChecksumAt(t.TXID); known {
		return t.Checksum == sum.String()
	}
	held := spool.List() // let go of as shipped to here, unless the numbers only happen to meet
	return len(held) > 0 && held[0].MinTXID == t.TXID+1 && t.Lineage != "" && t.Lineage == held[0].Lineage
}

// contradicted reports whether the tip is none that we stored: a clone of our state
// directory writes under the same lease until it is renewed.
func (p *replica) contradicted(t catalog.Tip) bool {
	spool := p.r.spool()
	if spool == nil || t.TXID == 0 {
		return false
	}
	sum, known := spool.ChecksumAt(t.TXID)
	return t.TXID > spool.Last() || known && t.Checksum != "" && t.Checksum != sum.String()
}

// equals reports whether a state that was captured here is the one at the replica's tip.
func (p *replica) equals(t catalog.Tip) bool {
	spool := p.r.spool()
	if spool == nil || t.Checksum == "" {
		return false
	}
	if at := spool.Position(); at.Doubt == "" && at.Pages > 0 && at.Checksum.String() == t.Checksum {
		return true
	}
	for _, segment := range spool.List() {
		if segment.Checksum.String() == t.Checksum {
			return true
		}
	}
	return false
}

// judge says whether the replica may be written to, or returns why not.
func (p *replica) judge(ctx context.Context, s sight) (lineage.Verdict, error) {
	v := lineage.Judge(p.evidence(s))
	spool := p.r.spool()
	at := spool.Position()
	comparing := at.Doubt != "" || len(spool.List()) == 0 && at.Pages == 0
	if !v.Writes() && v != lineage.Stranger && comparing {
		if _, err := p.r.step(ctx, true); err != nil {
			return v, err
		}
		if v = lineage.Judge(p.evidence(s)); !v.Writes() && spool.Position().Doubt != "" {
			return v, errComparing
		}
	}
	p.progress.update(func(st *ReplicaStatus) { st.Custody, st.Lineage = v, s.line.ID })
	if v.Writes() {
		return v, nil
	}
	id := p.r.identity()
	return v, &custody.ClaimError{
		Replica: p.o.Name, Verdict: v, Lineage: s.line.Lineage, Writer: s.lease.Note.Owner,
		TXID: s.tip.TXID, At: s.tip.At,
		Noted: id.noted && id.note.Lineage == s.line.ID,
	}
}

// name makes the replica of our lineage, if it is not yet.
func (p *replica) name(ctx context.Context, s sight, v lineage.Verdict) error {
	id, err := p.r.custody.Take(v, s.line.ID, s.tip.TXID)
	if err != nil {
		return err
	}
	now, until := p.now().UTC(), s.tip.TXID
	if v == lineage.Succeed {
		until = leapOver(until)
	}
	ended := now
	for _, later := range []time.Time{s.tip.At, s.tip.Newest.Object.Modified} { // whichever clock is ahead
		if later.After(ended) {
			ended = later
		}
	}
	want := lineage.Lineage{ID: id, Made: now, By: p.r.o.Owner}
	want.Keep, want.PageSize = p.o.Retention.Keep.Seconds(), p.r.spool().Position().PageSize
	switch {
	case s.line.ID == id:
		want.Made, want.By, want.Predecessors = s.line.Made, s.line.By, s.line.Predecessors
		if want.PageSize == 0 {
			want.PageSize = s.line.PageSize
		}
	case s.line.Found:
		want = want.Succeed(s.line.Lineage, until, ended)
	case v == lineage.Succeed:
		want = want.Succeed(lineage.Lineage{By: s.lease.Note.Owner}, until, ended)
	}
	p.progress.claimed(want)
	if s.line.ID == id && s.line.Keep == want.Keep && s.line.PageSize == want.PageSize {
		return nil
	}
	if err := p.lease.Hold(ctx); err != nil {
		return err
	}
	err = lineage.Write(ctx, p.store, want, s.line, p.lease.Guard() == lease.GuardConditional)
	if errors.Is(err, store.ErrExists) {
		p.lease.Drop()
		return fmt.Errorf("%w: %w", lease.ErrMoved, err)
	}
	if err == nil && v == lineage.Succeed {
		p.log.Warn("this database follows another lineage in the replica, as --adopt says; what that one stored is kept "+
			"for its own time",
			"lineage", id, "followed", s.line.ID, "of", s.line.By, "txid", s.tip.TXID)
	}
	return err
}
