//go:build race

package policy

// The race detector drops at random what lies in a pool.
const dropped = 12
