//go:build shortlease

package capture

// DefaultSpoolLimit is that of tests that fill one; of no program that is given to anybody.
const DefaultSpoolLimit = 32 << 20
