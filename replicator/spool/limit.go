//go:build !shortlease

package spool

// DefaultLimit is the bound of a spool for which none is set, in bytes.
const DefaultLimit = 1 << 30
