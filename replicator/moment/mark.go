package moment

import "time"

// Jump is by how much a clock may run ahead of the time that passed until it counts
// as set forward, or the machine as suspended.
const Jump = time.Minute

// interval is above the time between two looks: what the clock may have shown before
// the first one after it was set back.
const interval = 10 * time.Second

// Mark is what is known since the last batch, by readings of the clock.
type Mark struct {
	Since time.Time // what was committed before is in the batches; zero: not known
	Low   time.Time // the lowest reading since the last batch; zero: not known

	at     time.Time     // the reading of the last look
	passed time.Duration // and what had passed then
	jumped bool          // over readings that nobody can tell anything about
}

// Look notes that the clock showed now, and passed had passed since some fixed moment
// by a clock that nobody sets, when everything committed was in the batches.
//
// After a jump forward Since stays: of the readings in between, and of those that
// the clock may show again, nobody can say what was committed then.
func (m *Mark) Look(now time.Time, passed time.Duration) {
	if !m.at.IsZero() {
		m.jumped = m.jumped || now.Sub(m.at)-(passed-m.passed) > Jump
		if now.Before(m.Low) {
			m.Low = now.Add(-interval)
		}
	}
	m.at, m.passed = now, passed
	if m.jumped {
		return
	}
	if m.Since = now; m.Low.IsZero() {
		m.Low = now
	}
}

// At returns the mark as a batch sees it that is taken now: where the clock was set back
// since the last look, what was committed since began earlier by the new readings.
func (m Mark) At(now time.Time, passed time.Duration) Mark {
	if back := passed - m.passed - now.Sub(m.at); !m.at.IsZero() && !m.Since.IsZero() && back >= Slack {
		m.Since = m.Since.Add(-back)
	}
	return m
}

// Taken begins anew after a batch that holds all that was committed before the clock
// showed read.
func (m *Mark) Taken(read time.Time, passed time.Duration) {
	*m = Mark{Since: read, Low: read, at: read, passed: passed}
}
