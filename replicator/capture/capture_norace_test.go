//go:build !race

package capture

// flatPause is zero: writers run at full speed.
const flatPause = 0
