package custody

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
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
