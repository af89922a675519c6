// Package moment records when a batch of commits was taken, by a clock that may be set: what
// the clock showed, from when on the batch has the commits, and which readings of the clock are
// in dispute, because it showed them twice, skipped them, or was not watched while the machine
// restarted.
//
// The timestamps by which a replica is searched rise with the TXID whatever the clock does.
// They are right as long as the clock is right; a Stamp says where they are not.
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
	MetaSince = "sqlwatch-since" // in the same format: Stamp.Since; absent if unknown
	MetaSteps = "sqlwatch-steps" // <txid>:<low>:<high>[:f], comma-separated, times in Unix milliseconds, oldest first
)

// MaxSteps is the most steps that an object's metadata holds.
const MaxSteps = 16

// Slack is by how much a clock may be off without being recorded: nobody asks for a moment more
// exactly than that.
const Slack = time.Second

// Stamp says when one batch was taken.
type Stamp struct {
	Time  time.Time `json:"time"`            // what the clock showed; zero: unknown
	Since time.Time `json:"since"`           // every earlier commit is in an earlier TXID; zero: unknown
	Steps []Step    `json:"steps,omitempty"` // of the clock up to this batch, oldest first
}

// Known returns *s, or the zero Stamp, which knows nothing, if s is nil.
func Known(s *Stamp) Stamp {
	if s == nil {
		return Stamp{}
	}
	return *s
}

// Step is a stretch of readings in dispute: the clock was set, or nobody watched it, and TXID is
// the first batch after that. A moment in the stretch may have been before that batch, after it,
// or not at all.
type Step struct {
	TXID ltx.TXID `json:"txid"`
	Stretch
	Forward bool `json:"forward,omitempty"` // that batch's reading is not earlier than the previous batch's
}

// Skew returns by how much a batch's clock reading is behind its timestamp, which rises with the
// TXID; 0 if that is unknown or less than Slack.
func (s Stamp) Skew(timestamp time.Time) time.Duration {
	if lag := timestamp.Sub(s.Time); !s.Time.IsZero() && lag >= Slack {
		return lag
	}
	return 0
}

// Next returns the stamp of the batch txid, taken when the clock showed now, after a batch with
// stamp s. timestamp is the new batch's, which rises with the TXID.
func (s Stamp) Next(txid ltx.TXID, now, timestamp time.Time, m Mark) Stamp {
	next := Stamp{Time: now, Since: m.Since, Steps: s.Steps}
	if next.Since.IsZero() || next.Since.After(now) {
		next.Since = s.Time
	}
	if next.Since.After(now) {
		next.Since = time.Time{} // the clock was set back before all known readings
	}
	skewed := next.Skew(timestamp) != 0
	if m.Disputed.Low.IsZero() && !skewed {
		return next
	}
	next.Steps = slices.Clone(s.Steps)
	last := len(next.Steps) - 1
	for last >= 0 && next.Steps[last].Forward {
		last--
	}
	if m.Disputed.Low.IsZero() && last >= 0 && !now.Before(s.Time) && s.Time.Before(next.Steps[last].High) {
		next.Steps[last].High = timestamp // the same stretch continues
		return next
	}
	step := Step{TXID: txid, Stretch: m.Disputed, Forward: !now.Before(s.Time)}
	if skewed {
		step.Stretch = step.join(Stretch{now, timestamp})
	}
	next.Steps = fit(append(next.Steps, step))
	return next
}

// fit returns steps without the one that may be too many. It drops the oldest step that only went
// forward: readings rise across it all the same, and the stamps of batches near it still list it.
// If there is none, it joins the oldest two.
func fit(steps []Step) []Step {
	if len(steps) <= MaxSteps {
		return steps
	}
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Forward }); i >= 0 {
		return slices.Delete(steps, i, i+1)
	}
	steps[1].Stretch = steps[0].join(steps[1].Stretch)
	return steps[1:]
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
		if step.Forward {
			texts[i] += ":f"
		}
	}
	meta[MetaSteps] = strings.Join(texts, ",")
}

// Of reads a stamp from an object's metadata. Fields that cannot be read are unknown.
func Of(meta map[string]string) Stamp {
	var s Stamp
	s.Time, _ = parse(meta[MetaTime])
	s.Since, _ = parse(meta[MetaSince])
	for text := range strings.SplitSeq(meta[MetaSteps], ",") {
		fields := strings.Split(text, ":")
		forward := len(fields) == 4 && fields[3] == "f"
		if len(fields) != 3 && !forward || len(s.Steps) == MaxSteps {
			continue
		}
		txid, err := strconv.ParseUint(fields[0], 16, 64)
		low, lowErr := strconv.ParseInt(fields[1], 10, 64)
		high, highErr := strconv.ParseInt(fields[2], 10, 64)
		if err == nil && lowErr == nil && highErr == nil {
			s.Steps = append(s.Steps, Step{TXID: ltx.TXID(txid), Forward: forward,
				Stretch: Stretch{time.UnixMilli(low).UTC(), time.UnixMilli(high).UTC()}})
		}
	}
	return s
}

func parse(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return t.UTC(), err
}
