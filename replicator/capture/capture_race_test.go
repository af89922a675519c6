//go:build race

package capture

// flatPause, in seconds, slows down writers that would run at full speed: under the race detector
// computing the WAL's checksum is dozens of times slower, and capture could not keep up.
const flatPause = 0.003
