//go:build shortlease

package spool

// DefaultLimit is that of tests that fill one; of no program that is given to anybody.
const DefaultLimit = 32 << 20
