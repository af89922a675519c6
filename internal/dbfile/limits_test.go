package dbfile

import "testing"

// New databases are refused while those that are open can still work.
func TestAdmits_P7(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		used, open int
		limit      uint64
		want       bool
	}{
		{"the first of all", 12, 0, 200, true},
		{"a dozen at work, 200 descriptors", 140, 0, 200, false},
		{"a few known, nothing else asked", 0, 8, 200, true},
		{"a dozen known, the use must be asked", 0, 12, 200, false},
		{"a thousand that are only measured", 4000, 0, 8192, true},
		{"no limit to speak of", 0, 10000, 1 << 20, true},
		{"full", 200, 0, 200, false},
	} {
		if got := admits(tc.used, tc.open, tc.limit); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
