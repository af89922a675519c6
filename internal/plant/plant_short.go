//go:build shortlease

// Package plant plants panics in the program that tests run, so that they can show how sqlwatch
// survives its own bugs.
package plant

import (
	"os"
	"slices"
	"strings"
)

var planted = strings.Split(os.Getenv("SQLWATCH_TEST_PANIC"), ",")

// Panic panics if $SQLWATCH_TEST_PANIC names the place: "request /path" or "turn database".
func Panic(what, of string) {
	if slices.Contains(planted, what+" "+of) {
		panic("planted by a test: " + what + " " + of)
	}
}
