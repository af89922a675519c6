//go:build !shortlease

package capture

// DefaultSpoolLimit is the bound of a spool for which none is set, in bytes.
const DefaultSpoolLimit = 1 << 30
