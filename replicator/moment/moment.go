// Package moment says when a batch of commits was taken, by a clock that may be set:
// what the clock showed, since when the batch covers, and which readings of that
// clock are in dispute, because it showed them twice or jumped over them.
//
// The timestamps by which a replica is searched rise with the TXID whatever the
// clock does. They are right as long as the clock is; a Stamp tells where they are not.
package moment

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/superfly/ltx"
)

// The metadata keys of a Stamp.
const (
	MetaTime  = "sqlwatch-time"  // RFC 3339 with nanoseconds: Stamp.Time
	MetaSince = "sqlwatch-since" // the same: Stamp.Since; not there where it is not known
	MetaSteps = "sqlwatch-steps" // <txid>:<low>:<high>, by commas, times in Unix milliseconds, oldest first
)

// maxSteps bounds what an object carries. Of more, the oldest two become one.
const maxSteps = 16

// Slack is by how much a clock may go back without a word: less than anybody asks for.
const Slack = time.Second

// Stamp says when one batch was taken.
type Stamp struct {
	Time  time.Time `json:"time"`            // what the clock showed; zero: not known
	Since time.Time `json:"since"`           // what was committed before is in earlier TXIDs; zero: not known
	Steps []Step    `json:"steps,omitempty"` // of the clock, oldest first, until this batch
}

// Known returns *s; of nil nothing is known.
func Known(s *Stamp) Stamp {
	if s == nil {
		return Stamp{}
	}
	return *s
}

// Step is a stretch of readings in dispute: the clock was set back, and the batch
// TXID was the first one afterwards. A moment between Low and High may have been
// before it or after it.
type Step struct {
	TXID ltx.TXID  `json:"txid"`
	Low  time.Time `json:"low"` // the earliest reading afterwards, as far as known
	High time.Time `json:"high"`
}

// Holds reports whether the reading t is in dispute.
func (s Step) Holds(t time.Time) bool { return !t.Before(s.Low) && !t.After(s.High) }

// Skew is by how much the clock of a batch lags behind the timestamp that rises
// with the TXID; 0 where that is not known or less than Slack.
func (s Stamp) Skew(timestamp time.Time) time.Duration {
	if lag := timestamp.Sub(s.Time); !s.Time.IsZero() && lag >= Slack {
		return lag
	}
	return 0
}

// Next returns the stamp of the batch txid, taken when the clock showed now, after
// a batch with stamp s. Timestamp is the one that it gets, which rises.
func (s Stamp) Next(txid ltx.TXID, now, timestamp time.Time, m Mark) Stamp {
	next := Stamp{Time: now, Since: m.Since, Steps: s.Steps}
	if next.Since.IsZero() || next.Since.After(now) {
		next.Since = s.Time
	}
	if next.Since.After(now) {
		next.Since = time.Time{} // the clock was set back behind everything that is known
	}
	if next.Skew(timestamp) == 0 {
		return next
	}
	low := m.Low
	if low.IsZero() || now.Before(low) {
		low = now
	}
	next.Steps = slices.Clone(s.Steps)
	if n := len(next.Steps); n > 0 && !now.Before(s.Time) && s.Time.Before(next.Steps[n-1].High) {
		next.Steps[n-1].High = timestamp // the same stretch goes on
		return next
	}
	next.Steps = append(next.Steps, Step{TXID: txid, Low: low, High: timestamp})
	if n := len(next.Steps); n > maxSteps {
		next.Steps = slices.Replace(next.Steps, 0, 2, join(next.Steps[0], next.Steps[1]))
	}
	return next
}

// join returns one step that disputes what two do, and what lies between.
func join(a, b Step) Step {
	if b.Low.Before(a.Low) {
		a.Low = b.Low
	}
	if b.High.After(a.High) {
		a.High = b.High
	}
	a.TXID = b.TXID
	return a
}

// Merged returns the stamp of a file that holds the batches from first to last.
func Merged(first, last Stamp) Stamp {
	last.Since = first.Since
	return last
}

// Put adds the stamp to an object's metadata.
func (s Stamp) Put(meta map[string]string) {
	if !s.Time.IsZero() {
		meta[MetaTime] = s.Time.UTC().Format(time.RFC3339Nano)
	}
	if !s.Since.IsZero() {
		meta[MetaSince] = s.Since.UTC().Format(time.RFC3339Nano)
	}
	if len(s.Steps) == 0 {
		return
	}
	texts := make([]string, len(s.Steps))
	for i, step := range s.Steps {
		texts[i] = fmt.Sprintf("%x:%d:%d", uint64(step.TXID), step.Low.UnixMilli(), step.High.UnixMilli())
	}
	meta[MetaSteps] = strings.Join(texts, ",")
}

// Of reads a stamp from an object's metadata. What cannot be read is not known.
func Of(meta map[string]string) Stamp {
	var s Stamp
	s.Time, _ = parse(meta[MetaTime])
	s.Since, _ = parse(meta[MetaSince])
	for text := range strings.SplitSeq(meta[MetaSteps], ",") {
		fields := strings.Split(text, ":")
		if len(fields) != 3 || len(s.Steps) == maxSteps {
			continue
		}
		txid, err := strconv.ParseUint(fields[0], 16, 64)
		low, lowErr := strconv.ParseInt(fields[1], 10, 64)
		high, highErr := strconv.ParseInt(fields[2], 10, 64)
		if err == nil && lowErr == nil && highErr == nil {
			s.Steps = append(s.Steps, Step{TXID: ltx.TXID(txid), Low: time.UnixMilli(low).UTC(),
				High: time.UnixMilli(high).UTC()})
		}
	}
	return s
}

func parse(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return t.UTC(), err
}
