package views

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/policy"
)

// nextOpenings is how many openings of a window show whether its cron line says what
// was meant.
const nextOpenings = 3

// Openings writes when each window opens next, in the window's own time zone; a learned
// one says what it goes by.
func Openings(w io.Writer, windows map[string]*policy.Window, now time.Time) {
	const day = "Mon 2 Jan 2006 15:04 MST"
	for _, name := range slices.Sorted(maps.Keys(windows)) {
		window := windows[name]
		if window.Learn != nil {
			fmt.Fprintf(w, "window %s: learned from %s of history on; `sqlwatch quiet DB` shows the week\n", show.Text(name),
				show.Span(window.Learn.MinHistory))
			continue
		}
		fmt.Fprintf(w, "window %s opens next:\n", show.Text(name))
		for _, span := range window.Openings(now, nextOpenings) {
			from, to := span[0].In(window.Location), span[1].In(window.Location)
			fmt.Fprintf(w, "  %s, for %s\n", from.Format(day), show.Span(to.Sub(from)))
		}
	}
}
