package target

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseMoment reads a moment as people type it: 2024-03-01T12:00:00Z with any zone, or how
// long ago it was, such as 10m, 36h or 2d.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		if t.IsZero() { // it would ask for the newest state
			return t, fmt.Errorf("%q is no moment: it is what programs write for an unknown one", text)
		}
		return t, nil
	}
	ago := strings.TrimPrefix(text, "-")
	if days, ok := strings.CutSuffix(ago, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n > 0 && n < 1e5 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if _, err := time.Parse(layout, text); err == nil {
			return time.Time{}, fmt.Errorf("%q lacks a time zone: write %sZ for UTC, or its offset as in %s+01:00", text,
				strings.Replace(text, " ", "T", 1), strings.Replace(text, " ", "T", 1))
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither of the form 2024-03-01T12:00:00Z or 2024-03-01T13:00:00+01:00, with a "+
		"time zone, nor how long ago it was, such as 10m or 36h", text)
}
