package views

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/figures"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// shades are how busy an hour is: of four parts between what counts as quiet and the
// busiest hour.
var shades = []string{"░░", "▒▒", "▓▓", "██"}

// Quiet draws the weeks that learned windows know of a database: a row a day, a cell an
// hour, and says why each is open now or not.
func Quiet(w io.Writer, db string, windows []admin.Quiet, now time.Time) error {
	if len(windows) == 0 {
		_, err := fmt.Fprintf(w, "%s: no window of the configuration learns; see learn {} in docs/policy.md.\n",
			show.Text(db))
		return err
	}
	var text strings.Builder
	for i, q := range windows {
		if i > 0 {
			text.WriteString("\n")
		}
		quiet(&text, q, now)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func quiet(w *strings.Builder, q admin.Quiet, now time.Time) {
	state := map[string]string{"true": "open", "false": "closed"}[q.Open]
	if state == "" {
		state = "unknown"
	}
	fmt.Fprintf(w, "%s, window %s: %s", show.Text(q.DB), q.Window, state)
	if wait := q.Changes.Sub(now); !q.Changes.IsZero() && wait > 0 {
		verb := "opens"
		if state == "open" {
			verb = "closes"
		}
		fmt.Fprintf(w, ", %s in %s", verb, show.Span(wait))
	}
	fmt.Fprintf(w, "\n  %s\n  signal: %s", q.Why, show.Text(q.Signal))
	for _, v := range []struct {
		name  string
		value *float64
	}{{"now", q.Live}, {"expected at this time", q.Expected}, {"quiet up to", q.Level}} {
		if v.value != nil {
			fmt.Fprintf(w, ", %s %.4g", v.name, *v.value)
		}
	}
	fmt.Fprintf(w, "\n  seen %s of the week", show.Span(time.Duration(q.SeenSecs*float64(time.Second))))
	if !q.Learned {
		fmt.Fprintf(w, ", and watched for less than %s", show.Span(time.Duration(q.NeedsSecs*float64(time.Second))))
	}
	fmt.Fprintf(w, " (%s)\n\n", q.Zone)
	week(w, q)
}

// week draws seven rows of 24 cells.
func week(w *strings.Builder, q admin.Quiet) {
	low, high := 0.0, 0.0
	if q.Level != nil {
		low = *q.Level
	}
	for _, h := range q.Hours {
		if h.Value != nil {
			high = max(high, *h.Value)
		}
	}
	at := -1
	if zone, err := time.LoadLocation(q.Zone); err == nil {
		local := q.At.In(zone)
		at = (int(local.Weekday())+6)%7*24 + local.Hour()
	}
	w.WriteString("       ")
	for hour := range 24 {
		fmt.Fprintf(w, "%02d ", hour)
	}
	w.WriteString("\n")
	for i, h := range q.Hours {
		if i%24 == 0 {
			fmt.Fprintf(w, "  %.3s  ", h.Day)
		}
		end := " "
		switch {
		case i == at:
			end = "◂"
		case i%24 == 23:
			end = ""
		}
		w.WriteString(cell(h, low, high) + end)
		if i%24 == 23 {
			w.WriteString("\n")
		}
	}
	w.WriteString("\n  ·· quiet, ░░ ▒▒ ▓▓ ██ busier and busier, ?? never seen, ◂ now\n")
}

// cell draws one hour.
func cell(h admin.Hour, low, high float64) string {
	switch busy := figures.Busyness(h.Value, h.Quiet == "true", low, high); busy {
	case figures.NeverSeen:
		return "??"
	case figures.Quiet:
		return "··"
	default:
		return shades[busy-1]
	}
}

// Tunes writes what tune blocks have learned, and on what evidence.
func Tunes(w io.Writer, views []admin.Database, now time.Time) error {
	var text strings.Builder
	for _, v := range views {
		if v.Decision == nil {
			continue
		}
		for _, t := range v.Decision.Tunes {
			fmt.Fprintf(&text, "%s, policy %s, tune %s (%s): %s in force, %s suggested, between %s and %s\n  %s\n",
				show.Text(v.Name), t.Policy, t.Name, t.Mode, t.AmountOf(t.Value), t.AmountOf(t.Suggested), t.AmountOf(t.Min),
				t.AmountOf(t.Max), t.Reason)
			fmt.Fprintf(&text, "  evidence: %d runs", t.Runs)
			if !t.Since.IsZero() {
				fmt.Fprintf(&text, " since the last step %s ago", show.Span(now.Sub(t.Since)))
			}
			fmt.Fprintf(&text, ", the goal met after %d and missed after %d; %d are needed for a step", t.Met, t.Missed, t.Needs)
			if t.ShadowRuns > 0 {
				fmt.Fprintf(&text, "; in the shadow of %d runs the suggestion would have prevented %d", t.ShadowRuns,
					t.ShadowDiffered)
			}
			text.WriteString("\n")
			if t.Frozen.After(now) {
				fmt.Fprintf(&text, "  frozen for %s\n", show.Span(t.Frozen.Sub(now)))
			}
		}
	}
	if text.Len() == 0 {
		text.WriteString("No policy has a tune block.\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
