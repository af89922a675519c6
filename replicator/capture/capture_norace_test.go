//go:build !race

package capture

// flatPause leaves writers at full speed.
const flatPause = 0
