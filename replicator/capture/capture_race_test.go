//go:build race

package capture

// flatPause slows writers at full speed down: the race detector makes the WAL's
// checksum dozens of times slower, and capture could not keep up.
const flatPause = 0.003
