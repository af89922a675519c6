package custody

import (
	"fmt"
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
