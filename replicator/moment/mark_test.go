package moment

import (
	"testing"
	"time"
)

// TestMark_R21_back: a clock that is set back between the last look and a batch shows less
// time than has passed: what the batch holds began earlier by its readings.
func TestMark_R21_back(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var m Mark
	m.Look(at, 0)
	if got := m.At(at.Add(2*time.Second), 7*time.Second).Since; !got.Equal(at.Add(-5 * time.Second)) {
		t.Errorf("set back by 5 s: since %s", got)
	}
	if got := m.At(at.Add(2*time.Second), 2*time.Second).Since; !got.Equal(at) {
		t.Errorf("not set: since %s", got)
	}
	if got := (Mark{}).At(at, 7*time.Second).Since; !got.IsZero() {
		t.Errorf("nothing known: since %s", got)
	}
}
