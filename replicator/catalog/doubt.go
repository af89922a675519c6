package catalog

import (
	"fmt"
	"strings"
	"time"
)

// Doubt says why the state that was found for a moment need not be the database's state at
// that moment. It is returned as an error if the caller wants an exact state.
type Doubt struct {
	Asked  time.Time    `json:"asked"`
	Before RestorePoint `json:"before"` // the chosen one
	After  RestorePoint `json:"after"`  // the next one
	// commits in After but not in Before were made after this; nil: unknown
	Since  *time.Time     `json:"since,omitempty"`
	Clock  bool           `json:"clock"`            // the clock was wrong, was set, or was not watched
	Rivals []RestorePoint `json:"rivals,omitempty"` // others at which a clock that was set showed the same moment
}

// ahead is how far in the future a batch's time may be before its clock counts as wrong.
const ahead = time.Minute

// Doubt returns why the plan's state need not be that of the moment asked for; nil if it is,
// within tolerance. now is the current time.
func (p *Plan) Doubt(tolerance time.Duration, now time.Time) *Doubt {
	if p.Asked.IsZero() || p.Next == nil {
		return nil
	}
	next := p.Next.Point()
	d := &Doubt{Asked: p.Asked.UTC(), Before: RestorePoint{p.TXID, p.Time()}, After: next, Rivals: p.Rival}
	d.Clock = p.Taken.Skew(p.Timestamp) > 0 || next.Timestamp.After(now.Add(ahead))
	for _, s := range p.Steps {
		d.Clock = d.Clock || s.Holds(p.Asked) || next.TXID < s.TXID && s.Holds(next.Timestamp)
	}
	since := d.Before.Timestamp
	if covered := p.Next.Taken.Since; !covered.IsZero() {
		d.Since, since = &covered, covered
	}
	if !d.Clock && p.Asked.Sub(since) <= tolerance {
		return nil
	}
	return d
}

// Error names the restore points on both sides of the moment.
func (d *Doubt) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the state of %s is not known for sure: ", stamped(d.Asked))
	switch {
	case d.Clock:
		b.WriteString("the clock of the machine was wrong, was set, or was watched by nobody around then; ")
	case d.Since == nil:
		b.WriteString("the replica does not tell since when its next restore point covers; ")
	}
	fmt.Fprintf(&b, "before it is %s, after it %s", d.Before, d.After)
	if d.Since != nil && !d.Clock {
		fmt.Fprintf(&b, ", which holds what was committed since %s", stamped(*d.Since))
	}
	for _, r := range d.Rivals {
		fmt.Fprintf(&b, "; the clock showed that time also at %s", r)
	}
	by := "--txid"
	if d.Before.TXID == 0 || d.After.TXID == 0 {
		by = "--timestamp"
	}
	b.WriteString("; choose one with " + by)
	return b.String()
}

func stamped(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
