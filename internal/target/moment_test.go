package target

import (
	"strings"
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "-10m": now.Add(-10 * time.Minute), "2h30m": now.Add(-150 * time.Minute),
		"2d": now.Add(-48 * time.Hour), "2024-03-01T13:00:00+01:00": now, "2024-03-01T11:59:59.5Z": now.Add(-time.Second / 2),
	} {
		if got, err := ParseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("ParseMoment(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"2024-03-01 12:00:00": "lacks a time zone: write 2024-03-01T12:00:00Z",
		"yesterday":           "how long ago",
		"0s":                  "how long ago",
		"":                    "how long ago", "-1d2": "how long ago",
		"0001-01-01T00:00:00Z": "is no moment", // Go's zero time, which would ask for the newest state
	} {
		if got, err := ParseMoment(text, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseMoment(%q) = %s, %v; want %q", text, got, err, want)
		}
	}
}
