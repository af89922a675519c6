//go:build race

package restore_test

// raceDetector is true under the race detector, which makes checksums dozens of times slower: tests
// that are merely large are skipped then.
const raceDetector = true
