//go:build shortlease

package spool

// DefaultLimit is the bound for tests that fill a spool; no release is built with it.
const DefaultLimit = 32 << 20
