//go:build race

package restore_test

// raceDetector makes checksums dozens of times slower: what is only large is left
// to the run without it.
const raceDetector = true
