package custody

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// ClaimantOptions are the parts and facts that a Claimant works with. All but Boot are required.
type ClaimantOptions struct {
	Replica     string
	Store       store.Store
	Lease       *lease.Lease
	Custody     *Custody
	Saved       *StateFile
	Original    *Original
	Owner, Boot string        // see lease.Options
	Adopt       bool          // continue a history that another program began
	Keep        time.Duration // how long restore points are kept, also once another lineage succeeds ours

	Spool   func() *spool.Spool                   // the capture's spool; nil before capture was first opened
	Compare func(context.Context) error           // makes capture compare the database with its page checksums
	Judged  func(v lineage.Verdict, found string) // called with each verdict and the lineage found
	Claimed func(lineage.Lineage)                 // called with the lineage that is about to be written to
	Logger  *slog.Logger
	Clock   func() time.Time
}

// Claimant finds out whose history a replica holds, and whether ours may continue it.
type Claimant struct {
	o     ClaimantOptions
	named atomic.Bool // this process has named the replica for our lineage
}

// NewClaimant returns a Claimant that has not looked at the replica yet.
func NewClaimant(o ClaimantOptions) *Claimant { return &Claimant{o: o} }

// errComparing says that it is not known yet whether the database equals the state at the replica's tip.
var errComparing = fmt.Errorf("the database is being compared with the replica: %w", lease.ErrConfirming)

// Sight is what one look at a replica found.
type Sight struct {
	Lease lease.Finding
	Line  lineage.Stored
	Tip   catalog.Tip
	Taken bool // the replica is not empty
}

// Continuous reports whether no write of another host can still be under way, so that our
// next file may join the last one.
func (s Sight) Continuous() bool { return !s.Lease.Found || s.Lease.Continuous || s.Lease.Ended }

// late reports whether the lease names another lineage than the replica does. Such a note is a
// delayed write of a former owner, which did not write the tip.
func (s Sight) late() bool {
	of := s.Lease.Note.Lineage
	return of != "" && s.Line.Found && of != s.Line.ID
}

// begun reports whether the tip belongs to the lineage that the replica is named for. That lineage
// may have stored nothing yet: then a database that equals the tip continues its predecessor.
func (s Sight) begun() bool {
	all := s.Line.Predecessors
	return len(all) == 0 || s.Tip.TXID > all[len(all)-1].Until
}

// Look reads the replica's lease, its lineage and its tip.
func (c *Claimant) Look(ctx context.Context) (s Sight, err error) {
	if s.Lease, err = c.o.Lease.Inspect(ctx, c.o.Saved.Get().Nonces); err != nil {
		return s, err
	}
	if s.Line, err = lineage.Read(ctx, c.o.Store); err != nil {
		return s, err
	}
	if s.Tip, err = catalog.FindTip(ctx, c.o.Store); err != nil {
		return s, err
	}
	s.Taken, err = catalog.Taken(ctx, c.o.Store, s.Tip)
	return s, err
}

// evidence collects what is known about the replica and about this database.
func (c *Claimant) evidence(s Sight) lineage.Evidence {
	mine, id := c.o.Custody.Get(), c.o.Original.Get()
	fresh := mine.ID == "" && len(c.o.Saved.Get().Nonces) == 0 // the state directory is new, or was lost
	sameBoot := c.o.Boot != "" && s.Lease.Note.Boot == c.o.Boot
	e := lineage.Evidence{
		Empty: !s.Taken, Named: s.Line.Found, Leased: s.Lease.Found,
		Mine:  s.Line.Found && (s.Line.ID == mine.ID || mine.ID == "" && s.Lease.Continuous),
		Was:   s.Line.Found && mine.ID != "" && s.Line.ID != mine.ID && s.Line.Follows(mine.ID),
		Last:  s.Lease.Continuous && !s.late() && !c.contradicted(s.Tip),
		Holds: c.holds(s.Tip) || c.passed(s, mine),
		Equal: s.begun() && c.equals(s.Tip),
		Same: id.File != "" && id.File == s.Lease.Note.File && (fresh || sameBoot) && !s.late() &&
			!s.Lease.Unsettled,
	}
	// --adopt counts until it was acted on. The state directory remembers lineages that it made
	// us succeed, but not against a lineage that has succeeded ours: that decision is newer.
	e.Adopted = c.o.Adopt && !c.named.Load() || !e.Was && slices.Contains(mine.Succeeds, s.Line.ID)
	e.Noted = id.Noted && s.Line.Found && id.Note.Lineage == s.Line.ID && id.Note.TXID == s.Tip.TXID
	return e
}

// holds reports whether our state directory knows the state at the replica's tip.
func (c *Claimant) holds(t catalog.Tip) bool {
	spool := c.o.Spool()
	if spool == nil || t.TXID == 0 {
		return false
	}
	if sum, known := spool.ChecksumAt(t.TXID); known {
		return t.Checksum == sum.String()
	}
	held := spool.List() // everything up to the tip was released as shipped, unless the TXIDs match by chance
	return len(held) > 0 && held[0].MinTXID == t.TXID+1 && t.Lineage != "" && t.Lineage == held[0].Lineage
}

// passed reports whether the replica holds an older state of our lineage than we once found in one
// of our replicas. A copy of our replica that another host continued has the same lineage and may
// be as short, but its last writer is unknown to us.
func (c *Claimant) passed(s Sight, mine State) bool {
	if !s.Line.Found || s.Line.ID != mine.ID || s.Tip.TXID > mine.Reached {
		return false
	}
	writer := s.Lease.Note.Owner
	return !s.Lease.Found || s.Lease.Continuous || writer == c.o.Owner || slices.Contains(mine.Writers, writer)
}

// contradicted reports whether we cannot have stored the tip: a clone with a copy of our state
// directory writes under the same lease until one of both renews it.
func (c *Claimant) contradicted(t catalog.Tip) bool {
	spool := c.o.Spool()
	if spool == nil || t.TXID == 0 {
		return false
	}
	sum, known := spool.ChecksumAt(t.TXID)
	return t.TXID > spool.Last() || known && t.Checksum != "" && t.Checksum != sum.String()
}

// equals reports whether a state captured here has the checksum of the replica's tip.
func (c *Claimant) equals(t catalog.Tip) bool {
	spool := c.o.Spool()
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

// Judge returns the verdict whether we may write to the replica, with an error that says why not,
// and tells the lease which lineage it serves.
func (c *Claimant) Judge(ctx context.Context, s Sight) (lineage.Verdict, error) {
	v, err := c.weigh(ctx, s)
	serves := ""
	if id := c.o.Custody.Get().ID; err == nil && v == lineage.Continue && s.Line.ID == id {
		serves = id
	}
	c.o.Lease.Serve(serves)
	return v, err
}

func (c *Claimant) weigh(ctx context.Context, s Sight) (lineage.Verdict, error) {
	v := lineage.Judge(c.evidence(s))
	spool := c.o.Spool()
	at := spool.Position()
	comparing := at.Doubt != "" || len(spool.List()) == 0 && at.Pages == 0
	if !v.Writes() && v != lineage.Stranger && comparing {
		if err := c.o.Compare(ctx); err != nil {
			return v, err
		}
		if v = lineage.Judge(c.evidence(s)); !v.Writes() && spool.Position().Doubt != "" {
			return v, errComparing
		}
	}
	c.o.Judged(v, s.Line.ID)
	if v.Writes() {
		return v, nil
	}
	id := c.o.Original.Get()
	return v, &ClaimError{
		Replica: c.o.Replica, Verdict: v, Lineage: s.Line.Lineage, Writer: s.Lease.Note.Owner,
		TXID: s.Tip.TXID, At: s.Tip.At,
		Noted: id.Noted && id.Note.Lineage == s.Line.ID,
	}
}

// Name names the replica for our lineage, if it is not yet.
func (c *Claimant) Name(ctx context.Context, s Sight, v lineage.Verdict) error {
	err := c.write(ctx, s, v)
	if err == nil {
		c.named.Store(true)
		c.o.Lease.Serve(c.o.Custody.Get().ID)
	}
	return err
}

func (c *Claimant) write(ctx context.Context, s Sight, v lineage.Verdict) error {
	id, err := c.o.Custody.Take(v, s.Line.ID, s.Tip.TXID, s.Lease.Note.Owner)
	if err != nil {
		return err
	}
	now, until := c.o.Clock().UTC(), s.Tip.TXID
	if v == lineage.Succeed {
		until = c.Behind(s)
	}
	ended := now
	for _, later := range []time.Time{s.Tip.At, s.Tip.Newest.Object.Modified} { // clocks differ: take the latest
		if later.After(ended) {
			ended = later
		}
	}
	want := lineage.Lineage{ID: id, Made: now, By: c.o.Owner}
	want.Keep, want.PageSize = c.o.Keep.Seconds(), c.o.Spool().Position().PageSize
	switch {
	case s.Line.ID == id:
		want.Made, want.By, want.Predecessors = s.Line.Made, s.Line.By, s.Line.Predecessors
		if want.PageSize == 0 {
			want.PageSize = s.Line.PageSize
		}
	case s.Line.Found:
		want = want.Succeed(s.Line.Lineage, until, ended)
	case v == lineage.Succeed:
		want = want.Succeed(lineage.Lineage{By: s.Lease.Note.Owner}, until, ended)
	}
	c.o.Claimed(want)
	if s.Line.ID == id && s.Line.Keep == want.Keep && s.Line.PageSize == want.PageSize {
		return nil
	}
	if err := c.o.Lease.Hold(ctx); err != nil {
		return err
	}
	err = lineage.Write(ctx, c.o.Store, want, s.Line, c.o.Lease.Guard() == lease.GuardConditional)
	if errors.Is(err, store.ErrExists) {
		c.o.Lease.Drop()
		return fmt.Errorf("%w: %w", lease.ErrMoved, err)
	}
	if err == nil && v == lineage.Succeed {
		c.o.Logger.Warn("this database follows another lineage in the replica, as --adopt says; what that one stored is "+
			"kept "+
			"for its own time",
			"lineage", id, "followed", s.Line.ID, "of", s.Line.By, "txid", s.Tip.TXID)
	}
	return err
}

// Behind returns the TXID behind which our chain begins if it cannot join the tip. If the replica
// is of another lineage that itself succeeded one, that lineage's chain begins behind the end of
// its predecessor, and its first file may still be under way.
func (c *Claimant) Behind(s Sight) ltx.TXID {
	end := s.Tip.TXID
	if all := s.Line.Predecessors; len(all) > 0 {
		last := all[len(all)-1].Until
		if s.Line.ID == c.o.Custody.Get().ID {
			return max(last, LeapOver(end))
		}
		end = max(end, last)
	}
	return LeapOver(end)
}

// Ours reports whether our history may be appended to the replica's at once.
func (c *Claimant) Ours(s Sight) bool {
	return lineage.Judge(c.evidence(s)) == lineage.Continue && s.Continuous()
}

// Agrees reports whether the next file that we ship may join the replica's tip: whether the tip
// is the state that we know by its TXID. from is the TXID at which capture took its position
// from this replica, 0 if it did not.
func (c *Claimant) Agrees(t catalog.Tip, from ltx.TXID) bool {
	spool := c.o.Spool()
	held := spool.List()
	sum, known := spool.ChecksumAt(t.TXID)
	switch {
	case t.TXID == 0, t.TXID == from, spool.Position().Pages == 0:
		return true // there is nothing to join, capture began at this tip, or the whole database is next
	case known:
		return t.Checksum == sum.String()
	case len(held) == 0 || held[0].MinTXID != t.TXID+1:
		return true // no segment of ours follows the tip: a snapshot is next
	}
	return t.Lineage == held[0].Lineage // released up to the tip as shipped, unless the TXIDs match by chance
}

// leap is the gap between a predecessor's TXIDs and a new owner's: larger than what the
// predecessor can still have under way.
const leap = catalog.ChainStep

// LeapOver returns the TXID behind which a new owner begins if the old history ends at end.
func LeapOver(end ltx.TXID) ltx.TXID { return end/leap*leap + 2*leap - 1 }
