package moment

import "time"

// Reading is what the clocks of a machine showed at one instant.
type Reading struct {
	Wall   time.Time     `json:"wall"`   // the wall clock, which may be set; zero: unknown
	Passed time.Duration `json:"passed"` // since boot, including suspensions; cannot be set
	Boot   string        `json:"boot"`   // the boot id; "": unknown, and equal to no other
}

// Since returns how much time has passed between an earlier reading and r, and whether that is
// known: only if both are of the same boot.
func (r Reading) Since(earlier Reading) (time.Duration, bool) {
	return r.Passed - earlier.Passed, r.Boot != "" && r.Boot == earlier.Boot
}

// How far the clock may have been wrong if the time between two readings is unknown, because
// the machine was restarted in between.
const (
	unwatched = time.Minute    // if the second reading is later: clocks are corrected a little at boot
	adrift    = 24 * time.Hour // if it is earlier: the clock was set, by an unknown amount
)

// Stretch is a range of clock readings, both ends included. The zero value is empty.
type Stretch struct {
	Low  time.Time `json:"low"`
	High time.Time `json:"high"`
}

// Holds reports whether the reading t is in the stretch.
func (s Stretch) Holds(t time.Time) bool {
	return !s.Low.IsZero() && !t.Before(s.Low) && !t.After(s.High)
}

// join returns the smallest stretch that contains both.
func (s Stretch) join(other Stretch) Stretch {
	switch {
	case s.Low.IsZero():
		return other
	case other.Low.IsZero():
		return s
	}
	if other.Low.Before(s.Low) {
		s.Low = other.Low
	}
	if other.High.After(s.High) {
		s.High = other.High
	}
	return s
}

// Unwatched returns the readings in dispute between two readings if the time that passed between
// them is unknown.
func Unwatched(earlier, later time.Time) Stretch {
	if later.Before(earlier) {
		return Stretch{later.Add(-adrift), earlier.Add(adrift)}
	}
	return Stretch{earlier.Add(-unwatched), later.Add(unwatched)}
}

// between returns the readings in dispute between two readings, and by how much the clock was
// set forward, or back if negative; 0 if unknown.
//
// The clock was set at some instant between them. Set back, it showed some readings twice; set
// forward, it skipped some. Either the earlier readings were right, or the later ones are.
func between(earlier, later Reading) (disputed Stretch, set time.Duration) {
	passed, known := later.Since(earlier)
	if !known {
		return Unwatched(earlier.Wall, later.Wall), 0
	}
	switch set = later.Wall.Sub(earlier.Wall) - passed; {
	case set <= -Slack:
		return Stretch{earlier.Wall.Add(set), earlier.Wall.Add(passed)}, set
	case set >= Slack:
		return Stretch{earlier.Wall, later.Wall}, set
	}
	return Stretch{}, 0
}

// Mark is what is known since the last batch, by readings of the clock. It is kept
// over the time in which nobody looks: the next look tells what became of the clock.
type Mark struct {
	Since    time.Time `json:"since"` // what was committed before is in the batches; zero: not known
	Disputed Stretch   `json:"disputed"`
	Last     Reading   `json:"last"` // of whoever looked
}

// Watch notes that the clocks showed now. What the clock was set back by, what was
// committed since began earlier by its new readings.
func (m *Mark) Watch(now Reading) {
	if !m.Last.Wall.IsZero() {
		disputed, set := between(m.Last, now)
		m.Disputed = m.Disputed.join(disputed)
		if set < 0 && !m.Since.IsZero() {
			m.Since = m.Since.Add(set)
		}
	}
	m.Last = now
}

// Look is Watch at an instant when everything committed was in the batches.
func (m *Mark) Look(now Reading) {
	m.Watch(now)
	m.Since = now.Wall
}

// Taken starts over after a batch that holds all that was committed before the clocks
// showed read.
func (m *Mark) Taken(read Reading) { *m = Mark{Since: read.Wall, Last: read} }
