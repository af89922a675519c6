//go:build race

package config

// bombScale makes the bombs smaller, because the race detector makes everything slower.
const bombScale = 8
