//go:build !race

package config

// bombScale is 1: the bombs are as large as a file may be.
const bombScale = 1
