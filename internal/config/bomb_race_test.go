//go:build race

package config

// bombScale makes the bombs smaller where the race detector makes all slower.
const bombScale = 8
