package calendar

import (
	"strings"
	"testing"
	"time"
)

func TestOpenings(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New("30 2 * * *", 3*time.Hour, berlin)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, sp := range s.Openings(time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC), 3) {
		got = append(got, sp[0].In(berlin).Format("02 15:04")+" to "+sp[1].In(berlin).Format("15:04"))
	}
	if want := "28 02:30 to 05:30, 29 03:00 to 05:30, 30 02:30 to 05:30"; strings.Join(got, ", ") != want {
		t.Errorf("opens %s, want %s", strings.Join(got, ", "), want)
	}
}

func TestDoubts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cron string
		long time.Duration
		want string
	}{
		{"0 2 * * *", 3 * time.Hour, ""},
		{"0 22 * * 6", 8 * time.Hour, ""},
		{"0 2 1 * 1", time.Hour, "either is enough"},
		{"0 2 1 * *", time.Hour, ""},
		{"* * * * 1-5", time.Hour, "every minute of the day"},
		{"* 2 * * *", time.Hour, "every minute of hour 2"},
		{"0 * * * *", time.Hour, "every hour"},
		{"0 * * * *", time.Minute, ""},
		{"0 2 * * *", 24 * time.Hour, "every day"},
		{"0 2 * * 6", 48 * time.Hour, "a day or longer"},
		{"@daily", time.Hour, ""},
	} {
		s, err := New(test.cron, test.long, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(s.Doubts(), " ")
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s for %s: %q, want %q", test.cron, test.long, got, test.want)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"0 2 * * *", "TZ=", "TZ=UTC", "@daily", "@every 1h", "0 0 30 2 *", "*/0 * * * *",
		"1-2-3 * * * *", "* * * * * *", "", "9999999999 * * * *"} {
		f.Add(s, uint16(60))
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, expr string, minutes uint16) {
		s, err := New(expr, time.Duration(max(minutes, 1))*time.Minute, berlin)
		if err != nil {
			return
		}
		at := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)
		if open, change := s.At(at); !open && !change.IsZero() && !change.After(at) {
			t.Errorf("%q: closed but opens at %v", expr, change)
		}
	})
}
