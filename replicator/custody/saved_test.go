package custody

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestStateFile_concurrent: what one writer was told is durable is not taken back by another one, whose write began
// earlier and ends later.
func TestStateFile_concurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := NewStateFile(dir, "s3.main")
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				key := fmt.Sprintf("%d-%d", w, i)
				if err := f.Sent(Unread{Key: key}); err != nil {
					t.Error(err)
					return
				}
				after := NewStateFile(dir, "s3.main") // as a start after a crash finds it
				if err := after.Load(); err != nil {
					t.Error(err)
					return
				}
				if !slices.ContainsFunc(after.Get().Unread, func(u Unread) bool { return u.Key == key }) {
					t.Errorf("%s was recorded, and the file does not have it", key)
					return
				}
			}
		})
	}
	writers.Wait()
}

// TestAbsent_P8: an object is awaited for a day of looking for it. A clock that is set between two processes, as at the
// start of a machine that has none of its own, ends no wait.
func TestAbsent_P8(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(0, 0)
	if err := NewStateFile(dir, "s3.main").Sent(Unread{Key: "a"}); err != nil {
		t.Fatal(err)
	}
	for life, tt := range []struct {
		jump, looks time.Duration // of the clock before this process; between its looks
		left        int
	}{
		{0, time.Hour, 1}, {56 * 365 * 24 * time.Hour, time.Hour, 1}, {-24 * time.Hour, 9 * time.Hour, 1},
		{0, time.Hour, 0},
	} {
		f := NewStateFile(dir, "s3.main")
		if err := f.Load(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(tt.jump)
		for range 3 {
			f.Absent("a", now)
			now = now.Add(tt.looks)
		}
		if left := f.Get().Unread; len(left) != tt.left || tt.left > 0 && left[0].Absent == 0 {
			t.Errorf("life %d: %+v are awaited, want %d", life, left, tt.left)
		}
		if err := f.Change(func(*Saved) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLoad_P12: a file of a later version is refused, also where a field has become something else there; of a
// corrupt file nothing is taken.
func TestLoad_P12(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text  string
		later bool
	}{
		"later":                    {`{"version": 99, "lineage": "p"}`, true},
		"later, with other fields": {`{"version": 99, "lineage": "p", "writers": {"a": 1}}`, true},
		"corrupt":                  {`{"version": 1, "lineage": "p", "reached_txid": []}`, false},
	} {
		c := New(t.TempDir())
		if err := os.WriteFile(c.path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Load(); errors.Is(err, errVersion) != tt.later || c.Get().ID != "" && !tt.later {
			t.Errorf("%s: %v, lineage %q", name, err, c.Get().ID)
		}
	}
}
