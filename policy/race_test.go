//go:build race

package policy

// dropped is how many allocations more there are with the race detector, under which a
// sync.Pool drops some of its items at random.
const dropped = 12
