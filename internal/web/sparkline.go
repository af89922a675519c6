package web

import (
	"fmt"
	"math"
	"strings"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/figures"
	"github.com/sqlwatch/sqlwatch/internal/freshness"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// sparkline is the last hour of a replica as a small picture, one unit a minute, the
// newest at the right. Its scale is the same for all: by the logarithm, from 0 to an hour
// behind, so that a second can be told from a minute and a minute from an hour.
type sparkline struct {
	Within string // the path of the minutes within the objective
	Late   string // and of those beyond
	Limit  int    // where the line between them stands
	Words  string // the same for whoever does not see it
	Short  string // how much of the hour there is, "" for all: nobody asked before
}

const sparkHeight = 20

func newSparkline(r *collector.Replica) sparkline {
	s := sparkline{Limit: sparkY(figures.Tolerance(r))}
	var within, late steps
	worst, known, beyond := 0.0, 0, 0
	minutes := r.BehindByMinute[max(0, len(r.BehindByMinute)-freshness.Minutes):]
	first := freshness.Minutes - len(minutes)
	for i, behind := range minutes {
		if behind == nil {
			continue
		}
		known++
		worst = max(worst, *behind)
		if *behind > figures.Tolerance(r) {
			beyond++
			late.add(first+i, sparkY(*behind))
		} else {
			within.add(first+i, sparkY(*behind))
		}
	}
	s.Within, s.Late = within.path(), late.path()
	if first > 0 {
		s.Short = fmt.Sprintf("%d min of it: not kept over a restart", len(minutes))
	}
	switch {
	case known == 0:
		s.Words = "nothing is known of the last hour yet"
	case beyond > 0:
		s.Words = fmt.Sprintf("last hour: up to %s behind, %d of %d minutes beyond its objective", show.Seconds(worst),
			beyond, known)
	default:
		s.Words = fmt.Sprintf("last hour: within its objective, at most %s behind", show.Seconds(worst))
	}
	return s
}

// sparkY is the height of so many seconds, from the top; even 0 is seen.
func sparkY(seconds float64) int {
	return sparkHeight - 1 - int(math.Round((sparkHeight-2)*math.Log1p(min(seconds, 3600))/math.Log1p(3600)))
}

// steps gathers columns of one unit; neighbours of one height are one column.
type steps struct {
	text      strings.Builder
	at, width int
	y         int
}

func (s *steps) add(x, y int) {
	if s.width > 0 && s.at+s.width == x && s.y == y {
		s.width++
		return
	}
	s.flush()
	s.at, s.width, s.y = x, 1, y
}

func (s *steps) flush() {
	if s.width > 0 {
		fmt.Fprintf(&s.text, "M%d %dh%dV%dh-%dz", s.at, s.y, s.width, sparkHeight, s.width)
	}
	s.width = 0
}

func (s *steps) path() string {
	s.flush()
	return s.text.String()
}
