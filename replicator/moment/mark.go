package moment

import "time"

// Reading is what the clocks of a machine showed at one instant.
type Reading struct {
	Wall   time.Time     `json:"wall"`   // by the clock that may be set; zero: not known
	Passed time.Duration `json:"passed"` // since the machine was started, suspended or not: nobody sets that
	Boot   string        `json:"boot"`   // which start that was; "": not known, and equal to none
}

// Since returns how much time has passed between an earlier reading and r, where both
// are of one start of the machine.
func (r Reading) Since(earlier Reading) (time.Duration, bool) {
	return r.Passed - earlier.Passed, r.Boot != "" && r.Boot == earlier.Boot
}

// How far the clock may have been wrong, where nothing tells how much time has passed
// between two readings of it, since the machine was started in between.
const (
	unwatched = time.Minute    // as long as the second is the later one: it is corrected at a start
	adrift    = 24 * time.Hour // where it is not: the clock was set, by whatever
)

// Stretch is a run of readings, both ends included. The zero value is none.
type Stretch struct {
	Low  time.Time `json:"low"`
	High time.Time `json:"high"`
}

// Holds reports whether the reading t is in the stretch.
func (s Stretch) Holds(t time.Time) bool {
	return !s.Low.IsZero() && !t.Before(s.Low) && !t.After(s.High)
}

// join returns the stretch that holds what either does, and what lies between.
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

// Unwatched returns the readings in dispute between two of which nobody knows how much
// time passed between them.
func Unwatched(earlier, later time.Time) Stretch {
	if later.Before(earlier) {
		return Stretch{later.Add(-adrift), earlier.Add(adrift)}
	}
	return Stretch{earlier.Add(-unwatched), later.Add(unwatched)}
}

// between returns the readings in dispute between two, and by how much the clock was
// put forward, or was set back where that is negative, as far as that is known.
//
// It was set at any instant between them. Set back, it showed some readings twice; put
// forward, it skipped some. Either the earlier ones were right or the later ones are.
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
