package web

import (
	"context"
	"fmt"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/figures"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// week is what a learned window knows of a database, drawn: a row a day, a square an hour.
type week struct {
	Window, State, Why string
	Words              string // what the picture shows, for who cannot see it
	Days               []weekDay
}

type weekDay struct {
	Name  string
	Y     int // from the top, in the picture's units
	Hours []weekHour
}

type weekHour struct {
	X     int // from the left
	Class string
	Words string
}

// The picture's units: a square with the gap beside it, and the room for days and hours.
const (
	weekSquare = 10
	weekLeft   = 28
	weekTop    = 12
)

var busyWords = map[int]string{figures.NeverSeen: "never seen", figures.Quiet: "quiet"}

// weeksOf draws the weeks of all learned windows.
func weeksOf(ctx context.Context, w *watchdog.Watchdog, name string) (weeks []week) {
	known, err := w.Quiet(ctx, name)
	if err != nil {
		return nil // it was not measured yet
	}
	for _, q := range known {
		level, most := 0.0, 0.0
		if q.Level != nil {
			level = *q.Level
		}
		for _, h := range q.Hours {
			if h.Value != nil {
				most = max(most, *h.Value)
			}
		}
		state := map[string]string{"true": "open", "false": "closed"}[q.Open.String()]
		drawn := week{Window: q.Window, State: state, Why: q.Why}
		count := map[int]int{}
		for i, h := range q.Hours {
			if i%24 == 0 {
				drawn.Days = append(drawn.Days, weekDay{Name: h.Day[:min(3, len(h.Day))], Y: weekTop + i/24*weekSquare})
			}
			busy := figures.Busyness(h.Value, h.Quiet.String() == "true", level, most)
			count[busy]++
			words := busyWords[busy]
			if words == "" {
				words = fmt.Sprintf("busy, %d of %d", busy, figures.Busiest)
			}
			day := &drawn.Days[len(drawn.Days)-1]
			day.Hours = append(day.Hours, weekHour{X: weekLeft + i%24*weekSquare,
				Class: "busy" + strings.Replace(fmt.Sprint(busy), "-1", "x", 1),
				Words: fmt.Sprintf("%s %02d:00: %s", h.Day, h.Hour, words)})
		}
		drawn.Words = fmt.Sprintf("the week of window %s: %d hours quiet, %d busy, %d never seen", q.Window,
			count[figures.Quiet], len(q.Hours)-count[figures.Quiet]-count[figures.NeverSeen], count[figures.NeverSeen])
		weeks = append(weeks, drawn)
	}
	return weeks
}
